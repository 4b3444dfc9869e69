package server

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/spawn"
	"strake/keeper"
)

func TestExitStatus(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct {
		id, script string
		want       int
	}{
		{"zero", "exit 0", 0},
		{"seven", "exit 7", 7},
		{"killed", "kill -KILL $$", 137},
		{"terminated", "kill -TERM $$", 143},
	} {
		p := r.start(r.request(tc.id, tc.script))
		if p.Pid <= 0 || p.State != keeper.Running {
			t.Errorf("%s: process %s of pid %d, state %d", tc.id, p.ID, p.Pid, p.State)
		}
		if _, err := p.Input(); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: input of a process without: %v", tc.id, err)
		}
		e := r.exit(tc.id)
		r.streamsClosed(tc.id)
		if e.Unknown || e.Code() != tc.want {
			t.Errorf("%s: code %d of %+v, want %d", tc.id, e.Code(), e, tc.want)
		}
		list, err := r.List(r.ctx())
		if err != nil || len(list) != 1 || list[0].State != keeper.Exited ||
			list[0].Exit.Code() != tc.want || !list[0].StreamsClosed {
			t.Errorf("%s: list %v, %v", tc.id, list, err)
		}
		if _, err := r.Client.Start(
			r.ctx(), r.request(tc.id, "exit 0"),
		); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: started again before it is forgotten: %v", tc.id, err)
		}
		if err := r.Forget(r.ctx(), tc.id); err != nil {
			t.Error(err)
		}
		if err := r.Forget(r.ctx(), tc.id); !errdefs.IsNotFound(err) {
			t.Errorf("%s: forgotten twice: %v", tc.id, err)
		}
	}
}

func TestLogAndSubscribers(t *testing.T) {
	r := newRig(t)
	both, out, errs := newReader(t), newReader(t), newReader(t)
	req := r.request("a", "echo one; echo two >&2; printf half")
	req.Attach = []keeper.Attachment{
		{Stdout: both.give, Stderr: both.give, Framed: true},
		{Stdout: out.give, Stderr: errs.give},
	}
	r.start(req)
	r.exit("a")
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "one\nhalf" {
		t.Errorf("log of stdout %q", got)
	}
	if got := logged(t, r.logPath("a"), "stderr"); got != "two\n" {
		t.Errorf("log of stderr %q", got)
	}
	if got := out.all(t); got != "one\nhalf" {
		t.Errorf("stdout %q", got)
	}
	if got := errs.all(t); got != "two\n" {
		t.Errorf("stderr %q", got)
	}
	var streams [3]string
	for text := both.all(t); len(text) >= 8; {
		n := int(text[6])<<8 | int(text[7])
		streams[text[0]] += text[8 : 8+n]
		text = text[8+n:]
	}
	if streams != [3]string{"", "one\nhalf", "two\n"} {
		t.Errorf("framed %q", streams)
	}
	late := newReader(t)
	if _, err := r.Attach(r.ctx(), "a", keeper.Attachment{Stdout: late.give}); err != nil {
		t.Error(err)
	}
	if got := late.all(t); got != "" {
		t.Errorf("a subscriber after the end got %q", got)
	}
	if len(r.detached) != 0 {
		t.Errorf("detached: %v", r.detached)
	}
}

// What is in the log at the moment of a subscription and what the subscription delivers are
// everything once, also in the middle of a line.
func TestAttachPending(t *testing.T) {
	r := newRig(t)
	first := newReader(t)
	req := r.request("a", `printf 'one\ntw'; read x; printf 'o\nthree\n'`)
	req.Stdio.Stdin = true
	fifo, giver, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	req.Attach = []keeper.Attachment{{Stdout: giver}, {Stdout: first.give}}
	p := r.start(req)
	giver.Close()
	buf := make([]byte, 6)
	if _, err := readFull(fifo, buf); err != nil { // the keeper has read it
		t.Fatal(err)
	}
	second := newReader(t)
	at, err := r.Attach(r.ctx(), "a", keeper.Attachment{Stdout: second.give, Pending: true})
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.Input()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	r.streamsClosed("a")
	text, err := os.ReadFile(r.logPath("a"))
	if err != nil {
		t.Fatal(err)
	}
	if before := string(text[:at.LogOffset]); !strings.HasPrefix(before, `{"log":"one\n"`) ||
		strings.Count(before, "\n") != 1 {
		t.Errorf("log before the subscription %q", before)
	}
	if got := second.all(t); got != "two\nthree\n" {
		t.Errorf("subscription %q", got)
	}
	if got := first.all(t); got != "one\ntwo\nthree\n" {
		t.Errorf("first subscription %q", got)
	}
}

func readFull(f *os.File, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

func TestStdin(t *testing.T) {
	r := newRig(t)
	out := newReader(t)
	req := r.request("a", "cat; echo end")
	req.Stdio.Stdin = true
	req.Attach = []keeper.Attachment{{Stdout: out.give}}
	p := r.start(req)
	in, err := p.Input()
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16) // more than pipes hold
	if _, err := in.WriteString(big); err != nil {
		t.Fatal(err)
	}
	in.Close()
	p.CloseStdin()
	for range 2 {
		if err := r.CloseStdin(r.ctx(), "a"); err != nil {
			t.Error(err)
		}
	}
	if e := r.exit("a"); e.Code() != 0 {
		t.Errorf("exit %+v", e)
	}
	if got := out.all(t); got != big+"end\n" {
		t.Errorf("got %d bytes, want %d", len(got), len(big)+4)
	}
	r.start(r.request("b", "cat; echo end"))
	r.exit("b")
	if got := logged(t, r.logPath("b"), "stdout"); got != "end\n" {
		t.Errorf("without stdin: %q", got)
	}
}

func terminal(b *program.Builder, slave program.Arg, script string) {
	b.Call(unix.SYS_SETSID)
	b.Call(unix.SYS_IOCTL, slave, program.Num(unix.TIOCSCTTY), program.Num(0))
	for i := range 3 {
		b.Call(unix.SYS_DUP3, slave, program.Num(i), program.Num(0))
	}
	execute(b, "/bin/sh", "sh", "-c", script)
}

func TestTTY(t *testing.T) {
	const script = `stty -echo; stty size; echo ready
		while read x; do stty size; echo "got $x"; done`
	for _, tc := range []struct {
		name  string
		build func(b *program.Builder)
	}{
		{"of the keeper", func(b *program.Builder) { terminal(b, b.Input("tty"), script) }},
		{"of the program", func(b *program.Builder) {
			master := b.Call(
				unix.SYS_OPENAT, program.Num(unix.AT_FDCWD), b.Str("/dev/ptmx").Ptr(),
				program.Num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC),
			).Result()
			unlocked := b.Bytes(make([]byte, 4))
			b.Call(unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCSPTLCK), unlocked.Ptr())
			slave := b.Call(
				unix.SYS_IOCTL, master.Value(), program.Num(unix.TIOCGPTPEER),
				program.Num(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC),
			).Result()
			b.SendFD(b.Input(program.InputSync), program.StageTTY, master.Value())
			b.Stage(program.StageReady) // the keeper has set the size when it answers
			b.Await()
			terminal(b, slave.Value(), script)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			read, give, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			p := r.start(&keeper.StartRequest{
				ID: "tty", Image: image(t, tc.build),
				Stdio:  keeper.Stdio{Mode: keeper.StdioTTY, Width: 91, Height: 33},
				Attach: []keeper.Attachment{{Stdout: give}},
				Log:    keeper.LogConfig{Driver: keeper.LogJSONFile, Path: r.logPath("tty")},
			})
			give.Close()
			expect := func(want string) {
				t.Helper()
				want = strings.ReplaceAll(want, "\n", "\r\n")
				buf := make([]byte, len(want))
				if n, err := readFull(read, buf); err != nil || string(buf) != want {
					t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
				}
			}
			expect("33 91\nready\n")
			in, err := p.Input()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, err := in.WriteString("hello\n"); err != nil {
				t.Fatal(err)
			}
			expect("33 91\ngot hello\n")
			if err := r.Resize(r.ctx(), "tty", 100, 40); err != nil {
				t.Fatal(err)
			}
			if _, err := in.WriteString("again\n"); err != nil {
				t.Fatal(err)
			}
			expect("40 100\ngot again\n")
			if err := r.CloseStdin(r.ctx(), "tty"); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("close the input of a terminal: %v", err)
			}
			if _, err := in.WriteString("\x04"); err != nil { // end of input
				t.Fatal(err)
			}
			if e := r.exit("tty"); e.Code() != 0 {
				t.Errorf("exit %+v", e)
			}
			p.Close()
			in.Close()
			r.streamsClosed("tty")
			if got := logged(t, r.logPath("tty"), "stdout"); !strings.HasSuffix(
				got, "got again\r\n",
			) {
				t.Errorf("log %q", got)
			}
			if err := r.Resize(r.ctx(), "tty", 1, 1); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("resize after the end: %v", err)
			}
		})
	}
}

// A terminal that everybody has closed for a while, as a getty does, goes on when somebody opens it
// again.
func TestTTYReopened(t *testing.T) {
	r := newRig(t)
	out := newReader(t)
	r.start(&keeper.StartRequest{
		ID: "tty", Stdio: keeper.Stdio{Mode: keeper.StdioTTY},
		Attach: []keeper.Attachment{{Stdout: out.give}},
		Image: image(t, func(b *program.Builder) {
			terminal(
				b, b.Input("tty"),
				`t=$(tty); trap '' HUP; echo one; exec </dev/null >/dev/null 2>&1
				sleep 0.3; echo two >$t; sleep 0.3; echo three >$t`,
			)
		}),
	})
	if e := r.exit("tty"); e.Code() != 0 {
		t.Errorf("exit %+v", e)
	}
	if got := out.all(t); got != "one\r\ntwo\r\nthree\r\n" {
		t.Errorf("got %q", got)
	}
}

// A process that has ended is reported at once, also when another one keeps its pipes, whose output
// still counts.
func TestGrandchildKeepsPipes(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "exec 3<&0; (read x <&3; echo late) & echo early; exit 3")
	req.Stdio.Stdin = false
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	req.Inputs = map[string]int{"stdin": int(read.Fd())}
	r.start(req)
	read.Close()
	if e := r.exit("a"); e.Code() != 3 {
		t.Errorf("exit %+v", e)
	}
	if got := logged(t, r.logPath("a"), "stdout"); got != "early\n" {
		t.Errorf("log at the exit %q", got)
	}
	r.mu.Lock()
	closed := r.closed["a"]
	r.mu.Unlock()
	if closed {
		t.Error("the streams are said to be closed")
	}
	if _, err := write.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "early\nlate\n" {
		t.Errorf("log %q", got)
	}
}

// TestGrandchildKeepsLine: what a process wrote is in the log when its end is told, also the
// beginning of a line that another process could still continue.
func TestGrandchildKeepsLine(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "exec 3<&0; (read x <&3; echo late) & echo -n early; echo -n err >&2")
	req.Stdio.Stdin = false
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	req.Inputs = map[string]int{"stdin": int(read.Fd())}
	r.start(req)
	read.Close()
	r.exit("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "early" {
		t.Errorf("log at the exit %q", got)
	}
	if got := logged(t, r.logPath("a"), "stderr"); got != "err" {
		t.Errorf("log of errors at the exit %q", got)
	}
	if _, err := write.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	r.streamsClosed("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "earlylate\n" {
		t.Errorf("log %q", got)
	}
}

// TestChannelKeptElsewhere ends a process whose channel to the keeper is still open in another one,
// as a child that is cloned at the same moment has it for a while.
func TestChannelKeptElsewhere(t *testing.T) {
	r := newRig(t)
	img := image(t, func(b *program.Builder) {
		raw := make([]byte, 88) // struct clone_args
		binary.LittleEndian.PutUint64(raw[32:], uint64(unix.SIGCHLD))
		args := b.Bytes(raw)
		pid := b.Call(unix.SYS_CLONE3, args.Ptr(), program.Num(88)).Result()
		parent := b.Label()
		b.If(pid.Value(), ^uint64(0), program.NotEqual, program.Num(0), parent)
		b.Call(
			unix.SYS_NANOSLEEP,
			b.Bytes(binary.LittleEndian.AppendUint64(make([]byte, 0, 16), 2)[:16]).Ptr(),
			program.Num(0),
		)
		b.Exit(program.Num(0))
		b.Place(parent)
		execute(b, "/bin/sh", "sh", "-c", "exit 7")
	})
	r.start(&keeper.StartRequest{ID: "a", Image: img, Stdio: keeper.Stdio{Mode: keeper.StdioPipes}})
	if e := r.exit("a"); e.Code() != 7 {
		t.Errorf("exit %+v, want 7", e)
	}
}

func TestFailedStart(t *testing.T) {
	r := newRig(t)
	before := r.descriptors()
	t.Run("operation", func(t *testing.T) {
		req := r.request("a", "")
		req.Image = image(t, func(b *program.Builder) {
			b.Call(unix.SYS_CHDIR, b.Str("/no/such/directory").Ptr())
		})
		var f *spawn.Failure
		if _, err := r.Client.Start(r.ctx(), req); !errors.As(err, &f) || f.Errno != unix.ENOENT ||
			f.Index < 5 || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v (%+v)", err, f)
		}
	})
	t.Run("killed during set-up", func(t *testing.T) {
		req := r.request("a", "")
		req.Image = image(t, func(b *program.Builder) {
			b.Call(unix.SYS_KILL, program.Num(0), program.Num(0)) // permitted, nothing
			pid := b.Call(unix.SYS_GETPID).Result()
			b.Call(unix.SYS_KILL, pid.Value(), program.Num(uint64(unix.SIGKILL)))
			b.Call(unix.SYS_PPOLL, program.Num(0), program.Num(0), program.Num(0), program.Num(0))
		})
		if _, err := r.Client.Start(r.ctx(), req); !errors.Is(err, keeper.ErrDied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("killed while held", func(t *testing.T) {
		req := r.request("a", "echo no")
		req.Hold = true
		req.Image = image(t, func(b *program.Builder) {
			b.Stage(program.StageHooks)
			b.Await()
			shell(b, "echo no")
		})
		p := r.start(req)
		if p.State != keeper.Held || p.Stage != program.StageHooks {
			t.Fatalf("%+v", p)
		}
		if err := r.Signal(r.ctx(), "a", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := r.exit("a"); e.Code() != 137 {
			t.Errorf("exit %+v", e)
		}
		if _, err := r.Continue(r.ctx(), "a"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("continued: %v", err)
		}
		p.Close()
		r.streamsClosed("a")
		if err := r.Forget(r.ctx(), "a"); err != nil {
			t.Error(err)
		}
	})
	t.Run("missing input", func(t *testing.T) {
		req := r.request("a", "")
		req.Image = image(t, func(b *program.Builder) { b.Call(unix.SYS_CLOSE, b.Input("rootfs")) })
		if _, err := r.Client.Start(r.ctx(), req); !errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), `"rootfs"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no terminal", func(t *testing.T) {
		req := r.request("a", "")
		req.Stdio = keeper.Stdio{Mode: keeper.StdioTTY}
		req.Image = image(t, func(b *program.Builder) {
			execute(b, "/bin/sh", "sh", "-c", "read x")
		})
		if _, err := r.Client.Start(r.ctx(), req); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("image", func(t *testing.T) {
		req := r.request("a", "")
		req.Image = []byte("nonsense")
		if _, err := r.Client.Start(r.ctx(), req); !errdefs.IsInvalidArgument(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("log", func(t *testing.T) {
		req := r.request("a", "exit")
		req.Log.Path = r.dir + "/no/such/log"
		if _, err := r.Client.Start(r.ctx(), req); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
	})
	for _, id := range []string{"", "a/b", "a b", "a\n", strings.Repeat("x", 129)} {
		req := r.request("a", "exit")
		req.ID = id
		if _, err := r.Client.Start(r.ctx(), req); !errdefs.IsInvalidArgument(err) {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if list, err := r.List(r.ctx()); err != nil || len(list) != 0 {
		t.Errorf("left over: %v, %v", list, err)
	}
	if after := r.descriptors(); len(after) != len(before) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
}

func TestHold(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "")
	req.Hold = true
	req.Image = image(t, func(b *program.Builder) {
		b.Stage(program.StageHooks)
		b.Await()
		b.Stage(program.StageReady)
		b.Await()
		shell(b, "echo yes")
	})
	p := r.start(req)
	if p.State != keeper.Held || p.Stage != program.StageHooks || p.Pid <= 0 {
		t.Fatalf("%+v", p)
	}
	if err := r.Forget(r.ctx(), "a"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("forgotten: %v", err)
	}
	for _, want := range []keeper.State{keeper.Held, keeper.Running} {
		next, err := r.Continue(r.ctx(), "a")
		if err != nil || next.State != want || next.Pid != p.Pid {
			t.Fatalf("%+v, %v", next, err)
		}
		next.Close()
	}
	r.exit("a")
	if got := logged(t, r.logPath("a"), "stdout"); got != "yes\n" {
		t.Errorf("log %q", got)
	}
}

// A program that goes on in another process, as it does to enter a PID namespace.
func TestFork(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "")
	req.Image = image(t, func(b *program.Builder) {
		b.Fork(unix.CLONE_NEWPID)
		shell(b, "echo $$; exit 5")
	})
	p := r.start(req)
	if e := r.exit("a"); e.Code() != 5 {
		t.Errorf("exit %+v", e)
	}
	if got := logged(t, r.logPath("a"), "stdout"); got != "1\n" {
		t.Errorf("log %q", got)
	}
	if p.Pid == 1 {
		t.Error("the pid is not the keeper's")
	}
}

func TestCanceledStart(t *testing.T) {
	r := newRig(t)
	before := r.descriptors()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	req := r.request("a", "")
	req.Image = image(t, func(b *program.Builder) { // it hangs in its set-up
		b.Call(unix.SYS_WRITE, b.Input("ready"), b.Str("x").Ptr(), program.Num(1))
		b.Call(unix.SYS_PPOLL, program.Num(0), program.Num(0), program.Num(0), program.Num(0))
	})
	req.Inputs = map[string]int{"ready": int(write.Fd())}
	ctx, cancel := context.WithCancel(r.ctx())
	failed := make(chan error)
	go func() {
		_, err := r.Client.Start(ctx, req)
		failed <- err
	}()
	if _, err := read.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v", err)
	}
	write.Close()
	// All copies are gone when the process is.
	if n, err := read.Read(make([]byte, 1)); n != 0 {
		t.Errorf("read %d, %v", n, err)
	}
	if err := r.Abort(r.ctx(), "a"); err != nil {
		t.Error(err)
	}
	if list, err := r.List(r.ctx()); err != nil || len(list) != 0 {
		t.Errorf("left over: %v, %v", list, err)
	}
	if after := r.descriptors(); len(after) != len(before) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
}

func TestAbort(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "trap '' TERM; read x")
	req.Stdio.Stdin = true
	p := r.start(req)
	if err := r.Abort(r.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	dead(t, p)
	r.start(r.request("a", "exit 4")) // the ID is free
	if e := r.exit("a"); e.Code() != 4 {
		t.Errorf("exit %+v", e)
	}
}

// Nothing of a process remains in the keeper, however it went.
func TestDescriptorLeak(t *testing.T) {
	r := newRig(t)
	// The first process brings the guard.
	r.start(r.request("first", "exit 0"))
	r.exit("first")
	r.streamsClosed("first")
	if err := r.Forget(r.ctx(), "first"); err != nil {
		t.Fatal(err)
	}
	before := r.descriptors()
	for range 3 {
		var ids []string
		for _, id := range []string{"a", "b", "c", "d"} {
			out := newReader(t)
			req := r.request(id, "cat; echo x")
			req.Stdio.Stdin = true
			req.Attach = []keeper.Attachment{{Stdout: out.give, Stderr: out.give}}
			p := r.start(req)
			p.Close()
			if err := r.CloseStdin(r.ctx(), id); err != nil {
				t.Error(err)
			}
			out.all(t)
			ids = append(ids, id)
		}
		for _, id := range ids {
			r.exit(id)
			r.streamsClosed(id)
			if err := r.Forget(r.ctx(), id); err != nil {
				t.Error(err)
			}
			r.mu.Lock()
			delete(r.exits, id)
			delete(r.closed, id)
			r.mu.Unlock()
		}
	}
	if after := r.descriptors(); !slices.Equal(before, after) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
}
