package capability

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// everything is the word that stands for all capabilities in Docker's lists.
const everything = "ALL"

// Default is what Docker gives a container that asks for nothing ("docker container run", "Runtime
// privilege and Linux capabilities").
func Default() Set {
	return 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
		1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
		1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP |
		1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL |
		1<<unix.CAP_AUDIT_WRITE
}

// Tweak changes base as docker run's --cap-add and --cap-drop do, on a kernel whose highest
// capability is lastCap. Names are with or without CAP_ and in any case; ALL means all that the
// kernel has.
//
//   - Adding ALL gives all but those that are dropped by name.
//   - Otherwise dropping ALL gives exactly what is added.
//   - Otherwise what is dropped leaves base first, so that a capability that is both added and
//     dropped is there.
//
// A name that does not exist or that the kernel lacks is ErrInvalidArgument; the error names the
// list as Docker's API calls it (CapAdd, CapDrop).
func Tweak(base Set, add, drop []string, lastCap int) (Set, error) {
	added, addAll, err := docker("CapAdd", add, lastCap)
	if err != nil {
		return 0, err
	}
	dropped, dropAll, err := docker("CapDrop", drop, lastCap)
	if err != nil {
		return 0, err
	}
	switch {
	case addAll:
		return All(lastCap) &^ dropped, nil
	case dropAll:
		return added, nil
	default:
		return base&^dropped | added, nil
	}
}

// docker reads one of Docker's lists.
func docker(field string, list []string, lastCap int) (s Set, all bool, err error) {
	for _, given := range list {
		name := strings.ToUpper(given)
		if name == everything {
			all = true
			continue
		}
		if !strings.HasPrefix(name, prefix) {
			name = prefix + name
		}
		n, ok := Lookup(name)
		if !ok {
			return 0, false, fmt.Errorf(
				"%s: unknown capability: %q, want %s or a name of capabilities(7), with or "+
					"without %s: %w",
				field, given, everything, prefix, errdefs.ErrInvalidArgument,
			)
		}
		if n > lastCap {
			return 0, false, fmt.Errorf(
				"%s: capability not supported by your kernel: %q, the highest it has is "+
					"number %d: %w",
				field, given, lastCap, errdefs.ErrInvalidArgument,
			)
		}
		s |= 1 << n
	}
	return s, all, nil
}
