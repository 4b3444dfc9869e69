package container

import (
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// encode is the record as JSON. It is written out because preparing encoding/json for one use takes
// longer than the use.
func (r *record) encode() []byte {
	b := make([]byte, 0, 512)
	text := func(name, value string) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = appendJSON(append(b, `":`...), value)
	}
	number := func(name string, value uint64) {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = strconv.AppendUint(append(b, `":`...), value, 10)
	}
	b = strconv.AppendUint(append(b, `{"version":`...), uint64(r.Version), 10)
	text("ociVersion", r.OCIVersion)
	text("id", r.ID)
	number("pid", uint64(r.Pid))
	number("pidStartTicks", r.PidStart)
	text("bundle", r.Bundle)
	text("rootfs", r.Rootfs)
	text("created", r.Created.Format(time.RFC3339Nano))
	text("owner", r.Owner)
	text("cgroupPath", r.CgroupPath)
	number("namespaceFlags", r.Flags)
	if len(r.Annotations) > 0 {
		sep := `,"annotations":{`
		for name, value := range r.Annotations {
			b = appendJSON(append(b, sep...), name)
			b = appendJSON(append(b, ':'), value)
			sep = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendJSON appends a JSON string (RFC 8259, section 7). Bytes that are not UTF-8 become U+FFFD,
// as in encoding/json.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// removeState removes a state directory with what this package puts there.
func removeState(dir string) error {
	for _, name := range []string{stateFile, configFile, optionsFile, startSocket} {
		unix.Unlink(filepath.Join(dir, name))
	}
	return unix.Rmdir(dir)
}
