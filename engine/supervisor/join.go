package supervisor

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine/state"
	"strake/internal/message"
	"strake/sandbox"
	"strake/task"
)

// join makes the container a member of the sandboxes whose namespaces it shares
// ("container:NAME").
func (l *launch) join(ctx context.Context) error {
	spec := &l.c.spec
	if name, ok := strings.CutPrefix(spec.PIDMode, "container:"); ok {
		if err := l.joinPID(name); err != nil {
			return err
		}
	}
	for _, j := range []struct {
		mode string
		kind specs.LinuxNamespaceType
		path *string
	}{
		{spec.IPCMode, specs.IPCNamespace, &l.in.IPCPath},
		{spec.UTSMode, specs.UTSNamespace, &l.in.UTSPath},
		{spec.Network, specs.NetworkNamespace, &l.in.NetPath},
	} {
		name, ok := strings.CutPrefix(j.mode, "container:")
		if !ok {
			continue
		}
		sb, err := l.member(ctx, name, j.kind)
		if err != nil {
			return err
		}
		rec := sb.Record()
		if j.kind == specs.IPCNamespace {
			if l.in.ShmPath = rec.Shm; l.in.ShmPath == "" {
				return message.New(
					errdefs.ErrFailedPrecondition,
					"cannot join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
					rec.ID,
				)
			}
		}
		n, err := sb.Join(j.kind)
		if err != nil {
			return err
		}
		l.open = append(l.open, n)
		*j.path = n.Path(j.kind)
		if j.kind == specs.NetworkNamespace {
			// The files are the sandbox's, so that all members see what changes in them.
			l.in.HostsPath, l.in.HostnamePath = rec.Files.Hosts, rec.Files.Hostname
			l.in.ResolvPath = rec.Files.ResolvConf
			if !recyclable(spec) {
				l.e.cfg.Network.Spoil(rec.ID)
			}
		}
	}
	return nil
}

// joinPID opens the PID namespace of a running container: it ends with that container's first
// process (pid_namespaces(7)), so no sandbox can hold it.
func (l *launch) joinPID(name string) error {
	other, r, err := l.e.livingPeer(name, specs.PIDNamespace)
	if err != nil {
		return err
	}
	f, err := r.task.Namespace(specs.PIDNamespace)
	if err != nil {
		return notJoinable(other, specs.PIDNamespace)
	}
	l.open = append(l.open, closer{f})
	l.in.PIDPath = sandbox.SelfPath(f)
	return nil
}

// member enters the sandbox of another container, which is held from then on: also one that does
// not run any more, as long as other members hold its sandbox.
func (l *launch) member(
	ctx context.Context, name string, kind specs.LinuxNamespaceType,
) (*sandbox.Sandbox, error) {
	e, c := l.e, l.c
	enter := func(sb *sandbox.Sandbox) error {
		for _, has := range l.run.joined {
			if has == sb {
				return nil
			}
		}
		if err := sb.Enter(c.id); err != nil {
			return err
		}
		l.run.joined = append(l.run.joined, sb)
		l.back.add(func(ctx context.Context) error { return sb.Leave(ctx, c.id) })
		return nil
	}
	id := name
	other, ferr := e.find(name)
	if ferr == nil {
		id = other.id
	}
	if sb, err := e.cfg.Sandboxes.Get(id); err == nil && enter(sb) == nil {
		return sb, nil
	}
	other, r, err := e.livingPeer(name, kind)
	if err != nil {
		return nil, err
	}
	if err := enter(r.sandbox); err != nil {
		return nil, notJoinable(other, kind)
	}
	if err := e.cfg.Sandboxes.Hold(ctx, r.sandbox, r.task); err != nil {
		if errdefs.IsFailedPrecondition(err) {
			return nil, notJoinable(other, kind)
		}
		return nil, err
	}
	return r.sandbox, nil
}

// livingPeer finds a running container whose namespace of a kind another one shares.
func (e *Engine) livingPeer(
	name string, kind specs.LinuxNamespaceType,
) (*container, *run, error) {
	other, err := e.find(name)
	if err != nil {
		return nil, nil, err
	}
	r := other.running()
	if r == nil {
		return nil, nil, notJoinable(other, kind)
	}
	return other, r, nil
}

// notJoinable is dockerd's sentence about a container whose namespace cannot be joined, and
// dockerd's class: a conflict for a network, an internal error for the others.
func notJoinable(c *container, kind specs.LinuxNamespaceType) error {
	if kind == specs.NetworkNamespace {
		return message.New(
			errdefs.ErrConflict,
			"cannot join network namespace of a non running container: container %s is %s", c.id,
			c.status(),
		)
	}
	return message.New(
		errdefs.ErrInternal, "failed to join %s namespace: container %s is not running",
		strings.ToUpper(string(kind)), c.id,
	)
}

// closer is a file that is closed without a word.
type closer struct{ f interface{ Close() error } }

func (c closer) Close() { c.f.Close() }

// retain keeps the sandboxes of others that a container is a member of until its next start, if it
// is about to be started again: it may be the last member. Callers hold op.
func (e *Engine) retain(c *container, r *run, exit task.Exit) {
	c.mu.Lock()
	next := c.state
	next.ExitCode = exit.Code
	again := c.holds > 0 || state.ShouldRestart(c.spec.Restart, next)
	c.mu.Unlock()
	if !again {
		return
	}
	for _, sb := range r.joined {
		if sb.Enter(retained(c.id)) == nil {
			c.mu.Lock()
			c.retained = append(c.retained, sb)
			c.mu.Unlock()
		}
	}
}

// letGo ends what retain has begun: the container has been started again, or will not be.
func (e *Engine) letGo(ctx context.Context, c *container) {
	c.mu.Lock()
	list := c.retained
	c.retained = nil
	c.mu.Unlock()
	for _, sb := range list {
		e.warn("leave a sandbox", sb.Leave(ctx, retained(c.id)), "container", c.id)
	}
}

// retained is the name of a member that is between two lives.
func retained(id string) string { return "next:" + id }
