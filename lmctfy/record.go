package lmctfy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/spec"
)

// Names of extended attributes of a group's directory, without their namespace (xattr(7)). The
// kernel has the namespace "user" on control groups since Linux 5.7, and "trusted" before.
const (
	// recordAttr is a version, and the container's specification in binary form.
	recordAttr = "strake.lmctfy.spec"
	// pendingAttr is what is being done, and the last part of the name that it is done to.
	pendingAttr = "strake.lmctfy.pending"
)

// recordVersion begins a record. A change of the record's format changes it.
const recordVersion = '1'

// maxAttr is the most that an attribute can hold (XATTR_SIZE_MAX).
const maxAttr = 65536

// Namespaces of attributes. Records are in the first that works. Marks are in "trusted" if the
// caller may write it: a mark makes commands remove groups, and the owner of a container can write
// "user" attributes on its group.
const (
	userSpace    = "user."
	trustedSpace = "trusted."
)

// setAttr writes an attribute in the first namespace that can hold it. Errors:
// errdefs.ErrFailedPrecondition where groups have none.
func setAttr(dir, attr string, value []byte, namespaces ...string) (err error) {
	for _, space := range namespaces {
		if err = unix.Setxattr(dir, space+attr, value, 0); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf(
			"%s: this kernel has no extended attributes on control groups (Linux 5.7 has): %w: %w",
			dir, err, errdefs.ErrFailedPrecondition,
		)
	}
	return fmt.Errorf("%s: set attribute %s: %w", dir, attr, err)
}

// attr reads an attribute from the first namespace that has it, or nothing if none has, or if the
// directory is gone.
func attr(dir, attr string, namespaces ...string) ([]byte, error) {
	for _, space := range namespaces {
		buf := make([]byte, 512)
		n, err := unix.Getxattr(dir, space+attr, buf)
		if errors.Is(err, unix.ERANGE) {
			buf = make([]byte, maxAttr)
			n, err = unix.Getxattr(dir, space+attr, buf)
		}
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP),
			errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
			continue
		}
		return nil, fmt.Errorf("%s: read attribute %s: %w", dir, attr, err)
	}
	return nil, nil
}

// setMark writes the mark on the group above a container that is being made or removed.
func setMark(dir string, value []byte) error {
	return setAttr(dir, pendingAttr, value, trustedSpace, userSpace)
}

// mark reads a mark. One that another user can have written does not count.
func mark(dir string) ([]byte, error) {
	raw, err := attr(dir, pendingAttr, trustedSpace)
	if err != nil || raw != nil {
		return raw, err
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || int(st.Uid) != unix.Geteuid() {
		return nil, nil
	}
	return attr(dir, pendingAttr, userSpace)
}

// dropMark removes a mark. One that is not set, and a directory that is gone, are no error.
func dropMark(dir string) error {
	for _, space := range []string{trustedSpace, userSpace} {
		err := unix.Removexattr(dir, space+pendingAttr)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODATA) &&
			!errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: remove attribute %s: %w", dir, pendingAttr, err)
		}
	}
	return nil
}

// writeRecord keeps a specification with the group.
func writeRecord(dir string, s *spec.ContainerSpec) error {
	raw, err := spec.Binary(s)
	if err != nil {
		return err
	}
	if len(raw) >= maxAttr {
		return fmt.Errorf(
			"the specification has %d bytes: want less than %d: %w", len(raw), maxAttr,
			errdefs.ErrInvalidArgument,
		)
	}
	return setAttr(
		dir, recordAttr, append([]byte{recordVersion}, raw...), userSpace, trustedSpace,
	)
}

// readRecord is the specification that is kept with a group, or nil if there is none. Errors:
// errdefs.ErrDataLoss if it cannot be understood.
func readRecord(dir string) (*spec.ContainerSpec, error) {
	raw, err := attr(dir, recordAttr, userSpace, trustedSpace)
	if err != nil || raw == nil {
		return nil, err
	}
	if len(raw) == 0 || raw[0] != recordVersion {
		return nil, fmt.Errorf(
			"%s: attribute %s is of another version: %w", dir, recordAttr, errdefs.ErrDataLoss,
		)
	}
	s, err := spec.ParseBinary(raw[1:])
	if err != nil {
		return nil, fmt.Errorf(
			"%s: attribute %s: %s: %w", dir, recordAttr, strings.TrimSpace(err.Error()),
			errdefs.ErrDataLoss,
		)
	}
	return s, nil
}
