package lxc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lxc/config"
	"strake/lxc/ocispec"
)

// End does what is to be done when the container has ended: it is the command that the keeper
// executes. It is safe to repeat, and does nothing for a container that runs.
func (c *Container) End(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return c.repair(ctx)
}

// repair ends what an interrupted operation has left, or a container whose process has ended. It
// starts the container again if that is what it has asked for. Callers hold the lock.
func (c *Container) repair(ctx context.Context) error {
	r, err := c.load()
	if err != nil || r == nil {
		return err
	}
	if r.Pid != 0 && birth(r.Pid) == r.Birth {
		return nil
	}
	k, err := c.path.open(ctx)
	if err != nil {
		return err
	}
	restart := r.Restart
	t, err := k.task(ctx, r.Task)
	if err != nil {
		return err
	}
	// What a start has left that was interrupted is ended by finish, also if it runs.
	if t != nil && r.Pid != 0 {
		// It has ended for the kernel; the keeper is a moment behind at most.
		select {
		case <-t.Done():
			restart = restart || rebooted(t.Exit().Code)
			if r.Restart != restart {
				// Before the exit is acknowledged, which tells of it once.
				r.Restart = restart
				if err := c.save(r); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.announce(Stopping); err != nil {
		return err
	}
	if err := c.finish(ctx, k, r); err != nil || !restart {
		return err
	}
	_, err = c.start(ctx, &r.Options)
	return err
}

// rebooted says that a container's init asked for a reboot: reboot(2) ends it by SIGHUP then, and by
// SIGINT for a halt.
func rebooted(code int) bool { return code == 128+int(syscall.SIGHUP) }

// finish removes what a run of the container has in the kernel, and its record. Each step may have
// been done already. Callers hold the lock.
func (c *Container) finish(ctx context.Context, k *kernel, r *record) error {
	cfg, err := config.Load(filepath.Join(c.run, "config"))
	var errs []error
	if r.Pid == 0 {
		// A start that was interrupted, or that failed.
		errs = append(errs, k.abort(ctx, r.Task.ID))
	}
	at := ocispec.Moment{Target: "stop"}
	if r.Restart {
		at.Target = "reboot"
	}
	// A hook that fails does not keep a container from its end.
	hook := func(kind string) {
		if err != nil {
			return
		}
		if err := c.hooks(ctx, cfg, kind, at); err != nil {
			c.path.log.Error("a hook failed", "container", c.name, "error", err)
		}
	}
	hook("stop")
	errs = append(errs, c.removeNetwork(ctx, cfg, r.Nics))
	g, gerr := k.groups.At(r.Task.Group)
	if gerr == nil {
		gerr = g.Remove(ctx)
	}
	errs = append(errs, gerr, c.unloadProfile(ctx), unmountBelow(c.run))
	hook("post-stop")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err == nil && cfg.Ephemeral && r.Pid != 0 && !r.Restart && c.Defined() {
		if err := removeEphemeral(ctx, c); err != nil {
			return err
		}
	}
	// The keeper forgets the process when all else is done: until then it executes the command that
	// does it, if the present one is killed.
	if err := k.abort(ctx, r.Task.ID); err != nil {
		return err
	}
	if err := os.RemoveAll(c.run); err != nil {
		return err
	}
	return c.announce(Stopped)
}

// StopOptions say how a container is stopped.
type StopOptions struct {
	// Kill ends it at once; otherwise it is told to halt, and killed when ctx ends, unless NoKill.
	Kill, NoKill bool
	// Reboot tells it to reboot.
	Reboot bool
	// NoWait returns when it has been told.
	NoWait bool
}

// Stop stops or reboots the container and waits until it is stopped. One that does not run is
// errdefs.ErrFailedPrecondition. If ctx ends, a container that was told to halt is killed.
func (c *Container) Stop(ctx context.Context, o StopOptions) error {
	r, err := c.running()
	if err != nil {
		return err
	}
	cfg, err := config.Load(filepath.Join(c.run, "config"))
	if err != nil {
		return err
	}
	whole := context.WithoutCancel(ctx)
	k, err := c.path.open(whole)
	if err != nil {
		return err
	}
	t, err := k.task(whole, r.Task)
	if err != nil {
		return err
	}
	if t == nil {
		return c.End(whole)
	}
	sig := syscall.SIGKILL
	switch {
	case o.Kill && cfg.Signal.Stop != 0:
		sig = syscall.Signal(cfg.Signal.Stop)
	case o.Kill:
	case o.Reboot:
		sig = rebootSignal(cfg)
	default:
		sig = haltSignal(cfg, r.Pid)
	}
	if r.State == Frozen {
		if err := t.Resume(whole); err != nil {
			return err
		}
	}
	if err := t.Signal(sig); err != nil && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	if o.NoWait || o.Reboot {
		return nil
	}
	select {
	case <-t.Done():
	case <-ctx.Done():
		if o.NoKill {
			return ctx.Err()
		}
		if err := t.Signal(syscall.SIGKILL); err != nil && !errdefs.IsFailedPrecondition(err) {
			return err
		}
		<-t.Done()
	}
	return c.End(whole)
}

// sigRTMinPlus3 is SIGRTMIN+3 as the C library counts, which keeps the first two for itself.
const sigRTMinPlus3 = syscall.Signal(34 + 3)

// haltSignal tells an init to power off. systemd blocks SIGRTMIN+3, to read it from a signalfd.
func haltSignal(cfg *config.Config, pid int) syscall.Signal {
	switch {
	case cfg.Signal.Halt != 0:
		return syscall.Signal(cfg.Signal.Halt)
	case blocks(pid, sigRTMinPlus3):
		return sigRTMinPlus3
	}
	return unix.SIGPWR
}

func rebootSignal(cfg *config.Config) syscall.Signal {
	if cfg.Signal.Reboot != 0 {
		return syscall.Signal(cfg.Signal.Reboot)
	}
	return syscall.SIGINT
}

// blocks says whether a process blocks a signal (proc_pid_status(5), SigBlk).
func blocks(pid int, sig syscall.Signal) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(raw), "\nSigBlk:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && n&(1<<(uint(sig)-1)) != 0
}
