package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/image"
	"strake/internal/inroot"
	"strake/task"
)

// startTask starts the container's task. Where the image has a link that leads to nothing as the
// target of a mount, as some have for /etc/resolv.conf, the start fails for the first time. What
// the link leads to is made then, inside of the root as dockerd makes it, and the start is
// repeated: other images pay nothing.
func (l *launch) startTask(ctx context.Context, s *task.Spec) (task.Task, error) {
	t, err := l.e.cfg.Tasks.Start(ctx, s)
	tried := map[string]bool{}
	for err != nil && l.fs != nil && l.fs.Upper != "" {
		m := missingTarget(err, s.Config.Mounts)
		if m == nil || tried[m.Destination] {
			break
		}
		tried[m.Destination] = true
		if merr := makeTarget(l.fs, m); merr != nil {
			return nil, errors.Join(err, merr)
		}
		t, err = l.e.cfg.Tasks.Start(ctx, s)
	}
	return t, err
}

// missingTarget returns the mount that failed because its target is not there and cannot be made
// without following a link; nil for other failures.
func missingTarget(err error, mounts []specs.Mount) *specs.Mount {
	var se *plan.StepError
	if !errors.As(err, &se) || se.Errno != unix.ENOENT {
		return nil
	}
	for i := range mounts {
		if strings.HasPrefix(se.Field, fmt.Sprintf("mounts[%d] ", i)) {
			return &mounts[i]
		}
	}
	return nil
}

// makeTarget makes the target of a mount in a container's root file system: a file for the bind
// mount of one, else a directory.
func makeTarget(fs *image.Rootfs, m *specs.Mount) error {
	directory := true
	if m.Type == "bind" {
		st, err := os.Stat(m.Source)
		if err != nil {
			return fmt.Errorf("source of the mount at %s: %w", m.Destination, err)
		}
		directory = st.IsDir()
	}
	// What the failed start has mounted volatile was not left clean, and holds nothing yet.
	if err := os.RemoveAll(filepath.Join(fs.Work, plan.VolatileMark)); err != nil {
		return fmt.Errorf("mount the root file system again: %w", err)
	}
	root, err := image.MountOverlay(fs.Lower, fs.Upper, fs.Work, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("make the target of the mount at %s: %w", m.Destination, err)
	}
	defer root.Close()
	if err := inroot.Make(int(root.Fd()), m.Destination, directory, nil); err != nil {
		return fmt.Errorf("make the target of the mount at %s: %w", m.Destination, err)
	}
	return nil
}
