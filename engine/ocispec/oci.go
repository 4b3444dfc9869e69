package ocispec

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/capability"
	"strake/engine"
	"strake/engine/userdb"
	"strake/internal/message"
)

// The OCI configuration of a container is a pure function of what was asked, what the image says,
// what the engine resolved (mount sources, namespaces of other containers, the user's numbers) and
// a few facts of the host. The defaults are those of dockerd 29 (moby/moby
// daemon/pkg/oci/defaults.go).

// Host are what the configuration must know about the machine; they are read once per engine.
type Host struct {
	// ThermalThrottle are the existing /sys/devices/system/cpu/cpuN/thermal_throttle directories.
	ThermalThrottle []string
	// LastCap is the highest capability that the kernel knows.
	LastCap int
	// Caps are the capabilities that the engine has itself; 0 means that it is not known and not
	// looked at.
	Caps     capability.Set
	AppArmor bool
	// Devices are the host's device nodes, for privileged containers.
	Devices []specs.LinuxDevice
	// CPUs is the number of processors online, MemoryBytes the size of the memory.
	CPUs        int
	MemoryBytes int64
	// Rlimits are for containers that say nothing.
	Rlimits []specs.POSIXRlimit
}

// Image are what an image says about its containers.
type Image struct {
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
	Volumes, Exposed     []string
	StopSignal           string
	Shell                []string
	Health               *engine.HealthConfig
	Labels               map[string]string
}

// Mount is a mount of the user with its source resolved: a path of the host, or empty for a
// tmpfs.
type Mount struct {
	engine.Mount
	HostPath string
}

// Input is everything that ociSpec looks at.
type Input struct {
	ID       string
	Spec     *engine.Spec
	Args     []string
	Env      []string
	Cwd      string
	Identity userdb.Identity
	Host     *Host
	Mounts   []Mount
	// Files of the engine that are mounted in; empty ones are not.
	HostsPath, HostnamePath, ResolvPath string
	// ShmPath is a shared /dev/shm of the host; empty gives the container its own.
	ShmPath string
	// Namespaces to join by path, by type; NetPath is that of the network sandbox, empty for the
	// host's.
	NetPath, PIDPath, IPCPath, UTSPath string
	CgroupPath                         string
	// Profile makes the default seccomp profile, which depends on the bounding set only; nil takes
	// the library's.
	Profile func(*specs.Spec) (*specs.LinuxSeccomp, error)
}

// ResolveProcess merges the user's wish with the image: arguments, environment and working
// directory, as dockerd does.
func ResolveProcess(
	s *engine.Spec, im *Image, id string,
) (args, env []string, cwd string, err error) {
	entry, cmd := s.Entrypoint, s.Cmd
	if len(entry) == 0 && !s.ClearEntrypoint {
		entry = im.Entrypoint
		if len(cmd) == 0 {
			cmd = im.Cmd
		}
	}
	args = slices.Concat(entry, cmd)
	if len(args) == 0 {
		return nil, nil, "", message.New(errdefs.ErrInvalidArgument, "no command specified")
	}
	if args[0] == "" {
		return nil, nil, "", message.New(errdefs.ErrInvalidArgument, "the command to run is empty")
	}
	for i, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, nil, "", message.New(
				errdefs.ErrInvalidArgument, "argument %d of the command contains a NUL byte", i,
			)
		}
	}
	env = []string{"PATH=" + defaultPath}
	host := s.Hostname
	if host == "" {
		host = ShortID(id)
	}
	env = append(env, "HOSTNAME="+host)
	if s.TTY {
		env = append(env, "TERM=xterm")
	}
	env = MergeEnv(MergeEnv(env, im.Env), s.Env)
	for _, e := range env {
		if strings.ContainsRune(e, 0) {
			return nil, nil, "", message.New(
				errdefs.ErrInvalidArgument, "environment variable %q contains a NUL byte", e,
			)
		}
	}
	if s.WorkingDir != "" && !path.IsAbs(s.WorkingDir) {
		return nil, nil, "", message.New(
			errdefs.ErrInvalidArgument,
			"the working directory '%s' is invalid, it needs to be an absolute path", s.WorkingDir,
		)
	}
	cwd = s.WorkingDir
	if cwd == "" {
		cwd = im.WorkingDir
	}
	return args, env, path.Clean("/" + cwd), nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func ShortID(id string) string { return id[:min(len(id), 12)] }

// MergeEnv replaces variables in place and appends new ones. "NAME" without a value removes the
// variable.
func MergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, e := range over {
		name, _, has := strings.Cut(e, "=")
		i := slices.IndexFunc(out, func(x string) bool { return strings.HasPrefix(x, name+"=") })
		switch {
		case !has && i >= 0:
			out = slices.Delete(out, i, i+1)
		case !has:
		case i >= 0:
			out[i] = e
		default:
			out = append(out, e)
		}
	}
	return out
}

// WithHome adds HOME from the account where the environment has none.
func WithHome(env []string, home string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return env
	}
	return append(slices.Clone(env), "HOME="+home)
}

// Make generates the configuration. Errors name the field and are errdefs.ErrInvalidArgument.
func Make(in *Input) (*specs.Spec, error) {
	s := in.Spec
	caps, err := Capabilities(s, in.Host)
	if err != nil {
		return nil, err
	}
	if err := CheckRlimits(s.Rlimits); err != nil {
		return nil, err
	}
	umask := Umask(s)
	cfg := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal:        s.TTY,
			Args:            in.Args,
			Env:             WithHome(in.Env, in.Identity.Home),
			Cwd:             in.Cwd,
			NoNewPrivileges: s.NoNewPrivileges,
			Rlimits:         MergeRlimits(s.Rlimits, in.Host.Rlimits),
			User: specs.User{
				UID: in.Identity.UID, GID: in.Identity.GID, AdditionalGids: in.Identity.Groups,
				Umask: &umask,
			},
			Capabilities: ProcessCaps(caps, in.Identity.UID),
		},
		Root:  &specs.Root{Path: "rootfs", Readonly: s.ReadonlyRootfs},
		Linux: &specs.Linux{CgroupsPath: in.CgroupPath},
	}
	if s.OOMScoreAdj != 0 {
		adj := s.OOMScoreAdj
		cfg.Process.OOMScoreAdj = &adj
	}
	if s.UTSMode != "host" && in.UTSPath == "" {
		cfg.Hostname, cfg.Domainname = s.Hostname, s.Domainname
		if cfg.Hostname == "" {
			cfg.Hostname = ShortID(in.ID)
		}
	}
	if err := namespaces(in, cfg); err != nil {
		return nil, err
	}
	if err := mounts(in, cfg); err != nil {
		return nil, err
	}
	if err := sysctls(in, cfg); err != nil {
		return nil, err
	}
	if err := Devices(in, cfg); err != nil {
		return nil, err
	}
	systemPaths(in, cfg)
	if err := Confine(in, cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

// namespaces fills in which namespaces are new, joined or shared with the host.
func namespaces(in *Input, cfg *specs.Spec) error {
	s := in.Spec
	add := func(t specs.LinuxNamespaceType, p string) {
		cfg.Linux.Namespaces = append(cfg.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: p})
	}
	add(specs.MountNamespace, "")
	if s.Network != "host" {
		add(specs.NetworkNamespace, in.NetPath)
	}
	for _, ns := range []struct {
		field, mode, path string
		t                 specs.LinuxNamespaceType
		private           []string
	}{
		{"UTSMode", s.UTSMode, in.UTSPath, specs.UTSNamespace, []string{"", "private"}},
		{"PIDMode", s.PIDMode, in.PIDPath, specs.PIDNamespace, []string{"", "private"}},
		{
			"IPCMode", s.IPCMode, in.IPCPath, specs.IPCNamespace,
			[]string{"", "private", "none", "shareable"},
		},
		{"CgroupMode", s.CgroupMode, "", specs.CgroupNamespace, []string{"", "private"}},
	} {
		switch {
		case slices.Contains(ns.private, ns.mode):
			add(ns.t, ns.path) // that of a sandbox of the container's own which is held
		case ns.mode == "host":
		case ns.path != "" && strings.HasPrefix(ns.mode, "container:"):
			add(ns.t, ns.path)
		default:
			return message.New(
				errdefs.ErrInvalidArgument, "%s %q: want one of %q, \"host\" or \"container:NAME\"",
				ns.field, ns.mode, ns.private,
			)
		}
	}
	if s.UsernsMode != "" && s.UsernsMode != "host" {
		return message.New(
			errdefs.ErrInvalidArgument,
			"UsernsMode %q: only \"host\" and the default are supported", s.UsernsMode,
		)
	}
	return nil
}

// mounts lists the kernel file systems, the engine's files and the user's mounts, parents before
// children.
func mounts(in *Input, cfg *specs.Spec) error {
	s := in.Spec
	sysMode := "ro"
	if s.Privileged {
		sysMode = "rw"
	}
	shm := s.ShmSizeBytes
	if shm <= 0 {
		shm = 64 << 20
	}
	defaults := []specs.Mount{
		{
			Destination: "/proc", Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{
				"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
			},
		},
		{
			Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", sysMode},
		},
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", sysMode},
		},
	}
	bind := func(dst, src string, opts ...string) specs.Mount {
		return specs.Mount{
			Destination: dst, Type: "bind", Source: src,
			Options: append([]string{"rbind", "rprivate"}, opts...),
		}
	}
	// Of the host's IPC namespace as well, where the host has not mounted it (mq_overview(7)).
	defaults = append(
		defaults,
		specs.Mount{
			Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
	)
	switch {
	case s.IPCMode == "none":
	case s.IPCMode == "host":
		defaults = append(defaults, bind("/dev/shm", "/dev/shm"))
	case in.ShmPath != "":
		defaults = append(defaults, bind("/dev/shm", in.ShmPath))
	default:
		defaults = append(defaults, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}})
	}
	var user []specs.Mount
	taken := map[string]string{}
	claim := func(what, dst string) error {
		if !path.IsAbs(dst) {
			return message.New(
				errdefs.ErrInvalidArgument,
				"%s: invalid mount path: '%s' mount path must be absolute", what, dst,
			)
		}
		clean := path.Clean(dst)
		if clean == "/" {
			return message.New(
				errdefs.ErrInvalidArgument, "%s: invalid specification: destination can't be '/'",
				what,
			)
		}
		if _, ok := taken[clean]; ok {
			return message.New(errdefs.ErrInvalidArgument, "Duplicate mount point: %s", clean)
		}
		taken[clean] = what
		return nil
	}
	for i := range in.Mounts {
		m := &in.Mounts[i]
		if err := claim(fmt.Sprintf("mounts[%d]", i), m.Target); err != nil {
			return err
		}
		om, err := userMount(m)
		if err != nil {
			return err
		}
		user = append(user, om)
	}
	for _, dst := range sortedKeys(s.Tmpfs) {
		if err := claim("tmpfs", dst); err != nil {
			return err
		}
		options, err := tmpfsOptions(s.Tmpfs[dst])
		if err != nil {
			return message.New(errdefs.ErrInvalidArgument, "tmpfs %s: %w", dst, err)
		}
		user = append(
			user,
			specs.Mount{
				Destination: path.Clean(dst), Type: "tmpfs", Source: "tmpfs", Options: options,
			},
		)
	}
	for _, f := range []struct{ dst, src string }{
		{"/etc/resolv.conf", in.ResolvPath}, {"/etc/hostname", in.HostnamePath},
		{"/etc/hosts", in.HostsPath},
	} {
		if _, ok := taken[f.dst]; ok || f.src == "" {
			continue
		}
		var opts []string
		if s.ReadonlyRootfs {
			opts = []string{"ro"}
		}
		user = append(user, bind(f.dst, f.src, opts...))
	}
	sort.SliceStable(user, func(i, j int) bool {
		return depth(user[i].Destination) < depth(user[j].Destination)
	})
	for _, m := range defaults {
		if _, ok := taken[m.Destination]; ok {
			continue
		}
		if _, ok := taken["/dev"]; ok && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		cfg.Mounts = append(cfg.Mounts, m)
	}
	cfg.Mounts = append(cfg.Mounts, user...)
	return nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// userMount translates one mount of the user.
func userMount(m *Mount) (specs.Mount, error) {
	om := specs.Mount{Destination: path.Clean(m.Target)}
	switch m.Type {
	case "bind", "volume":
		om.Type, om.Source = "bind", m.HostPath
		om.Options = []string{"rbind"}
		if m.NonRecursive {
			om.Options[0] = "bind"
		}
		prop := m.Propagation
		if prop == "" {
			prop = "rprivate"
		}
		if !slices.Contains(propagations, prop) {
			return om, message.New(
				errdefs.ErrInvalidArgument, "mount %s: propagation %q: want one of %q", m.Target,
				prop, propagations,
			)
		}
		om.Options = append(om.Options, prop)
		switch {
		case m.ReadOnly && (m.NonRecursive || m.ReadOnlyNonRecursive):
			om.Options = append(om.Options, "ro")
		case m.ReadOnly:
			// Mounts below are read-only too, as since dockerd 25 on kernels with mount_setattr(2).
			om.Options = append(om.Options, "ro", "rro")
		}
	case "tmpfs":
		om.Type, om.Source = "tmpfs", "tmpfs"
		om.Options = []string{"noexec", "nosuid", "nodev", "rprivate"}
		if _, ok := m.Options["exec"]; ok {
			om.Options = om.Options[1:]
		}
		if m.SizeBytes > 0 {
			om.Options = append(om.Options, fmt.Sprintf("size=%d", m.SizeBytes))
		}
		if m.Mode != 0 {
			om.Options = append(om.Options, fmt.Sprintf("mode=%o", m.Mode))
		}
		if m.ReadOnly {
			om.Options = append(om.Options, "ro")
		}
	default:
		return om, message.New(
			errdefs.ErrInvalidArgument, "mount %s: type %q: want \"bind\", \"volume\" or \"tmpfs\"",
			m.Target, m.Type,
		)
	}
	return om, nil
}

// tmpfsKnown are the options of docker run --tmpfs: those of the file system, which have values
// (tmpfs(5)), and those of every mount.
var tmpfsKnown = struct{ values, flags []string }{
	[]string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"},
	append([]string{
		"defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
		"dirsync", "remount", "mand", "nomand", "atime", "noatime",
		"diratime", "nodiratime", "bind", "rbind", "relatime", "norelatime", "strictatime",
		"nostrictatime", "unbindable", "runbindable",
	}, propagations...),
}

// tmpfsOptions merges docker run --tmpfs options over its defaults.
func tmpfsOptions(opts string) ([]string, error) {
	out := []string{"noexec", "nosuid", "nodev"}
	opposite := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
	for o := range strings.SplitSeq(opts, ",") {
		if o == "" {
			continue
		}
		key, _, valued := strings.Cut(o, "=")
		if known := tmpfsKnown; valued && !slices.Contains(known.values, key) || !valued &&
			!slices.Contains(known.flags, o) {
			return nil, fmt.Errorf(
				"option %q: want one of %q with a value, or of %q", o, known.values, known.flags,
			)
		}
		if no, ok := opposite[o]; ok {
			out = slices.DeleteFunc(out, func(x string) bool { return x == no })
		}
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Umask is the file mode creation mask of a container's processes.
func Umask(s *engine.Spec) uint32 {
	if s.Umask != nil {
		return *s.Umask
	}
	return 0o022
}
