package server

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// kept is a descriptor that a client has given to be held until the process is forgotten
// (wire.Start.Keep). Nothing is read from it or written to it.
type kept struct {
	name string
	fd   int
	at   place // where the guard has a duplicate
}

// validKept checks the names of descriptors that are to be kept.
func validKept(names []string) error {
	if len(names) > wire.MaxKept {
		return invalid("keep: %d descriptors, at most %d are allowed", len(names), wire.MaxKept)
	}
	for i, name := range names {
		if !validKeptName(name) {
			return invalid(
				"keep[%d] %.40q: want 1 to %d lower-case letters, digits, '.' or '-'", i, name,
				wire.MaxKeptName,
			)
		}
		for _, other := range names[:i] {
			if other == name {
				return invalid("keep[%d] %q: given twice", i, name)
			}
		}
	}
	return nil
}

func validKeptName(name string) bool {
	ok := len(name) > 0 && len(name) <= wire.MaxKeptName
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	}
	return ok
}

// takeKept takes the descriptors over that belong to the names. Precondition: there are as many.
//
// A pidfd is refused: what a new keeper finds in the guard without a line in the journal is a
// process whose start was never acknowledged, and is killed.
func takeKept(names []string, fds *descriptors) ([]kept, error) {
	var list []kept
	for i, name := range names {
		list = append(list, kept{name: name, fd: fds.take()})
		if err := unix.PidfdSendSignal(list[i].fd, 0, nil, 0); !errors.Is(err, unix.EBADF) {
			closeKept(list)
			return nil, invalid("keep[%d] %q: the descriptor of a process is not kept", i, name)
		}
	}
	return list, nil
}

func closeKept(list []kept) {
	for _, k := range list {
		unix.Close(k.fd)
	}
}

// ptmx is the device of the masters of terminals, Documentation/admin-guide/devices.txt.
var ptmx = unix.Mkdev(5, 2)

// keptFile identifies what a kept descriptor refers to.
func keptFile(fd int) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, fmt.Errorf("fstat: %w", err)
	}
	return fileOf(fd, st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == ptmx)
}

// keptNames lists the names of what a process keeps, nil for nothing.
func keptNames(list []kept) []string {
	var names []string
	for _, k := range list {
		names = append(names, k.name)
	}
	return names
}
