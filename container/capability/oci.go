package capability

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Sets are the capability sets of a process (capabilities(7), "Thread capability sets"). The zero
// value has none.
type Sets struct {
	Bounding, Effective, Inheritable, Permitted, Ambient Set
}

// Parse reads process.capabilities of an OCI configuration for a kernel whose highest capability is
// lastCap. nil is the same as five empty lists.
//
// Names that do not exist, and capabilities that the kernel does not have, are left out and
// returned, sorted and without duplicates, for the caller to warn of: config.md of the
// runtime-spec, "Linux Process", wants a warning and no failure, and runc does so for both kinds.
// They never make a set larger. ParseNames refuses unknown names.
//
// The error is ErrInvalidArgument for a lastCap that no kernel reports.
func Parse(c *specs.LinuxCapabilities, lastCap int) (sets Sets, ignored []string, err error) {
	if lastCap < 0 || lastCap > 63 {
		return Sets{}, nil, fmt.Errorf(
			"highest capability of the kernel: %d, want 0 to 63: %w", lastCap,
			errdefs.ErrInvalidArgument,
		)
	}
	if c == nil {
		return Sets{}, nil, nil
	}
	read := func(list []string) (s Set) {
		for _, name := range list {
			if n, ok := Lookup(name); ok && n <= lastCap {
				s |= 1 << n
			} else {
				ignored = append(ignored, name)
			}
		}
		return s
	}
	sets = Sets{
		Bounding: read(c.Bounding), Effective: read(c.Effective), Inheritable: read(c.Inheritable),
		Permitted: read(c.Permitted), Ambient: read(c.Ambient),
	}
	slices.Sort(ignored)
	return sets, slices.Compact(ignored), nil
}

// Capset encodes the effective, permitted and inheritable sets as the two arguments of capset(2)
// for the calling thread: struct __user_cap_header_struct of _LINUX_CAPABILITY_VERSION_3, and two
// struct __user_cap_data_struct. Bounding and ambient sets are set by prctl(2).
func Capset(s Sets) (header [8]byte, data [24]byte) {
	binary.NativeEndian.PutUint32(header[:], unix.LINUX_CAPABILITY_VERSION_3)
	for word := range 2 {
		at := data[12*word:]
		binary.NativeEndian.PutUint32(at[0:], uint32(s.Effective>>(32*word)))
		binary.NativeEndian.PutUint32(at[4:], uint32(s.Permitted>>(32*word)))
		binary.NativeEndian.PutUint32(at[8:], uint32(s.Inheritable>>(32*word)))
	}
	return header, data
}
