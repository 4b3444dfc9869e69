package supervisor

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/capability"
	"strake/engine"
	"strake/engine/ocispec"
)

// hostState is what the engine knows about the machine. What can change is asked anew, the rest
// once.
type hostState struct {
	fixed ocispec.Host

	mu       sync.Mutex
	profiles map[string]*specs.LinuxSeccomp // guarded by mu; default profiles by bounding set
}

// readHost looks at the machine.
func readHost(limits []specs.POSIXRlimit) (ocispec.Host, error) {
	f := ocispec.Host{CPUs: runtime.NumCPU(), LastCap: unix.CAP_LAST_CAP}
	files, err := ocispec.OpenFilesLimit()
	if err != nil {
		return f, err
	}
	f.Rlimits = ocispec.DefaultRlimits(limits, files)
	// Processors that are offline now may come; their directories exist all the same where the
	// kernel knows the processor.
	if f.ThermalThrottle, err = filepath.Glob(
		"/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle",
	); err != nil {
		return f, err
	}
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			f.LastCap = n
		}
	}
	var data [2]unix.CapUserData
	if err := unix.Capget(
		&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0],
	); err == nil {
		f.Caps = capability.Set(uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted))
	}
	_, err = os.Stat("/sys/kernel/security/apparmor/profiles")
	f.AppArmor = err == nil
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err == nil {
		f.MemoryBytes = int64(uint64(si.Totalram) * uint64(si.Unit))
	}
	return f, nil
}

// facts returns what a container's configuration needs, with the device nodes that it names or, for
// a privileged one, all.
func (h *hostState) facts(s *engine.Spec) *ocispec.Host {
	f := h.fixed
	if s.Privileged {
		f.Devices = hostDevices("/dev")
	}
	for _, d := range s.Devices {
		// What a link under /dev means now is what the container gets, under the name it was asked
		// for.
		path, err := filepath.EvalSymlinks(d.HostPath)
		if err != nil {
			continue
		}
		for _, node := range hostDevices(path) {
			node.Path = d.HostPath + strings.TrimPrefix(node.Path, path)
			f.Devices = append(f.Devices, node)
		}
	}
	return &f
}

// hostDevices lists the device nodes at and below a path of the host, as runc does: without what
// belongs to terminals and file systems.
func hostDevices(root string) []specs.LinuxDevice {
	var out []specs.LinuxDevice
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint: a directory that vanishes has no devices
		}
		if d.IsDir() {
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts",
				"/dev/.udev":
				return fs.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		// The container's own console and multiplexer of terminals have these names.
		if path == "/dev/console" || path == "/dev/ptmx" || unix.Lstat(path, &st) != nil {
			return nil
		}
		typ := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			typ = "c"
		case unix.S_IFBLK:
			typ = "b"
		default:
			return nil
		}
		mode := os.FileMode(st.Mode & 0o777)
		uid, gid := st.Uid, st.Gid
		out = append(out, specs.LinuxDevice{
			Path: path, Type: typ, Major: int64(unix.Major(st.Rdev)),
			Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode, UID: &uid, GID: &gid,
		})
		return nil
	})
	return out
}

// Make is the pure function with the default profile remembered: making it costs more than all
// the rest.
func (h *hostState) ociSpec(in *ocispec.Input) (*specs.Spec, error) {
	in.Profile = h.profile
	return ocispec.Make(in)
}

// confine is confinement with the default profile remembered.
func (h *hostState) confine(in *ocispec.Input, cfg *specs.Spec) error {
	in.Profile = h.profile
	return ocispec.Confine(in, cfg)
}

// profile returns the default profile, which callers must not change.
func (h *hostState) profile(cfg *specs.Spec) (*specs.LinuxSeccomp, error) {
	key := strings.Join(cfg.Process.Capabilities.Bounding, ",")
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.profiles[key]; ok {
		return p, nil
	}
	p, err := seccomp.GetDefaultProfile(cfg)
	if err != nil {
		return nil, err
	}
	if h.profiles == nil || len(h.profiles) >= 64 {
		h.profiles = map[string]*specs.LinuxSeccomp{}
	}
	h.profiles[key] = p
	return p, nil
}
