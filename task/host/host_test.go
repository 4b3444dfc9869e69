package host

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/testneed"
	"strake/keeper"
	"strake/keeper/server"
	"strake/task"
	"strake/task/tasktest"
)

// The test binary is the keeper, when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		os.Exit(server.Main(os.Args[:2], os.Args[2:], os.Environ()))
	}
	os.Exit(m.Run())
}

// bench is a keeper of the test's own with a root file system of busybox.
type bench struct {
	t     *testing.T
	dir   string
	ended chan struct{} // closed when the newest keeper has ended; nil: there was none
}

func newBench(t *testing.T) *bench {
	t.Helper()
	testneed.Root(t, "makes namespaces and mounts")
	testneed.File(t, "/bin/busybox", "busybox-static")
	// Socket paths are short by nature (unix(7)), names of test directories are not.
	dir, err := os.MkdirTemp("", "strake-th-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir}
	t.Cleanup(b.close)
	for _, d := range []string{"root/bin", "root/etc", "root/proc", "root/dev", "root/sys"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("root/bin/busybox"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "sleep", "echo", "hostname", "id", "stat"} {
		if err := os.Symlink("busybox", b.path("root/bin/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(b.path("root/etc/motd"), []byte("welcome\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// connect connects to the keeper and starts it if there is none.
func (b *bench) connect(ctx context.Context) (Keeper, error) {
	socket := b.path("keeper.sock")
	c, err := keeper.Dial(ctx, socket, keeper.WithEvents)
	if err == nil {
		return c, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := keeper.StartProcess(&keeper.Launch{
		Command: []string{exe, "keeper"}, Socket: socket, StateDir: b.path("keeper"),
		LogFile: b.path("keeper.log"),
		// A test binary may have a C library, whose restartable sequences a raw child would
		// inherit.
		Environ: append(os.Environ(), "GLIBC_TUNABLES=glibc.pthread.rseq=0"),
	})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	b.ended = ended
	go func() {
		defer close(ended)
		p.Wait()
	}()
	return keeper.Dial(ctx, socket, keeper.WithEvents)
}

func (b *bench) open() *Host {
	b.t.Helper()
	h, err := Open(b.t.Context(), Config{Connect: b.connect})
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

func (b *bench) close() {
	if b.t.Failed() {
		raw, _ := os.ReadFile(b.path("keeper.log"))
		b.t.Logf("log of the keeper:\n%s", raw)
	}
	if c, err := keeper.Dial(context.Background(), b.path("keeper.sock"), keeper.WithoutEvents); err == nil {
		c.Shutdown(context.Background(), keeper.KillAll)
		c.Close()
		if b.ended != nil {
			<-b.ended // it writes to its directory until then
		}
	}
	os.RemoveAll(b.dir)
}

// scripted runs a script of the suite.
func scripted(script string) *specs.Process {
	words := strings.Split(script, "; ")
	for i, w := range words {
		if w == "sleep" {
			words[i] = "sleep 1000"
		}
	}
	return &specs.Process{
		Args: []string{"/bin/sh", "-c", strings.Join(words, "; ")}, Cwd: "/",
		Env: []string{"PATH=/bin"},
	}
}

// config is that of a task whose root is a plain directory.
func (b *bench) config(p *specs.Process) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Process: p, Root: &specs.Root{Path: b.path("root")},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace},
		}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
	}
}

// TestSuite: tasks of this host pass the suite of every implementation.
func TestSuite(t *testing.T) {
	var b *bench
	name := ""
	tasktest.Run(t, tasktest.Config{
		Open: func(t *testing.T) (task.Isolation, func()) {
			if name != t.Name() {
				b, name = newBench(t), t.Name()
			}
			h := b.open()
			return h, func() { h.Close() }
		},
		Spec: func(t *testing.T, id, script string) *task.Spec {
			return &task.Spec{ID: id, Config: b.config(scripted(script))}
		},
		Missing: func(t *testing.T, id string) *task.Spec {
			p := scripted("")
			p.Args = []string{"/bin/nonesuch"}
			return &task.Spec{ID: id, Config: b.config(p)}
		},
		Exec: func(t *testing.T, id, script string) *task.Exec {
			p := scripted(script)
			return &task.Exec{ID: id, Process: p, Config: b.config(p)}
		},
	})
}

// output starts a task, waits for its end and returns what it has said.
func output(t *testing.T, h *Host, s *task.Spec) (string, task.Exit) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.Outputs = []task.Output{{Stdout: w, Stderr: w}}
	p, err := h.Start(t.Context(), s)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := task.Wait(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	return string(text), exit
}

// TestShapes: a task may be a group and a process on the host's file system, may have mappings of
// its own, and may hold namespaces and execute nothing.
func TestShapes(t *testing.T) {
	b := newBench(t)
	h := b.open()
	defer h.Close()
	t.Run("no root and no mount namespace", func(t *testing.T) {
		p := scripted("")
		p.Args = []string{"/bin/busybox", "stat", "-c", "%n", b.path("root/etc/motd")}
		text, exit := output(t, h, &task.Spec{
			ID: "bare", Owner: "lmctfy", Config: &specs.Spec{Version: specs.Version, Process: p},
		})
		if text != b.path("root/etc/motd")+"\n" || exit.Code != 0 {
			t.Errorf("got %q, %+v", text, exit)
		}
	})
	t.Run("mappings", func(t *testing.T) {
		cfg := b.config(scripted("cat /proc/self/uid_map; id -u"))
		cfg.Linux.Namespaces = append(
			cfg.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
		)
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		cfg.Linux.UIDMappings, cfg.Linux.GIDMappings = m, m
		// The root belongs to the container's root, and others may pass.
		err := filepath.WalkDir(b.path("root"), func(p string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(p, 100000, 100000)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(b.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text, exit := output(t, h, &task.Spec{ID: "mapped", Owner: "lxc", Config: cfg})
		if f := strings.Fields(text); len(f) != 4 || f[1] != "100000" || f[3] != "0" {
			t.Errorf("got %q, %+v", text, exit)
		}
	})
	t.Run("a holder", func(t *testing.T) {
		cfg := &specs.Spec{
			Version: specs.Version, Hostname: "held",
			Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
				{Type: specs.UTSNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
			}},
		}
		holder, err := h.Start(t.Context(), &task.Spec{ID: "hold", Owner: "cri", Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Abort(context.Background(), "hold")
		member := b.config(scripted("hostname; echo $$"))
		for i, ns := range member.Linux.Namespaces {
			if ns.Type == specs.MountNamespace {
				continue
			}
			f, err := holder.Namespace(ns.Type)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			member.Linux.Namespaces[i].Path = "/proc/self/fd/" + fd(f)
		}
		for range 2 {
			text, exit := output(t, h, &task.Spec{ID: "member", Owner: "cri", Config: member})
			// PID 1 of the namespace is the holder.
			name, pid, _ := strings.Cut(text, "\n")
			if name != "held" || pid == "1\n" || exit.Code != 0 {
				t.Errorf("got %q, %+v, want the holder's host name and not PID 1", text, exit)
			}
		}
		if err := holder.Signal(0); err != nil {
			t.Errorf("the holder has ended with its members: %v", err)
		}
	})
}

func fd(f *os.File) string { return strconv.Itoa(int(f.Fd())) }

// TestKeeperKilled: a Host whose keeper is killed goes on with the next one: tasks run, their
// output is logged without a gap, their exit is known, and new ones start.
func TestKeeperKilled(t *testing.T) {
	b := newBench(t)
	h := b.open()
	defer h.Close()
	log := b.path("writer.log")
	s := &task.Spec{
		ID: "writer", Owner: "test", Config: b.config(scripted("cat; exit 7")), Stdin: true,
		Log: task.Log{Format: task.JSONFile, Path: log},
	}
	w, err := h.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	in, err := w.Input()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for i := range 5 {
		if _, err := in.WriteString("line " + strconv.Itoa(i) + "\n"); err != nil {
			t.Fatal(err)
		}
		before := h.KeeperPid()
		if err := unix.Kill(before, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// A start that the dead keeper does not answer any more is asked of the next one.
		text, exit := output(t, h, &task.Spec{
			ID: "short", Owner: "test", Config: b.config(scripted("echo short; exit 3")),
		})
		if text != "short\n" || exit.Code != 3 || exit.Unknown {
			t.Errorf("round %d: got %q, %+v", i, text, exit)
		}
		if h.KeeperPid() == before {
			t.Errorf("round %d: the keeper is still %d", i, before)
		}
	}
	in.Close()
	if err := w.CloseInput(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := task.Wait(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	if exit.Code != 7 || exit.Unknown {
		t.Errorf("exit %+v, want code 7", exit)
	}
	<-w.Drained()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if n := bytes.Count(raw, []byte("line "+strconv.Itoa(i)+`\n`)); n != 1 {
			t.Errorf("line %d is in the log %d times, want once:\n%s", i, n, raw)
		}
	}
}
