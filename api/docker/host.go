package docker

import (
	"os/user"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// host has the facts about the host that the translation of a request depends on.
type host struct {
	// cpus is the number of processors, cgroups the version of control groups, "1" or "2".
	cpus    int
	cgroups string
	// root is the engine's data root; empty means unknown.
	root string
	// blockDevice finds the numbers of a block device by its path.
	blockDevice func(path string) (major, minor int64, err error)
	memoryBytes uint64
	// userName and groupName are the host's names of numbers, "" for those without one.
	userName, groupName func(id int) string
}

func thisHost() host {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		info = unix.Sysinfo_t{} // ps(1) then shows a share of memory of 0.0
	}
	return host{
		cpus: runtime.NumCPU(), cgroups: cgroupVersion(), blockDevice: deviceNumber,
		memoryBytes: info.Totalram * uint64(info.Unit),
		userName: func(id int) string {
			if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
				return u.Username
			}
			return ""
		},
		groupName: func(id int) string {
			if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
				return g.Name
			}
			return ""
		},
	}
}

// cgroupVersion is "2" where only control groups of version 2 are mounted, else "1" (cgroups(7)).
func cgroupVersion() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// deviceNumber is host.blockDevice for this host (stat(2)).
func deviceNumber(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, invalid("device %q: %v", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, invalid("device %q is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
