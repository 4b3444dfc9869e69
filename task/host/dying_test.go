package host

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/task"
)

// dying is the connection to a keeper that is killed when it is asked for one of some things.
type dying struct{ Keeper }

func (d dying) kill() { unix.Kill(d.Pid(), unix.SIGKILL) }

func (d dying) Abort(ctx context.Context, id string) error {
	d.kill()
	return d.Keeper.Abort(ctx, id)
}

func (d dying) Forget(ctx context.Context, id string) error {
	d.kill()
	return d.Keeper.Forget(ctx, id)
}

func (d dying) CloseStdin(ctx context.Context, id string) error {
	d.kill()
	return d.Keeper.CloseStdin(ctx, id)
}

func (d dying) ReopenLog(ctx context.Context, id string) error {
	d.kill()
	return d.Keeper.ReopenLog(ctx, id)
}

func (d dying) Shutdown(ctx context.Context, force keeper.Force) error {
	d.kill()
	return d.Keeper.Shutdown(ctx, force)
}

// TestKeeperDiesAtShutdown: what a keeper leaves that dies when it is to end all is ended.
func TestKeeperDiesAtShutdown(t *testing.T) {
	b := newBench(t)
	first := true
	h, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
		k, err := b.connect(ctx)
		if first && err == nil {
			first, k = false, dying{k}
		}
		return k, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	tk, err := h.Start(t.Context(), &task.Spec{
		ID: "left", Owner: "test", Config: b.config(scripted("sleep")),
	})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(tk.Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := h.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, 0); n != 1 || err != nil {
		t.Errorf("the process lives: %v", err)
	}
	if c, err := keeper.Dial(t.Context(), b.path("keeper.sock"), keeper.WithoutEvents); err == nil {
		c.Close()
		t.Error("there is a keeper")
	}
}

// dyingAtStart is the connection to a keeper that is killed when it has started something and not
// yet told.
type dyingAtStart struct{ dying }

func (d dyingAtStart) Start(
	ctx context.Context, req *keeper.StartRequest,
) (*keeper.Process, error) {
	p, err := d.Keeper.Start(ctx, req)
	if err != nil {
		return nil, err
	}
	p.Close()
	d.kill()
	return nil, keeper.ErrClosed
}

// TestKeeperDiesAtStart: what the dead keeper has started and not told of is the next one's, also if
// it has ended: it runs once.
func TestKeeperDiesAtStart(t *testing.T) {
	b := newBench(t)
	first := true
	h, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
		k, err := b.connect(ctx)
		if first && err == nil {
			first, k = false, dyingAtStart{dying{k}}
		}
		return k, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	cfg := b.config(scripted("sleep"))
	cfg.Mounts = append(cfg.Mounts, specs.Mount{
		Destination: "/etc/motd", Type: "bind", Source: b.path("root/etc/motd"),
		Options: []string{"bind", "ro"},
	})
	tk, err := h.Start(t.Context(), &task.Spec{ID: "begun", Owner: "test", Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if err := tk.Signal(0); err != nil {
		t.Error(err)
	}
	if err := h.Abort(t.Context(), "begun"); err != nil {
		t.Error(err)
	}
}

// TestStartedOnce: a short task of which the dead keeper has not told ends with its own status, and
// has written its output once.
func TestStartedOnce(t *testing.T) {
	for round := range 5 {
		b := newBench(t)
		first := true
		h, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
			k, err := b.connect(ctx)
			if first && err == nil {
				first, k = false, dyingAtStart{dying{k}}
			}
			return k, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		log := b.path("log")
		tk, err := h.Start(t.Context(), &task.Spec{
			ID: "short", Owner: "test", Config: b.config(scripted("echo out; exit 7")),
			Log: task.Log{Format: task.CRI, Path: log},
		})
		if err != nil {
			t.Fatal(err)
		}
		<-tk.Done()
		<-tk.Drained()
		raw, err := os.ReadFile(log)
		if n := strings.Count(string(raw), " F out\n"); n != 1 || err != nil {
			t.Errorf("round %d: the log: %q, %v; want out once", round, raw, err)
		}
		if code := tk.Exit().Code; code != 7 {
			t.Errorf("round %d: status %d, want 7", round, code)
		}
		if err := tk.Delete(t.Context()); err != nil {
			t.Error(err)
		}
		h.Close()
	}
}

// TestKeeperDiesAsked: what may be done twice is asked of the next keeper when one dies before it
// has answered.
func TestKeeperDiesAsked(t *testing.T) {
	b := newBench(t)
	start := func(t *testing.T, script string) (*Host, task.Task) {
		t.Helper()
		first := true
		h, err := Open(t.Context(), Config{Connect: func(ctx context.Context) (Keeper, error) {
			k, err := b.connect(ctx)
			if first && err == nil {
				first, k = false, dying{k}
			}
			return k, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		s := &task.Spec{
			ID: "asked", Owner: "test", Config: b.config(scripted(script)), Stdin: true,
			Log: task.Log{Format: task.JSONFile, Path: b.path("asked.log")},
		}
		tk, err := h.Start(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Abort(context.Background(), "asked"); err != nil {
				t.Error(err)
			}
		})
		return h, tk
	}
	t.Run("abort", func(t *testing.T) {
		h, tk := start(t, "cat")
		if err := h.Abort(t.Context(), "asked"); err != nil {
			t.Fatal(err)
		}
		if err := tk.Signal(0); err == nil {
			t.Error("it can be signalled after it was aborted")
		}
	})
	t.Run("close the input and delete", func(t *testing.T) {
		_, tk := start(t, "cat; exit 3")
		if err := tk.CloseInput(t.Context()); err != nil {
			t.Fatal(err)
		}
		if exit, err := task.Wait(t.Context(), tk); err != nil || exit.Code != 3 || exit.Unknown {
			t.Errorf("exit %+v, %v; want code 3", exit, err)
		}
		if err := tk.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("delete", func(t *testing.T) {
		_, tk := start(t, "exit 4")
		if exit, err := task.Wait(t.Context(), tk); err != nil || exit.Code != 4 {
			t.Errorf("exit %+v, %v; want code 4", exit, err)
		}
		if err := tk.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("reopen the log", func(t *testing.T) {
		_, tk := start(t, "cat")
		if err := os.Rename(b.path("asked.log"), b.path("old.log")); err != nil {
			t.Fatal(err)
		}
		if err := tk.ReopenLog(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.path("asked.log")); err != nil {
			t.Error(err)
		}
	})
	t.Run("a context that ends", func(t *testing.T) {
		h, _ := start(t, "cat")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Abort(ctx, "asked"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}
