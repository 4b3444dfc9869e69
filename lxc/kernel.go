package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"strake/container/cgroup"
	"strake/keeper/launcher"
	"strake/task"
	"strake/task/group"
	"strake/task/host"
)

// kernel is what operations on running containers need: the keeper and control groups.
type kernel struct {
	cgroups *cgroup.Host
	groups  *group.Groups
	tasks   *host.Host
}

// open connects to the keeper, and starts one where none runs.
func (p *Path) open(ctx context.Context) (*kernel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kernel != nil {
		return p.kernel, nil
	}
	k := &kernel{}
	var err error
	if k.cgroups, err = cgroup.Detect(""); err != nil {
		return nil, err
	}
	k.groups = group.New(k.cgroups, p.instance, Owner)
	k.groups.Delegated = true
	l, err := launcher.New(
		filepath.Join(p.run, "keeper"),
		func(format string, args ...any) { p.log.Info(fmt.Sprintf(format, args...)) },
	)
	if err != nil {
		return nil, err
	}
	target := filepath.Join(p.run, "rootfs")
	// Containers with user namespaces mount there, too, in mount namespaces of their own.
	if err := os.MkdirAll(target, 0o711); err != nil {
		return nil, err
	}
	k.tasks, err = host.Open(ctx, host.Config{
		Connect: func(ctx context.Context) (host.Keeper, error) {
			c, err := l.Connect(ctx)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		OverlayTarget: target, Groups: k.groups, Log: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("the keeper of %s: %w", p.dir, err)
	}
	p.kernel = k
	return k, nil
}

// task is the container's task, which an earlier process has started; nil if there is none.
func (k *kernel) task(ctx context.Context, rec task.Record) (task.Task, error) {
	t, err := k.tasks.Adopt(ctx, rec, nil)
	if errors.Is(err, errdefs.ErrNotFound) || errdefs.IsNotFound(err) {
		return nil, nil
	}
	return t, err
}
