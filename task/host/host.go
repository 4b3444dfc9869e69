// Package host is the task.Isolation of processes of this host: container/plan compiles their
// configuration, the keeper is their parent. It is what Linux containers are.
//
// One Host has one connection to one keeper and serves all owners. Several Hosts may share a
// keeper: a Host lists and adopts what it finds when it is opened, and leaves alone what others
// start later. When the keeper dies the Host starts the next one and hands it the processes that it
// does not know; requests that the dead keeper has not answered are repeated where that is safe. An
// idle task has no goroutine.
//
// Not for: control groups (package group makes them), root file systems, networks.
//
// Locks: Host.mu (the maps) is never held while a request is under way. Process fields that change
// are guarded by the process's own mu, which comes after Host.mu.
//
// Tested by task/tasktest, with a keeper that is killed and upgraded.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/task"
)

// Keeper is what a Host needs of a *keeper.Client.
type Keeper interface {
	Start(ctx context.Context, req *keeper.StartRequest) (*keeper.Process, error)
	Continue(ctx context.Context, id string) (*keeper.Process, error)
	List(ctx context.Context) ([]*keeper.Process, error)
	Attach(ctx context.Context, id string, at keeper.Attachment) (keeper.Attached, error)
	Detach(ctx context.Context, id string, subscription uint64) error
	Next(ctx context.Context) (keeper.Event, error)
	Forget(ctx context.Context, id string) error
	Abort(ctx context.Context, id string) error
	CloseStdin(ctx context.Context, id string) error
	Resize(ctx context.Context, id string, width, height uint16) error
	ReopenLog(ctx context.Context, id string) error
	Adopt(
		ctx context.Context, p *keeper.Process, attach ...keeper.Attachment,
	) (*keeper.Process, error)
	Shutdown(ctx context.Context, force keeper.Force) error
	Close() error
	Pid() int
}

// Config describes a Host. Connect is required.
type Config struct {
	// Connect connects to the keeper, with events, and starts one if none runs.
	Connect func(ctx context.Context) (Keeper, error)
	// OverlayTarget is an existing directory on which a task with an overlay attaches it in its
	// own private view of the host.
	OverlayTarget string
	// Kernel is what programs have to know about the kernel; nil: it is asked by Open.
	Kernel *Kernel
	// Groups names the groups of adopted tasks; nil: they have none.
	Groups interface {
		At(path string) (task.Group, error)
	}
	// Log receives what cannot be returned as an error; nil discards it.
	Log *slog.Logger
	// Fault, if not nil, is called before each step with its name: tests end the process there. An
	// error makes the step fail.
	Fault func(step string) error
}

// Host implements task.Isolation. Its methods may be called concurrently.
type Host struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	filters filterCache

	mu     sync.Mutex
	keeper Keeper              // guarded by mu; replaced when a keeper dies
	fresh  chan struct{}       // guarded by mu; closed when keeper is replaced
	procs  map[string]*process // guarded by mu; by ID, those that are being started included
	found  map[string]*keeper.Process
	// doubtful are IDs whose start failed while a keeper died or the caller gave up, so that a
	// process may have come of it. Guarded by mu.
	doubtful map[string]bool
	closed   bool // guarded by mu
}

var _ task.Isolation = (*Host)(nil)

// Open connects to the keeper and takes stock of its processes.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Kernel == nil {
		cfg.Kernel = readKernel()
	}
	k, err := cfg.Connect(ctx)
	if err != nil {
		return nil, err
	}
	list, err := k.List(ctx)
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	h := &Host{
		cfg: cfg, keeper: k, fresh: make(chan struct{}), procs: map[string]*process{},
		found: map[string]*keeper.Process{}, doubtful: map[string]bool{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for _, p := range list {
		h.found[p.ID] = p
	}
	h.work.Go(h.follow)
	return h, nil
}

// Close ends the connection. Tasks go on; the next Host adopts them.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	k := h.keeper
	h.mu.Unlock()
	h.cancel()
	err := k.Close()
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		p.release()
	}
	for _, p := range h.found {
		p.Close()
	}
	return err
}

// Shutdown ends the keeper with all processes. The Host starts no next one, but to end the
// processes of one that dies at this moment; Close follows.
func (h *Host) Shutdown(ctx context.Context) error {
	h.cancel()
	err := h.connection().Shutdown(ctx, keeper.KillAll)
	if !lost(err) {
		return err
	}
	k, cerr := h.cfg.Connect(ctx)
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	return errors.Join(k.Shutdown(ctx, keeper.KillAll), k.Close())
}

// KeeperPid is the process ID of the keeper.
func (h *Host) KeeperPid() int { return h.connection().Pid() }

func (h *Host) connection() Keeper {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keeper
}

// Found implements task.Isolation.
func (h *Host) Found(owner string) []task.Found {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []task.Found
	for _, p := range h.found {
		if p.Owner == owner {
			out = append(out, describe(p))
		}
	}
	return out
}

// Unclaimed lists the processes of owners other than those given, for a message to the operator:
// they belong to a front end that does not run, and nothing is done to them.
func (h *Host) Unclaimed(owners ...string) []task.Found {
	known := map[string]bool{}
	for _, o := range owners {
		known[o] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []task.Found
	for _, p := range h.found {
		if !known[p.Owner] {
			out = append(out, describe(p))
		}
	}
	return out
}

func describe(p *keeper.Process) task.Found {
	return task.Found{
		ID: p.ID, Owner: p.Owner, Exec: p.Kind == keeper.KindExec, Of: p.Note, Pid: p.Pid,
		Ended: p.Exit != nil,
	}
}

// Adopt implements task.Isolation.
func (h *Host) Adopt(
	ctx context.Context, rec task.Record, exited func(task.Exit),
) (task.Task, error) {
	h.mu.Lock()
	kp := h.found[rec.ID]
	if kp == nil || kp.Owner != rec.Owner || kp.Kind == keeper.KindExec || h.closed {
		h.mu.Unlock()
		return nil, fmt.Errorf("task %q of %q: %w", rec.ID, rec.Owner, errdefs.ErrNotFound)
	}
	delete(h.found, rec.ID)
	p := newProcess(h, rec.ID, rec.Owner, exited)
	h.procs[rec.ID] = p
	h.mu.Unlock()
	t := &hostTask{process: p, rec: rec}
	if rec.Group != "" && h.cfg.Groups != nil {
		g, err := h.cfg.Groups.At(rec.Group)
		if err != nil {
			g = task.NoGroup{Err: err}
			if kp.Exit == nil {
				h.cfg.Log.Warn("control group of a running task", "task", rec.ID, "error", err)
			}
		}
		t.group = g
	}
	if kp.StreamsClosed {
		p.drain()
	}
	p.running(kp)
	if kp.Exit != nil {
		p.end(*kp.Exit)
	}
	return t, nil
}

// Abort implements task.Isolation.
func (h *Host) Abort(ctx context.Context, id string) error {
	err := h.ask(ctx, func(k Keeper) error { return k.Abort(ctx, id) })
	h.mu.Lock()
	p, kp := h.procs[id], h.found[id]
	if err == nil {
		delete(h.procs, id)
		delete(h.found, id)
	}
	h.mu.Unlock()
	if err != nil {
		return err
	}
	if p != nil {
		p.aborted()
	}
	if kp != nil {
		kp.Close()
	}
	return nil
}

// register reserves an ID for a process that is about to be started, so that its end finds it.
func (h *Host) register(p *process) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("start %q: %w", p.id, errdefs.ErrUnavailable)
	}
	if h.procs[p.id] != nil || h.found[p.id] != nil {
		return fmt.Errorf("start %q: the ID is in use: %w", p.id, errdefs.ErrAlreadyExists)
	}
	h.procs[p.id] = p
	delete(h.doubtful, p.id)
	return nil
}

func (h *Host) unregister(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[p.id] == p {
		delete(h.procs, p.id)
	}
}

// ask asks the keeper for something that may be done twice. When the keeper dies before it has
// answered, the next one is asked.
func (h *Host) ask(ctx context.Context, request func(Keeper) error) error {
	h.mu.Lock()
	k, fresh := h.keeper, h.fresh
	h.mu.Unlock()
	err := request(k)
	if !lost(err) {
		return err
	}
	if k, err = h.next(ctx, fresh, err); err != nil {
		return err
	}
	return request(k)
}

// next waits for the keeper after the one whose loss err tells. fresh is h.fresh as of then.
func (h *Host) next(ctx context.Context, fresh <-chan struct{}, err error) (Keeper, error) {
	select {
	case <-fresh:
		return h.connection(), nil
	case <-ctx.Done():
		return nil, errors.Join(err, ctx.Err())
	case <-h.ctx.Done():
		return nil, err
	}
}

// lost says that the connection to a keeper ended before it had answered.
func lost(err error) bool {
	return errors.Is(err, keeper.ErrClosed) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// follow hands the keeper's events to the processes that they concern until Close. When the keeper
// dies it connects to a new one.
func (h *Host) follow() {
	for {
		k := h.connection()
		ev, err := k.Next(h.ctx)
		switch {
		case h.ctx.Err() != nil:
			return
		case err != nil:
			h.cfg.Log.Warn("the connection to the keeper ended", "error", err)
			if err := h.reconnect(k); err != nil {
				h.cfg.Log.Error(
					"no keeper can be reached; tasks go on without being watched", "error", err,
				)
				h.cancel() // requests that wait for the next keeper fail
				return
			}
			continue
		}
		switch ev := ev.(type) {
		case *keeper.ExitEvent:
			h.ended(ev)
		case *keeper.StreamsClosedEvent:
			h.mu.Lock()
			p, kp := h.procs[ev.ID], h.found[ev.ID]
			if kp != nil {
				kp.StreamsClosed = true
			}
			h.mu.Unlock()
			if p != nil {
				p.drain()
			}
		case *keeper.LogEvent:
			if ev.Reason != "" {
				h.cfg.Log.Warn(
					"lines of a log are lost", "task", ev.ID, "lines", ev.Lost, "reason", ev.Reason,
				)
			}
		}
	}
}

// ended records an exit. One of a start that was given up is acknowledged at once; any other one
// that is not known here is another Host's.
func (h *Host) ended(ev *keeper.ExitEvent) {
	h.mu.Lock()
	p, kp, k := h.procs[ev.ID], h.found[ev.ID], h.keeper
	if kp != nil {
		kp.Exit = &ev.Exit
	}
	doubtful := p == nil && h.doubtful[ev.ID]
	if doubtful {
		delete(h.doubtful, ev.ID)
	}
	h.mu.Unlock()
	switch {
	case p != nil:
		p.end(ev.Exit)
	case doubtful:
		h.spawn(func() {
			if err := k.Forget(h.ctx, ev.ID); err != nil && !errdefs.IsNotFound(err) {
				h.cfg.Log.Warn("forget an exit", "process", ev.ID, "error", err)
			}
		})
	}
}

// spawn runs f in the background; Close waits for it.
func (h *Host) spawn(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.work.Go(f)
	}
}

// reconnect gets a new keeper and hands it the processes of the dead one that it does not know.
func (h *Host) reconnect(dead Keeper) error {
	dead.Close()
	k, err := h.redial()
	if err != nil {
		return err
	}
	list, err := k.List(h.ctx)
	if err != nil {
		return errors.Join(err, k.Close())
	}
	known, whole := map[string]bool{}, map[string]bool{}
	for _, p := range list {
		known[p.ID], whole[p.ID] = true, !p.Bare
		p.Close()
	}
	h.mu.Lock()
	var orphans []*process
	for id, p := range h.procs {
		if !whole[id] {
			orphans = append(orphans, p)
		}
	}
	for id, p := range h.found {
		if !known[id] {
			delete(h.found, id)
			p.Close()
		}
	}
	h.mu.Unlock()
	for _, p := range orphans {
		p.handOver(h.ctx, k)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keeper = k
	close(h.fresh)
	h.fresh = make(chan struct{})
	return nil
}

// redial connects to a keeper, however long it takes.
func (h *Host) redial() (Keeper, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		k, err := h.cfg.Connect(h.ctx)
		if err == nil {
			return k, nil
		}
		h.cfg.Log.Warn("connect to the keeper", "error", err)
		select {
		case <-h.ctx.Done():
			return nil, h.ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (h *Host) fault(step string) error {
	if h.cfg.Fault == nil {
		return nil
	}
	return h.cfg.Fault(step)
}

// Kernel is what a program has to know about the running kernel.
type Kernel struct {
	// LastCap is the highest capability that it knows.
	LastCap int
	// AppArmor and SELinux say that it enforces these.
	AppArmor, SELinux bool
}

func readKernel() *Kernel {
	there := func(path string) bool { return unix.Access(path, unix.F_OK) == nil }
	k := &Kernel{
		LastCap: unix.CAP_LAST_CAP, AppArmor: there("/sys/kernel/security/apparmor/profiles"),
		SELinux: there("/sys/fs/selinux/enforce"),
	}
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			k.LastCap = n
		}
	}
	return k
}
