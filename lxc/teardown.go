package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"strake/task/group"
)

// Teardown kills all containers of the Path and takes back what it has in the kernel: the keeper,
// control groups, the directory for what a reboot ends. Containers stay defined.
func (p *Path) Teardown(ctx context.Context) error {
	if _, err := os.Stat(p.run); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	names, err := p.Active()
	errs := []error{err}
	for _, name := range names {
		c, err := p.Container(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = c.Stop(ctx, StopOptions{Kill: true})
		if errdefs.IsFailedPrecondition(err) {
			err = c.End(ctx)
		}
		errs = append(errs, err)
	}
	k, err := p.open(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, k.tasks.Shutdown(ctx), p.Close(), group.Remove(ctx, k.cgroups, p.instance))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tear down %s: %w", p.dir, err)
	}
	return errors.Join(unmountBelow(p.run), os.RemoveAll(p.run))
}
