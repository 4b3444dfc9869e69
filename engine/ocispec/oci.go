package ocispec

import (
	"fmt"
	"path"
	"slices"
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

// ResolveProcess merges the specification with the image's: arguments, environment and working
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
		name, mode, path string
		t                specs.LinuxNamespaceType
		private          []string
	}{
		{"UTS", s.UTSMode, in.UTSPath, specs.UTSNamespace, []string{"", "private"}},
		{"PID", s.PIDMode, in.PIDPath, specs.PIDNamespace, []string{"", "private"}},
		{
			"IPC", s.IPCMode, in.IPCPath, specs.IPCNamespace,
			[]string{"", "private", "none", "shareable"},
		},
		{"cgroup namespace", s.CgroupMode, "", specs.CgroupNamespace, []string{"", "private"}},
	} {
		switch {
		case slices.Contains(ns.private, ns.mode):
			add(ns.t, ns.path) // that of a sandbox of the container's own which is held
		case ns.mode == "host":
		case ns.path != "" && strings.HasPrefix(ns.mode, "container:"):
			add(ns.t, ns.path)
		default:
			return message.New(
				errdefs.ErrInvalidArgument, "invalid %s mode: %s", ns.name, ns.mode,
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
