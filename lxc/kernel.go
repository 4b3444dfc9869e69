package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

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

	mu sync.Mutex
	// known are the tasks that this process has started or adopted, by their IDs: a task is adopted
	// once. Guarded by mu.
	known map[string]task.Task
}

// open connects to the keeper, and starts one where none runs.
func (p *Path) open(ctx context.Context) (*kernel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kernel != nil {
		return p.kernel, nil
	}
	k := &kernel{known: map[string]task.Task{}}
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

// task is the container's task, which this process or an earlier one has started; nil if there is
// none.
func (k *kernel) task(ctx context.Context, rec task.Record) (task.Task, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.known[rec.ID]; t != nil {
		return t, nil
	}
	t, err := k.tasks.Adopt(ctx, rec, nil)
	if errors.Is(err, errdefs.ErrNotFound) || errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err == nil {
		k.known[rec.ID] = t
	}
	return t, err
}

// start starts a task.
func (k *kernel) start(ctx context.Context, spec *task.Spec) (task.Task, error) {
	t, err := k.tasks.Start(ctx, spec)
	if err == nil {
		k.mu.Lock()
		k.known[spec.ID] = t
		k.mu.Unlock()
	}
	return t, err
}

// abort ends a task, if there is one, and has the keeper forget it.
func (k *kernel) abort(ctx context.Context, id string) error {
	err := k.tasks.Abort(ctx, id)
	if err == nil {
		k.mu.Lock()
		delete(k.known, id)
		k.mu.Unlock()
	}
	return err
}
