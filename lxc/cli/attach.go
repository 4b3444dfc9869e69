package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"strake/cli/terminal"
	"strake/lxc"
	"strake/task"
)

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func attach(f *pflag.FlagSet) action {
	var o lxc.AttachOptions
	elevated := f.StringP("elevated-privileges", "e", "", "keep privileges: CGROUP, CAP, LSM, or all")
	f.Lookup("elevated-privileges").NoOptDefVal = "all"
	f.Bool("clear-env", false, "start with an empty environment")
	keepEnv := f.Bool("keep-env", false, "keep the environment (default)")
	setVar := f.StringArrayP("set-var", "v", nil, "set a variable, NAME=VALUE")
	keepVar := f.StringArray("keep-var", nil, "keep a variable with --clear-env")
	uid := f.StringP("uid", "u", "", "user ID")
	gid := f.StringP("gid", "g", "", "group ID")
	some := f.StringP(
		"namespaces", "s", "", "join these alone, with all privileges: some of MOUNT, PID, UTSNAME, "+
			"IPC, USER, NETWORK, CGROUP, separated by |",
	)
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		clear, _ := c.set.GetBool("clear-env")
		o.Env = environment(clear && !*keepEnv, *keepVar, *setVar)
		o.Elevated = *elevated != ""
		if o.UID, err = id("uid", *uid); err != nil {
			return 1, err
		}
		if o.GID, err = id("gid", *gid); err != nil {
			return 1, err
		}
		o.Command = c.args
		// A working directory that has been removed has no name.
		o.Cwd, _ = os.Getwd()
		if *some != "" {
			return c.join(ctx, x, &o, *some)
		}
		return c.converse(ctx, func(s *streams) (task.Process, error) {
			o.Terminal, o.Width, o.Height = s.terminal, s.width, s.height
			o.Stdin, o.Stdout, o.Stderr = true, s.out, s.err
			return x.Attach(ctx, &o)
		})
	}
}

// join executes the command in some of the container's namespaces.
func (c *call) join(
	ctx context.Context, x *lxc.Container, o *lxc.AttachOptions, words string,
) (int, error) {
	out, ok := c.Out.(*os.File)
	errs, also := c.Err.(*os.File)
	if !ok || !also {
		return 1, errors.New("the standard streams are no files")
	}
	return x.Join(ctx, &lxc.JoinOptions{
		Namespaces: strings.Split(words, "|"), Command: o.Command, Env: o.Env, Cwd: o.Cwd,
		UID: o.UID, GID: o.GID, Files: [3]*os.File{c.In, out, errs},
	})
}

// environment is what an attached process starts with.
func environment(clear bool, keep, set []string) (env []string) {
	if !clear {
		env = os.Environ()
	} else {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		for _, name := range keep {
			if v, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+v)
			}
		}
	}
	return append(append(env, set...), "container=lxc")
}

func id(flag, s string) (*uint32, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%s %q: want a number", flag, s)
	}
	v := uint32(n)
	return &v, nil
}

// streams are what a process in the foreground has.
type streams struct {
	terminal      bool
	width, height uint16
	out, err      *os.File // write ends of pipes; err is nil with a terminal
}

// converse runs a process in the foreground with the caller's streams and returns its exit status.
func (c *call) converse(
	ctx context.Context, begin func(*streams) (task.Process, error),
) (int, error) {
	s := &streams{terminal: isTerminal(c.In) && isTerminal(c.Out)}
	if w, h, ok := terminal.Size(c.Out); ok && s.terminal {
		s.width, s.height = uint16(w), uint16(h)
	}
	outputs := make(chan struct{}, 2)
	running := 0
	pipe := func(to io.Writer) (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		running++
		go func() {
			io.Copy(to, r)
			r.Close()
			outputs <- struct{}{}
		}()
		return w, nil
	}
	var err error
	if s.out, err = pipe(c.Out); err != nil {
		return 1, err
	}
	defer s.out.Close()
	if !s.terminal {
		if s.err, err = pipe(c.Err); err != nil {
			return 1, err
		}
		defer s.err.Close()
	}
	p, err := begin(s)
	if err != nil {
		var failed *task.StartError
		if errors.As(err, &failed) {
			return failed.Code, err
		}
		return 1, err
	}
	s.out.Close()
	if s.err != nil {
		s.err.Close()
	}
	if s.terminal {
		restore, err := terminal.MakeRaw(c.In)
		if err != nil {
			return 1, err
		}
		defer restore()
	}
	stop := c.feed(ctx, p, s.terminal)
	defer stop()
	exit, err := task.Wait(ctx, p)
	if err != nil {
		return 1, err
	}
	for range running {
		<-outputs
	}
	if err := p.Delete(context.WithoutCancel(ctx)); err != nil {
		return 1, err
	}
	return exit.Code, nil
}

// feed gives a process the caller's input, the size of its terminal and its signals.
func (c *call) feed(ctx context.Context, p task.Process, tty bool) (stop func()) {
	if in, err := p.Input(); err == nil {
		go func() {
			io.Copy(in, c.In)
			in.Close()
			if !tty {
				p.CloseInput(ctx)
			}
		}()
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case sig := <-signals:
				if sig != syscall.SIGWINCH {
					p.Signal(sig.(syscall.Signal))
				} else if w, h, ok := terminal.Size(c.Out); ok && tty {
					p.Resize(ctx, uint16(w), uint16(h))
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// foreground starts the container and stays until it has ended.
func (c *call) foreground(
	ctx context.Context, x *lxc.Container, o *lxc.StartOptions, pidFile string,
) (int, error) {
	code, err := c.converse(ctx, func(s *streams) (task.Process, error) {
		o.Plain = o.Command != nil && !s.terminal
		o.Width, o.Height, o.Stdout, o.Stderr = s.width, s.height, s.out, s.err
		t, err := x.Start(ctx, o)
		if err != nil {
			return nil, err
		}
		return foregroundTask{t, x}, writePid(pidFile, t.Pid())
	})
	if err == nil && o.Command == nil {
		code = 0
	}
	return code, err
}

// foregroundTask is a container's init: its end is the container's.
type foregroundTask struct {
	task.Task
	x *lxc.Container
}

// Delete ends the container.
func (t foregroundTask) Delete(ctx context.Context) error { return t.x.End(ctx) }

func console(f *pflag.FlagSet) action {
	tty := f.IntP("tty", "t", -1, "connect to terminal N; 0 is the console")
	escape := f.StringP("escape", "e", "^a", "the character that begins an escape")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		return c.connect(ctx, x, *tty, *escape)
	}
}
