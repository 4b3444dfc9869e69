// Package capability names Linux capabilities and turns lists of names into bit masks.
//
// It promises: the table of capabilities(7) from CAP_CHOWN to CAP_CHECKPOINT_RESTORE; the five sets
// of an OCI configuration as masks, with what the running kernel lacks left out and reported; the
// bytes of capset(2); and the rules of docker run's --cap-add and --cap-drop. It does no I/O: what
// the kernel has (/proc/sys/kernel/cap_last_cap) is an argument.
//
// Not for: reading or changing the capabilities of a process; capabilities of files.
//
// Everything is a pure function and may be called concurrently. Tested against the constants of
// golang.org/x/sys/unix, against capset(2) and /proc/self/status of the running kernel, and with
// tables of names.
package capability

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/containerd/errdefs"
)

// names has the name of capability n at index n, without CAP_ (linux/capability.h).
var names = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
	"SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG",
	"MKNOD", "LEASE", "AUDIT_WRITE",
	"AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
	"BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// Last is the highest capability that this package has a name for, CAP_CHECKPOINT_RESTORE (Linux
// 5.9).
const Last = len(names) - 1

const prefix = "CAP_"

// Set is a set of capabilities: bit n is capability number n. The zero value is the empty set.
type Set uint64

// Has says whether capability number n is in the set.
func (s Set) Has(n int) bool { return n >= 0 && n < 64 && s&(1<<n) != 0 }

// Names are the names of the set's members in the order of their numbers, as OCI configurations
// have them (CAP_KILL). A member that has no name in this package is left out.
func (s Set) Names() []string {
	list := make([]string, 0, bits.OnesCount64(uint64(s)))
	for n, name := range names {
		if s.Has(n) {
			list = append(list, prefix+name)
		}
	}
	return list
}

// String is the set as capabilities are printed in /proc/PID/status.
func (s Set) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Names are all names that this package knows, CAP_CHOWN first, in the order of their numbers. The
// caller owns the slice.
func Names() []string { return All(Last).Names() }

// All is the set of all capabilities that both this package and a kernel know whose highest
// capability is lastCap.
func All(lastCap int) Set {
	n := min(lastCap, Last)
	if n < 0 {
		return 0
	}
	return 1<<(n+1) - 1
}

// Lookup is the number of a capability, whose name is spelled as in OCI configurations:
// CAP_SYS_ADMIN, in upper case.
func Lookup(name string) (int, bool) {
	short, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	for n, have := range names {
		if have == short {
			return n, true
		}
	}
	return 0, false
}

// ParseNames is the set of capabilities with the given names, spelled as for Lookup. field is what
// an error names as the place of the list; a name that does not exist is ErrInvalidArgument. Where
// the OCI runtime specification asks for leniency, use Parse.
func ParseNames(field string, list []string) (Set, error) {
	var s Set
	for i, name := range list {
		n, ok := Lookup(name)
		if !ok {
			return 0, fmt.Errorf(
				"%s[%d]: unknown capability: %q, want %s%s to %s%s as in capabilities(7): %w",
				field, i, name, prefix, names[0], prefix, names[Last], errdefs.ErrInvalidArgument,
			)
		}
		s |= 1 << n
	}
	return s, nil
}
