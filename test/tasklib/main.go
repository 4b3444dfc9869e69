// Command tasklib shows task/host as a library, with a keeper of its own and without the engine. It
// starts one process, enters it, lets the keeper replace its program in place, kills the keeper,
// and reads the log, in which no line is missing.
//
//	tasklib DIR RUNTIME SUCCESSOR GROUP
//
// DIR holds the keeper's files and a root file system with /bin/busybox in DIR/root. RUNTIME and
// SUCCESSOR are two builds of strake-runtime. GROUP is the path of a control group that does not
// exist: the task is then a process of the host in a group below it. If it is empty, the task has
// that root file system and namespaces of its own, and no group.
//
// Not for: use. Package test builds and runs it (TestTaskLibrary).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/keeper"
	"strake/task"
	"strake/task/host"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: tasklib DIR RUNTIME SUCCESSOR GROUP")
		os.Exit(2)
	}
	dir, runtime, successor, group := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	if err := run(context.Background(), dir, runtime, successor, group); err != nil {
		fmt.Fprintln(os.Stderr, "tasklib:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, runtime, successor, groupPath string) (err error) {
	launch := keeper.Launch{
		Command: []string{runtime, "keeper"}, Socket: filepath.Join(dir, "keeper.sock"),
		StateDir: filepath.Join(dir, "keeper"), LogFile: filepath.Join(dir, "keeper.log"),
	}
	h, err := host.Open(ctx, host.Config{
		Connect: func(ctx context.Context) (host.Keeper, error) { return connect(ctx, &launch) },
	})
	if err != nil {
		return err
	}
	// Without this the keeper and its processes go on, and the next Host adopts them.
	defer func() { err = errors.Join(err, h.Abort(ctx, "demo"), h.Shutdown(ctx), h.Close()) }()

	s := &task.Spec{
		ID: "demo", Owner: "example", Stdin: true,
		Config: &specs.Spec{Process: shell("while read n; do echo line $n; done; exit 7")},
		Log:    task.Log{Format: task.JSONFile, Path: filepath.Join(dir, "demo.log")},
	}
	look := "busybox hostname"
	if groupPath == "" {
		inRoot(s.Config, filepath.Join(dir, "root"))
	} else {
		var remove func() error
		if remove, err = inGroup(ctx, s, groupPath); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		look = "busybox grep -q /example/demo /proc/self/cgroup && echo in its group"
	}
	t, err := h.Start(ctx, s)
	if err != nil {
		return err
	}
	fmt.Println("demo: started")
	said, err := execute(ctx, t, s, look)
	if err != nil {
		return err
	}
	fmt.Printf("demo: another process in it says: %s", said)

	c, err := follow(ctx, t, s.Log.Path)
	if err != nil {
		return err
	}
	first := h.KeeperPid()
	if err := c.during(func() error { return upgrade(ctx, launch.Socket, successor) }); err != nil {
		return err
	}
	if now := h.KeeperPid(); now != first {
		return fmt.Errorf("the upgrade has made keeper %d of keeper %d", now, first)
	}
	err = c.during(func() error { return syscall.Kill(first, syscall.SIGKILL) })
	if err != nil {
		return err
	}
	// What is asked of the Host waits for the next keeper, if it must.
	if said, err = execute(ctx, t, s, look); err != nil {
		return err
	}
	if h.KeeperPid() == first {
		return fmt.Errorf("keeper %d was killed and is the keeper", first)
	}
	fmt.Printf("keeper: killed; under the next one another process says: %s", said)
	return c.end(ctx)
}

// connect connects to the keeper and starts one where none listens.
func connect(ctx context.Context, l *keeper.Launch) (host.Keeper, error) {
	c, err := keeper.Dial(ctx, l.Socket, keeper.WithEvents)
	if !errdefs.IsUnavailable(err) {
		return c, err
	}
	p, err := keeper.StartProcess(l)
	if err != nil {
		return nil, err
	}
	go p.Wait() // it is a child of this process, as long as that lives
	return keeper.Dial(ctx, l.Socket, keeper.WithEvents)
}

// upgrade makes the keeper replace its program by another.
func upgrade(ctx context.Context, socket, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := keeper.Dial(ctx, socket, keeper.WithoutEvents)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Upgrade(ctx, f); err != nil {
		return err
	}
	running, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.Pid()))
	fmt.Println("keeper: the same process now runs", filepath.Base(running))
	return err
}
