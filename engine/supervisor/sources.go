package supervisor

import (
	"errors"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/engine/ocispec"
	"strake/engine/record"
	"strake/internal/message"
	"strake/sandbox"
	"strake/volume"
)

// sources resolves where mounts come from and makes what is missing and may be made.
func (l *launch) sources() error {
	c := l.c
	if err := l.e.fault("start: mounts"); err != nil {
		return err
	}
	for i := range c.res.Mounts {
		m := &c.res.Mounts[i]
		if m.Type == "bind" {
			if err := bindSource(m); err != nil {
				return err
			}
		}
		from := m.Source
		if m.Subpath != "" {
			// Opened here, so that nothing that happens in the volume can lead the mount elsewhere.
			f, err := volume.Below(m.Source, m.Subpath, unix.O_PATH)
			if err != nil {
				return err
			}
			l.open = append(l.open, closer{f})
			from = sandbox.SelfPath(f)
		}
		l.in.Mounts = append(l.in.Mounts, ocispec.Mount{Mount: m.Mount, HostPath: from})
	}
	return nil
}

// bindSource makes sure that the source of a bind mount exists.
func bindSource(m *record.MountPoint) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && m.CreateSource:
		// Made for the user, who asked for it with -v; it stays as it does with dockerd.
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return message.New(
				errdefs.ErrInvalidArgument, "error while creating mount source path '%s': %w",
				m.Source, err,
			)
		}
	case errors.Is(err, os.ErrNotExist):
		return message.New(
			errdefs.ErrInvalidArgument,
			"invalid mount config for type \"bind\": bind source path does not exist: %s",
			m.Source,
		)
	default:
		return message.New(
			errdefs.ErrInvalidArgument, "invalid mount config for type \"bind\": stat %s: %w",
			m.Source, err,
		)
	}
	return nil
}
