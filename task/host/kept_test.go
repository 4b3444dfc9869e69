package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/task"
)

// patience bounds every wait for another process.
const patience = 20 * time.Second

// until polls what another process does.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// text is the content of a file, "" if there is none.
func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// TestKeeperKilledWhileKept: kept files and the end command of a task belong to the next keeper,
// whether guard or Host has handed them over.
func TestKeeperKilledWhileKept(t *testing.T) {
	for name, alone := range map[string]bool{"the keeper": true, "and its guard": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			h := b.open()
			defer h.Close()
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer write.Close()
			out := b.path("ended")
			tk, err := h.Start(t.Context(), &task.Spec{
				ID: "keeps", Owner: "lxc", Config: b.config(scripted("cat")), Stdin: true,
				Keep:       []task.Kept{{Name: "tty1", File: read}},
				EndCommand: []string{"/bin/sh", "-c", "echo end >> " + out},
			})
			read.Close()
			if err != nil {
				t.Fatal(err)
			}
			before := h.KeeperPid()
			if !alone {
				b.killGuard(before)
			} else if err := unix.Kill(before, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			until(t, "the next keeper", func() bool { return h.KeeperPid() != before })
			// The next Host has nothing but what the keeper gives.
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			h = b.open()
			defer h.Close()
			if tk, err = h.Adopt(t.Context(), tk.Record(), nil); err != nil {
				t.Fatal(err)
			}
			f, err := tk.Kept("tty1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := write.WriteString("x"); err != nil {
				t.Error(err)
			}
			if n, err := f.Read(make([]byte, 8)); n != 1 || err != nil && err != io.EOF {
				t.Errorf("read %d bytes, %v", n, err)
			}
			f.Close()
			if got := text(t, out); got != "" {
				t.Errorf("the end command was executed before the end: %q", got)
			}
			if err := tk.CloseInput(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := tk.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			until(t, "the end command", func() bool { return text(t, out) == "end\n" })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := task.Wait(ctx, tk); err != nil {
				t.Fatal(err)
			}
			if err := tk.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// killGuard kills the guard of a keeper, and the keeper before it can start another one.
func (b *bench) killGuard(pid int) {
	b.t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		b.t.Fatal(err)
	}
	defer unix.Kill(pid, unix.SIGKILL)
	guard := 0
	for line := range strings.Lines(text(b.t, b.path("keeper/processes.log"))) {
		fmt.Sscanf(line, "guard %d ", &guard)
	}
	if guard == 0 {
		b.t.Fatal("there is no guard")
	}
	if err := unix.Kill(guard, unix.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
}

// TestHostsShareAKeeper: the exit of a task that another Host has started is left to it.
func TestHostsShareAKeeper(t *testing.T) {
	b := newBench(t)
	first, second := b.open(), b.open()
	defer first.Close()
	tk, err := second.Start(t.Context(), &task.Spec{
		ID: "theirs", Owner: "lxc", Config: b.config(scripted("exit 3")),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := task.Wait(ctx, tk); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// An event of its own says that the first Host has handled those before it.
	if got, exit := output(t, first, &task.Spec{
		ID: "ours", Owner: "lxc", Config: b.config(scripted("exit 4")),
	}); got != "" || exit.Code != 4 {
		t.Errorf("got %q, %+v", got, exit)
	}
	third := b.open()
	defer third.Close()
	if list := third.Found("lxc"); len(list) != 1 || list[0].ID != "theirs" || !list[0].Ended {
		t.Errorf("found %+v, want the end of theirs", list)
	}
}
