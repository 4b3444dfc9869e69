package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"strake/container"
)

// createFlags are the options that create and run share.
type createFlags struct {
	bundle, consoleSocket, pidFile, pidfdSocket, config string
	noPivot, noNewKeyring, explain                      bool
	preserveFDs                                         int
}

func (c *createFlags) define(fs *flag.FlagSet) {
	for _, name := range []string{"bundle", "b"} {
		fs.StringVar(&c.bundle, name, ".", "`directory` with config.json")
	}
	for _, name := range []string{"config", "f"} {
		fs.StringVar(
			&c.config, name, "", "configuration `file` in place of the bundle's config.json",
		)
	}
	fs.StringVar(
		&c.consoleSocket, "console-socket", "",
		"unix `socket` that receives the master of the terminal",
	)
	fs.StringVar(
		&c.pidfdSocket, "pidfd-socket", "", "unix `socket` that receives a pidfd of the process",
	)
	fs.StringVar(&c.pidFile, "pid-file", "", "`file` that receives the process ID")
	fs.BoolVar(&c.noPivot, "no-pivot", false, "change the root without pivot_root, on a ramfs")
	fs.BoolVar(&c.noNewKeyring, "no-new-keyring", false, "keep the caller's session keyring")
	fs.IntVar(&c.preserveFDs, "preserve-fds", 0, "pass `N` more descriptors, from 3 on")
	fs.BoolVar(
		&c.explain, "explain", false,
		"print the system calls that the container's start consists of, and do nothing",
	)
}

// options reads the bundle.
func (c *createFlags) options(a *app, id string) (container.CreateOptions, error) {
	opt := container.CreateOptions{
		ID: id, PreserveFDs: c.preserveFDs, NoPivot: c.noPivot, NoNewKeyring: c.noNewKeyring,
		Log: a.warn,
	}
	var err error
	if opt.Bundle, err = filepath.Abs(c.bundle); err != nil {
		return opt, err
	}
	file := filepath.Join(opt.Bundle, "config.json")
	if c.config != "" {
		file = c.config
	}
	if opt.Spec, opt.Raw, err = container.ReadConfig(file); err != nil {
		return opt, err
	}
	if c.explain {
		opt.Explain = a.out
	}
	if n := listenFDs(); n > 0 && opt.Spec.Process != nil {
		opt.PreserveFDs += n
		opt.Spec.Process.Env = append(
			opt.Spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1",
		)
	}
	if err := fillClosed(opt.PreserveFDs); err != nil {
		return opt, fmt.Errorf("--preserve-fds %d: %w", opt.PreserveFDs, err)
	}
	return opt, nil
}

// listenFDs is how many sockets were handed to this process for the container (sd_listen_fds(3)).
// Those of which LISTEN_PID says that they are another process's are not.
func listenFDs() int {
	pid := os.Getenv("LISTEN_PID")
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return 0
	}
	return n
}

// fillClosed opens /dev/null on those of the n descriptors from 3 on that the caller has not opened,
// so that nothing which this program opens later takes their place in the container's process while
// that is set up. As descriptors of this program do, they close when the process executes.
func fillClosed(n int) error {
	null := -1
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			continue
		}
		var err error
		if null < 0 {
			null, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if null == fd {
				continue
			}
		}
		if err == nil {
			err = unix.Dup3(null, fd, unix.O_CLOEXEC)
		}
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	if null >= 3+n {
		unix.Close(null)
	}
	return nil
}

// started is done for every process that was created: its pid is written where it was asked for.
func started(pidFile, pidfdSocket string, p *container.Process) error {
	if pidFile != "" {
		tmp := filepath.Join(filepath.Dir(pidFile), "."+filepath.Base(pidFile))
		if err := os.WriteFile(tmp, []byte(strconv.Itoa(p.Pid)), 0o644); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
		if err := os.Rename(tmp, pidFile); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
	}
	if pidfdSocket != "" {
		if err := container.SendFD(pidfdSocket, p.PidFD, []byte("pidfd")); err != nil {
			return fmt.Errorf("--pidfd-socket: %w", err)
		}
	}
	return nil
}

func (a *app) create(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var c createFlags
	c.define(fs)
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	opt, err := c.options(a, id)
	if err != nil {
		return 1, err
	}
	if err := c.checkTerminal(opt, true); err != nil {
		return 1, err
	}
	opt.Hold = true
	opt.Terminal = c.passTerminal
	_, p, err := a.rt.Create(ctx, opt)
	if err != nil || p == nil {
		return 0, err
	}
	defer p.Close()
	if err := started(c.pidFile, c.pidfdSocket, p); err != nil {
		if ct, lerr := a.rt.Load(id); lerr == nil {
			err = errors.Join(err, ct.Delete(ctx, true))
		}
		return 1, err
	}
	return 0, nil
}

func (c *createFlags) checkTerminal(opt container.CreateOptions, detached bool) error {
	terminal := opt.Spec.Process != nil && opt.Spec.Process.Terminal
	switch {
	case c.explain:
	case terminal && detached && c.consoleSocket == "":
		return errors.New(
			"process.terminal: a container that is left alone needs --console-socket for its " +
				"terminal",
		)
	case !terminal && c.consoleSocket != "":
		return errors.New(
			"--console-socket: process.terminal is false, there will be no terminal to send",
		)
	case terminal && !detached && c.consoleSocket != "":
		return errors.New("--console-socket: wants --detach")
	}
	return nil
}

func (c *createFlags) passTerminal(master *os.File) error {
	defer master.Close()
	if err := container.SendFD(
		c.consoleSocket, int(master.Fd()), []byte(master.Name()),
	); err != nil {
		return fmt.Errorf("--console-socket: %w", err)
	}
	return nil
}

func (a *app) runContainer(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var c createFlags
	var detach, keep bool
	c.define(fs)
	for _, name := range []string{"detach", "d"} {
		fs.BoolVar(&detach, name, false, "do not wait for the container")
	}
	fs.BoolVar(&keep, "keep", false, "do not delete the container when it ends")
	fs.Bool(
		"no-subreaper", false,
		"accepted for runc's sake: orphans of the container are reaped in it",
	)
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	opt, err := c.options(a, id)
	if err != nil {
		return 1, err
	}
	if err := c.checkTerminal(opt, detach); err != nil {
		return 1, err
	}
	var fg foreground
	opt.Terminal = fg.terminal
	if detach {
		opt.Terminal = c.passTerminal
	} else {
		opt.PlainTerminal = true
		if err := fg.begin(); err != nil {
			return 1, err
		}
		defer fg.end()
	}
	ct, p, err := a.rt.Create(ctx, opt)
	if err != nil || p == nil {
		return 0, err
	}
	defer p.Close()
	err = started(c.pidFile, c.pidfdSocket, p)
	if err == nil {
		err = ct.Poststart(ctx)
	}
	if err != nil {
		return 1, errors.Join(err, ct.Delete(ctx, true))
	}
	if detach {
		return 0, nil
	}
	code, err := fg.wait(p)
	if !keep {
		err = errors.Join(err, ct.Delete(ctx, true))
	}
	return code, err
}
