// Package launcher connects a front end to its keeper, and starts the keeper where none runs.
//
// Not for: what is asked of the keeper (package task/host).
//
// Tested with programs that are no keeper; with the keeper itself by package test and cmd/straked.
package launcher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"strake/keeper"
)

// Launcher connects to the keeper of one directory. Its methods may be called concurrently.
type Launcher struct {
	launch keeper.Launch
	logf   func(format string, args ...any)
}

// New names the keeper whose socket, state and log are in dir. Its program is strake-runtime, beside
// the caller's own. logf is told of upgrades, and of those that fail; nil is not.
func New(dir string, logf func(format string, args ...any)) (*Launcher, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find strake-runtime: %w", err)
	}
	runtime := filepath.Join(filepath.Dir(exe), "strake-runtime")
	if _, err := os.Stat(runtime); err != nil {
		return nil, fmt.Errorf(
			"the keeper's program is expected beside %s: %w", filepath.Base(exe), err,
		)
	}
	if logf == nil {
		logf = func(string, ...any) {}
	}
	// Of the environment only what a Go program and its time zone need: the keeper outlives the
	// process that started it.
	environ := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return &Launcher{logf: logf, launch: keeper.Launch{
		Command: []string{runtime, "keeper"}, Environ: environ,
		Socket:   filepath.Join(dir, "keeper.sock"),
		StateDir: filepath.Join(dir, "state"),
		LogFile:  filepath.Join(dir, "keeper.log"),
	}}, nil
}

// dialAttempts bounds how often a keeper is started that ends, or finds another one that does.
const dialAttempts = 3

// Connect connects to the keeper that runs, or starts one. One that has nothing to do may end at any
// moment until it is connected. A keeper whose program is not the installed one is upgraded.
func (l *Launcher) Connect(ctx context.Context) (*keeper.Client, error) {
	for attempt := 1; ; attempt++ {
		c, err := l.Dial(ctx)
		if err == nil || !errdefs.IsUnavailable(err) || attempt > dialAttempts {
			return c, err
		}
		p, err := keeper.StartProcess(&l.launch)
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return nil, err
		}
		if p != nil {
			// It is a child of this process as long as that lives, and is reaped when it ends.
			go p.Wait()
		}
	}
}

// Dial connects to the keeper that runs. It is errdefs.ErrUnavailable if none does.
func (l *Launcher) Dial(ctx context.Context) (*keeper.Client, error) {
	c, err := keeper.Dial(ctx, l.launch.Socket, keeper.WithEvents)
	if err != nil {
		return nil, err
	}
	// The old program does all that it did; only what is new is missing.
	if err := l.renew(ctx, c); err != nil {
		l.logf("the keeper goes on with its old program: %v", err)
	}
	return c, nil
}

// renew makes a keeper whose program is not the installed one become that in place: the front end
// has been upgraded.
func (l *Launcher) renew(ctx context.Context, c *keeper.Client) error {
	program, err := os.Open(l.launch.Command[0])
	if err != nil {
		return err
	}
	defer program.Close()
	installed, err := program.Stat()
	if err != nil {
		return err
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", c.Pid()))
	if err != nil || os.SameFile(installed, running) {
		return err
	}
	if err := c.Upgrade(ctx, program); err != nil {
		return err
	}
	l.logf("the keeper, process %d, has been upgraded to %s", c.Pid(), program.Name())
	return nil
}
