package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"strake/cli/api"
	"strake/cli/flagvalue"
)

func (f *Flags) putFiles(r *api.CreateRequest, src Source) error {
	h := &r.HostConfig
	for _, v := range f.volumes {
		bind, anonymous, err := volume(v, src.Dir)
		if err != nil {
			return err
		}
		if anonymous != "" {
			put(&r.Volumes, anonymous)
			continue
		}
		h.Binds = append(h.Binds, bind)
	}
	for _, t := range f.tmpfs {
		target, options, _ := strings.Cut(t, ":")
		if !path.IsAbs(target) {
			return fmt.Errorf("--tmpfs %q: want an absolute path, and options after a colon", t)
		}
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[target] = options
	}
	for _, m := range f.mounts {
		mount, err := parseMount(m)
		if err != nil {
			return err
		}
		if mount.Type == "bind" && strings.HasPrefix(mount.Source, ".") {
			mount.Source = filepath.Join(src.Dir, mount.Source)
		}
		h.Mounts = append(h.Mounts, mount)
	}
	h.VolumesFrom, h.VolumeDriver = f.volumesFrom, f.volumeDriver
	return nil
}

func put(set *map[string]struct{}, key string) {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	(*set)[key] = struct{}{}
}

// volume reads -v: TARGET (an anonymous volume) or SOURCE:TARGET[:OPTIONS], where SOURCE is a path
// or a volume's name.
func volume(v, dir string) (bind, anonymous string, err error) {
	parts := strings.Split(v, ":")
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf(
			"--volume %q: %s: want TARGET, or SOURCE:TARGET[:OPTIONS]", v, why,
		)
	}
	switch {
	case len(parts) > 3:
		return bad("too many colons")
	case len(parts) == 1 && !path.IsAbs(v):
		return bad("the target is not an absolute path")
	case len(parts) == 1:
		return "", v, nil
	case parts[0] == "":
		return bad("empty source")
	case !path.IsAbs(parts[1]):
		return bad("the target is not an absolute path")
	case path.Clean(parts[1]) == "/":
		return bad("the target cannot be /")
	}
	if strings.HasPrefix(parts[0], ".") {
		parts[0] = filepath.Join(dir, parts[0])
	}
	return strings.Join(parts, ":"), "", nil
}

func checkMount(s string) error { _, err := parseMount(s); return err }

// parseMount reads --mount: comma-separated KEY=VALUE, quoted as CSV
// (docker/cli:docs/reference/commandline/container_run.md, "Add bind mounts, volumes or memory
// filesystems").
func parseMount(s string) (api.Mount, error) {
	m := api.Mount{Type: "volume"}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return m, fmt.Errorf("%q: %w", s, err)
	}
	var foreign [3]string // the first option seen that belongs to bind, volume, tmpfs
	for _, field := range fields {
		key, v, valued := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if err := mountField(&m, key, v, valued); err != nil {
			return m, fmt.Errorf("%q: %w", field, err)
		}
		for i, kind := range []string{"bind-", "volume-", "tmpfs-"} {
			if strings.HasPrefix(key, kind) {
				foreign[i] = key
			}
		}
	}
	if m.Target == "" {
		return m, errors.New("target is required")
	}
	for i, kind := range []string{"bind", "volume", "tmpfs"} {
		if foreign[i] != "" && m.Type != kind {
			return m, fmt.Errorf("cannot mix '%s' with mount type '%s'", foreign[i], m.Type)
		}
	}
	if m.Type == "tmpfs" && m.Source != "" {
		return m, errors.New("a tmpfs has no source")
	}
	if m.Type == "bind" && m.Source == "" {
		return m, errors.New("a bind mount needs a source")
	}
	return m, nil
}

// mountField reads one option of --mount into m.
func mountField(m *api.Mount, key, v string, valued bool) error {
	if to := mountSwitch(m, key); to != nil {
		return setSwitch(to, v, valued)
	}
	if !valued {
		return errors.New("want KEY=VALUE")
	}
	switch kind, _, _ := strings.Cut(key, "-"); kind {
	case "bind":
		return bindField(bindOptions(m), key, v)
	case "volume":
		return volumeField(volumeOptions(m), key, v)
	case "tmpfs":
		return tmpfsField(tmpfsOptions(m), key, v)
	}
	switch key {
	case "type":
		if m.Type = strings.ToLower(v); m.Type != "bind" && m.Type != "volume" &&
			m.Type != "tmpfs" {
			return errors.New("want bind, volume or tmpfs")
		}
	case "source", "src":
		m.Source = v
	case "target", "dst", "destination":
		if !path.IsAbs(v) {
			return errors.New("want an absolute path")
		}
		m.Target = v
	case "consistency":
		m.Consistency = v
	default:
		return unknownKey(key)
	}
	return nil
}

func unknownKey(key string) error { return fmt.Errorf("unknown key '%s'", key) }

// mountSwitch returns what an option without a value, or with true or false, sets; nil if the key
// is none of those.
func mountSwitch(m *api.Mount, key string) *bool {
	switch key {
	case "readonly", "ro":
		return &m.ReadOnly
	case "volume-nocopy":
		return &volumeOptions(m).NoCopy
	case "bind-nonrecursive":
		return &bindOptions(m).NonRecursive
	case "bind-create-src":
		return &bindOptions(m).CreateMountpoint
	}
	return nil
}

func setSwitch(to *bool, v string, valued bool) error {
	switch {
	case !valued, v == "true", v == "1":
		*to = true
	case v == "false", v == "0":
		*to = false
	default:
		return errors.New("want true or false")
	}
	return nil
}

func bindField(o *api.BindOptions, key, v string) error {
	switch key {
	case "bind-propagation":
		if !strings.Contains(" private rprivate shared rshared slave rslave ", " "+v+" ") {
			return errors.New("want private, rprivate, shared, rshared, slave or rslave")
		}
		o.Propagation = v
	case "bind-recursive":
		switch v {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return errors.New("want enabled, disabled, writable or readonly")
		}
	default:
		return unknownKey(key)
	}
	return nil
}

func volumeField(o *api.VolumeOptions, key, v string) error {
	driver := func() *api.VolumeDriver {
		if o.DriverConfig == nil {
			o.DriverConfig = &api.VolumeDriver{}
		}
		return o.DriverConfig
	}
	switch key {
	case "volume-subpath":
		o.Subpath = v
	case "volume-label":
		return addPair(&o.Labels, key, v)
	case "volume-driver":
		driver().Name = v
	case "volume-opt":
		return addPair(&driver().Options, key, v)
	default:
		return unknownKey(key)
	}
	return nil
}

func tmpfsField(o *api.TmpfsOptions, key, v string) (err error) {
	switch key {
	case "tmpfs-size":
		o.SizeBytes, err = flagvalue.ParseBytes(v)
	case "tmpfs-mode":
		n, bad := strconv.ParseUint(v, 8, 32)
		if bad != nil {
			return errors.New("want an octal number")
		}
		o.Mode = uint32(n)
	default:
		return unknownKey(key)
	}
	return err
}

func bindOptions(m *api.Mount) *api.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &api.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *api.Mount) *api.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &api.VolumeOptions{}
	}
	return m.VolumeOptions
}

func tmpfsOptions(m *api.Mount) *api.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &api.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

// addPair adds NAME=VALUE to a map.
func addPair(to *map[string]string, key, v string) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok || name == "" {
		return fmt.Errorf("want %s=NAME=VALUE", key)
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[name] = value
	return nil
}
