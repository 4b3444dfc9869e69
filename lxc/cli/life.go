package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/lxc"
)

func start(f *pflag.FlagSet) action {
	var o lxc.StartOptions
	foreground := f.BoolP("foreground", "F", false, "stay attached to the console")
	f.BoolP("daemon", "d", false, "start in the background (default)")
	pidFile := f.StringP("pidfile", "p", "", "write the number of the container's init to FILE")
	f.StringVarP(&o.ConfigFile, "rcfile-start", "f", "", "read FILE in place of the configuration")
	f.StringArrayVarP(&o.Define, "define", "s", nil, "put KEY=VALUE over the configuration")
	console := f.StringP("console", "c", "", "use FILE as the console")
	consoleLog := f.StringP("console-log", "L", "", "write the console's output to FILE")
	shares := shareFlags(f)
	f.BoolP("close-all-fds", "C", false, "close inherited descriptors (always)")
	return func(ctx context.Context, c *call) (int, error) {
		if c.rcfile != "" {
			o.ConfigFile = c.rcfile
		}
		if *console != "" {
			o.Define = append(o.Define, "lxc.console.path="+*console)
		}
		if *consoleLog != "" {
			o.Define = append(o.Define, "lxc.console.logfile="+*consoleLog)
		}
		o.Share = shares()
		if len(c.args) > 0 {
			o.Define = append(o.Define, "lxc.init.cmd="+strings.Join(c.args, " "))
		}
		return c.begin(ctx, &o, *foreground, *pidFile)
	}
}

// shareFlags are --share-net and its like.
func shareFlags(f *pflag.FlagSet) func() map[string]string {
	kinds := []string{"net", "ipc", "uts", "pid"}
	values := map[string]*string{}
	for _, k := range kinds {
		values[k] = f.String("share-"+k, "", "share a namespace with a container or process")
	}
	return func() map[string]string {
		out := map[string]string{}
		for k, v := range values {
			if *v != "" {
				out[k] = *v
			}
		}
		return out
	}
}

// begin starts the container.
func (c *call) begin(
	ctx context.Context, o *lxc.StartOptions, foreground bool, pidFile string,
) (int, error) {
	x, err := c.path.Container(c.name)
	if err != nil {
		return 1, err
	}
	if o.ConfigFile == "" {
		if err := x.Exists(ctx); err != nil {
			return 1, err
		}
	}
	if foreground {
		return c.foreground(ctx, x, o, pidFile)
	}
	t, err := x.Start(ctx, o)
	if errdefs.IsAlreadyExists(err) && o.Command == nil {
		// lxc-start says so and succeeds: the container runs, as it was asked for.
		if st, look := x.Status(); look == nil && st.Pid != 0 {
			fmt.Fprintf(c.Err, "lxc-%s: %s\n", c.verb.name, message(err))
			return 0, nil
		}
	}
	if err != nil {
		return 1, err
	}
	return 0, writePid(pidFile, t.Pid())
}

func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%d\n", pid), 0o644)
}

func execute(f *pflag.FlagSet) action {
	var o lxc.StartOptions
	daemon := f.BoolP("daemon", "d", false, "execute in the background")
	pidFile := f.StringP("pidfile", "p", "", "write the number of the container's init to FILE")
	f.StringVarP(&o.ConfigFile, "rcfile-execute", "f", "", "read FILE in place of the configuration")
	f.StringArrayVarP(&o.Define, "define", "s", nil, "put KEY=VALUE over the configuration")
	uid := f.StringP("uid", "u", "", "user ID")
	gid := f.StringP("gid", "g", "", "group ID")
	shares := shareFlags(f)
	return func(ctx context.Context, c *call) (int, error) {
		if c.rcfile != "" {
			o.ConfigFile = c.rcfile
		}
		if *uid != "" {
			o.Define = append(o.Define, "lxc.init.uid="+*uid)
		}
		if *gid != "" {
			o.Define = append(o.Define, "lxc.init.gid="+*gid)
		}
		o.Share = shares()
		o.Command = c.args
		if len(o.Command) == 0 {
			return 1, errors.New("no command to execute\nTry lxc-execute --help")
		}
		return c.begin(ctx, &o, !*daemon, *pidFile)
	}
}

// notRunning is the status of lxc-stop(1) for a container that does not run; LXC has it for one that
// does not exist too.
const notRunning = 2

// stopPatience is how long lxc-stop waits for a clean end.
const stopPatience = 60

func stop(f *pflag.FlagSet) action {
	var o lxc.StopOptions
	f.BoolVarP(&o.Reboot, "reboot", "r", false, "reboot the container")
	f.BoolVarP(&o.NoWait, "nowait", "W", false, "do not wait until it has stopped")
	timeout := f.IntP("timeout", "t", stopPatience, "wait so many seconds for a clean end")
	f.BoolVarP(&o.Kill, "kill", "k", false, "kill it at once")
	noKill := f.Bool("nokill", false, "do not kill it when it has not ended in time")
	noLock := f.Bool("nolock", false, "kill it whatever else is under way")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if errdefs.IsNotFound(err) {
			return notRunning, err
		}
		if err != nil {
			return 1, err
		}
		o.NoKill = *noKill
		o.Kill = o.Kill || *noLock
		limited := ctx
		if !o.Kill && *timeout >= 0 {
			var cancel context.CancelFunc
			limited, cancel = context.WithTimeout(ctx, time.Duration(*timeout)*time.Second)
			defer cancel()
		}
		switch err := x.Stop(limited, o); {
		case errdefs.IsFailedPrecondition(err):
			return notRunning, err
		case err != nil:
			return 1, err
		}
		return 0, nil
	}
}

func end(*pflag.FlagSet) action {
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.path.Container(c.name)
		if err != nil {
			return 1, err
		}
		return 0, x.End(ctx)
	}
}

func teardown(*pflag.FlagSet) action {
	return func(ctx context.Context, c *call) (int, error) { return 0, c.path.Teardown(ctx) }
}

func freeze(*pflag.FlagSet) action   { return frozen(true) }
func unfreeze(*pflag.FlagSet) action { return frozen(false) }

func frozen(to bool) action {
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		return 0, x.Freeze(ctx, to)
	}
}

func destroy(f *pflag.FlagSet) action {
	force := f.BoolP("force", "f", false, "stop it first")
	snapshots := f.BoolP("snapshots", "s", false, "destroy its snapshots too")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		return 0, x.Destroy(ctx, lxc.DestroyOptions{Force: *force, Snapshots: *snapshots})
	}
}

func wait(f *pflag.FlagSet) action {
	states := f.StringP("state", "s", "", "states, separated by |")
	timeout := f.IntP("timeout", "t", -1, "wait at most so many seconds")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.path.Container(c.name)
		if err != nil {
			return 1, err
		}
		want, err := parseStates(*states)
		if err != nil {
			return 1, err
		}
		if *timeout >= 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(*timeout)*time.Second)
			defer cancel()
		}
		_, err = x.Wait(ctx, want...)
		if errors.Is(err, context.DeadlineExceeded) {
			return 1, nil
		}
		return 0, err
	}
}

// allStates are those that lxc-wait knows.
var allStates = []lxc.State{
	lxc.Stopped, lxc.Starting, lxc.Running, lxc.Stopping, lxc.Aborting, lxc.Freezing, lxc.Frozen,
	lxc.Thawed,
}

func parseStates(s string) (list []lxc.State, err error) {
	if s == "" {
		return nil, errors.New("no state to wait for\nTry lxc-wait --help")
	}
next:
	for word := range strings.SplitSeq(s, "|") {
		for _, known := range allStates {
			if string(known) == strings.TrimSpace(word) {
				list = append(list, known)
				continue next
			}
		}
		return nil, fmt.Errorf("state %q: want one of %v", word, allStates)
	}
	return list, nil
}
