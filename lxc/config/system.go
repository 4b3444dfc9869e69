package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// System is the configuration of LXC itself, lxc.system.conf(5), which lxc-config prints.
type System struct {
	LXCPath       string // lxc.lxcpath: where containers are, without a slash at the end
	DefaultConfig string // lxc.default_config: what lxc-create begins with
	CgroupPattern string // lxc.cgroup.pattern: the container's group, where %n is its name
	CgroupUse     string // lxc.cgroup.use: controllers with commas between them; "": all
	LVMGroup      string // lxc.bdev.lvm.vg
	LVMThinPool   string // lxc.bdev.lvm.thin_pool
	ZFSRoot       string // lxc.bdev.zfs.root
	RBDPool       string // lxc.bdev.rbd.rbdpool
	RBDUser       string // lxc.bdev.rbd.rbduser
}

// systemKey is one row of the table of keys of System.
type systemKey struct {
	name string
	at   func(*System) *string
}

// systemKeys are in the order in which lxc-config -l lists them.
var systemKeys = []systemKey{
	{"lxc.default_config", func(s *System) *string { return &s.DefaultConfig }},
	{"lxc.lxcpath", func(s *System) *string { return &s.LXCPath }},
	{"lxc.bdev.lvm.vg", func(s *System) *string { return &s.LVMGroup }},
	{"lxc.bdev.lvm.thin_pool", func(s *System) *string { return &s.LVMThinPool }},
	{"lxc.bdev.zfs.root", func(s *System) *string { return &s.ZFSRoot }},
	{"lxc.cgroup.use", func(s *System) *string { return &s.CgroupUse }},
	{"lxc.cgroup.pattern", func(s *System) *string { return &s.CgroupPattern }},
	{"lxc.bdev.rbd.rbdpool", func(s *System) *string { return &s.RBDPool }},
	{"lxc.bdev.rbd.rbduser", func(s *System) *string { return &s.RBDUser }},
}

// unlisted are the keys at the end of the table that lxc-config does not list.
const unlisted = 2

// SystemKeys are the keys of System, as lxc-config -l lists them.
func SystemKeys() []string {
	return systemNames()[:len(systemKeys)-unlisted]
}

func systemNames() []string {
	names := make([]string, len(systemKeys))
	for i := range systemKeys {
		names[i] = systemKeys[i].name
	}
	return names
}

// SystemPath is where the configuration of LXC is: that of root for no home directory, otherwise
// that of the user with this home directory.
func SystemPath(home string) string {
	if home == "" {
		return "/etc/lxc/lxc.conf"
	}
	return filepath.Join(home, ".config/lxc/lxc.conf")
}

// DefaultSystem is what holds where no file says otherwise. home is as in SystemPath.
func DefaultSystem(home string) *System {
	s := &System{
		LXCPath: "/var/lib/lxc", DefaultConfig: "/etc/lxc/default.conf",
		LVMGroup: "lxc", LVMThinPool: "lxc", ZFSRoot: "lxc", RBDPool: "lxc",
	}
	if home != "" {
		s.LXCPath = filepath.Join(home, ".local/share/lxc")
		s.DefaultConfig = filepath.Join(home, ".config/lxc/default.conf")
	}
	return s
}

// LoadSystem reads the file of SystemPath. If it is not there, the defaults hold.
func LoadSystem(home string) (*System, error) {
	path := SystemPath(home)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultSystem(home), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseSystem(path, f, home)
}

// ParseSystem reads lxc.system.conf(5). As in LXC, the first line of a key counts, and one without
// a value says nothing. name is for messages, home as in SystemPath. Lines that are wrong are
// reported together as Errors.
func ParseSystem(name string, r io.Reader, home string) (*System, error) {
	s := DefaultSystem(home)
	seen := make(map[string]bool)
	var wrong Errors
	eachLine(name, r, &wrong, func(text string) *Error {
		key, value, ok := cutSystem(text)
		e := &Error{Key: key, Value: value}
		at := s.field(key)
		switch {
		case !ok:
			e.Problem = notALine
		case at == nil && key != "":
			e.Problem = "no such key" + didYouMean(key, systemNames())
		case strings.Contains(value, "\x00"):
			e.Problem = want("no NUL byte").Error()
		default:
			if key != "" && value != "" && !seen[key] {
				seen[key] = true
				*at = value
			}
			return nil
		}
		return e
	})
	if len(wrong) > 0 {
		return nil, wrong
	}
	if trimmed := strings.TrimRight(s.LXCPath, "/"); trimmed != "" {
		s.LXCPath = trimmed
	}
	return s, nil
}

// cutSystem takes a line apart. Quotes are part of a value here. A line that is wrong is its value.
func cutSystem(text string) (key, value string, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" || text[0] == '#' {
		return "", "", true
	}
	key, value, found := strings.Cut(text, "=")
	if !found || !strings.HasPrefix(key, "lxc.") {
		return "", text, false
	}
	return strings.TrimSpace(key), strings.TrimSpace(value), true
}

func (s *System) field(key string) *string {
	for i := range systemKeys {
		if systemKeys[i].name == key {
			return systemKeys[i].at(s)
		}
	}
	return nil
}

// Get returns what lxc-config prints for a key. An unknown one is an errdefs.ErrInvalidArgument.
func (s *System) Get(key string) (string, error) {
	at := s.field(key)
	if at == nil {
		return "", fmt.Errorf("unknown key %q%s: %w", key, didYouMean(key, systemNames()),
			errdefs.ErrInvalidArgument)
	}
	return *at, nil
}
