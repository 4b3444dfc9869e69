package ocispec

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/message"
)

// What containers inherit would depend on who started the engine, and on a runtime that raises the
// soft limit of open files for itself (package os does, and children that it does not start keep
// that). So every container is told its limit: the usual one of 1024, which select(2) needs, and up
// to 524288 for programs that ask for more. That is what systemd gives services, and with them
// dockerd since containerd's unit sets no limit of its own.
const (
	openFilesSoft = 1024
	openFilesHard = 524288
)

// DefaultRlimits are the limits of containers that say nothing: those configured, and one of open
// files. openFiles is the engine's own hard limit of these, beyond which it gives nothing unasked.
func DefaultRlimits(configured []specs.POSIXRlimit, openFiles uint64) []specs.POSIXRlimit {
	return MergeRlimits(configured, []specs.POSIXRlimit{{
		Type: "RLIMIT_NOFILE", Soft: min(openFilesSoft, openFiles),
		Hard: min(openFilesHard, openFiles),
	}})
}

// MergeRlimits are the limits wanted, and those defaults that say something about others.
func MergeRlimits(wanted, defaults []specs.POSIXRlimit) []specs.POSIXRlimit {
	out := slices.Clone(wanted)
	for _, d := range defaults {
		if !slices.ContainsFunc(
			wanted, func(w specs.POSIXRlimit) bool { return w.Type == d.Type },
		) {
			out = append(out, d)
		}
	}
	return out
}

// CheckRlimits refuses limits that the kernel would refuse for everybody (setrlimit(2)).
func CheckRlimits(list []specs.POSIXRlimit) error {
	seen := map[string]bool{}
	for _, l := range list {
		switch {
		case l.Soft > l.Hard:
			return message.New(
				errdefs.ErrInvalidArgument,
				"ulimit soft limit must be less than or equal to hard limit: %d > %d", l.Soft,
				l.Hard,
			)
		case seen[l.Type]:
			return message.New(errdefs.ErrInvalidArgument, "ulimit %s is given twice", l.Type)
		}
		seen[l.Type] = true
	}
	return nil
}

// OpenFilesLimit is this process's hard limit of open files, which nothing in it changes.
func OpenFilesLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return l.Max, nil
}
