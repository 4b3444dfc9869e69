package supervisor

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/ocispec"
	"strake/image"
	"strake/keeper"
	"strake/keeper/server"
	"strake/network/place"
	"strake/sandbox"
	"strake/task"
	"strake/task/host"
)

// Tests with real containers: the image store, the keeper and the kernel are the real ones; the
// tests' own keeper is this binary.

// The test binary is the keeper, when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		os.Exit(server.Main(os.Args[:2], os.Args[2:], os.Environ()))
	}
	os.Exit(m.Run())
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces and mounts")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox, from which the image is made")
	}
}

// bed is a host for engines: directories, an image store, a keeper.
type bed struct {
	t        testing.TB
	root     string
	images   *image.Store
	keeperMu sync.Mutex
	keeper   *os.Process
	groups   task.Groups
	network  Network
	hosts    []*host.Host
	engines  []*Engine
}

func newBed(t testing.TB) *bed {
	t.Helper()
	needRoot(t)
	b := &bed{t: t, root: t.TempDir(), groups: noGroups{}, network: noNetwork{}}
	b.openImages()
	t.Cleanup(b.close)
	if _, err := b.images.Import(
		t.Context(), bytes.NewReader(busyboxTree(t)), image.ImportOptions{Ref: "box"},
	); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) openImages() {
	var err error
	if b.images, err = image.Open(image.Config{Root: filepath.Join(b.root, "images")}); err != nil {
		b.t.Fatal(err)
	}
}

// busyboxTree is a root file system of the host's static busybox.
func busyboxTree(t testing.TB) []byte {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "root", "data"} {
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	for _, a := range []string{
		"sh", "cat", "echo", "true", "false", "sleep", "id", "ls", "env", "hostname", "mount",
		"kill", "head", "yes", "stty", "touch", "test", "ps", "wc",
	} {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(
		tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n"),
	)
	add(
		tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644},
		[]byte("root:x:0:\napp:x:1235:\nvideo:x:44:app\n"),
	)
	add(
		tar.Header{Name: "data/seed", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 1234, Gid: 1235},
		[]byte("from the image\n"),
	)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (b *bed) socket() string { return filepath.Join(b.root, "run", "keeper.sock") }

// dial connects to the bed's keeper and starts it if there is none.
func (b *bed) dial(ctx context.Context) (host.Keeper, error) {
	b.keeperMu.Lock()
	defer b.keeperMu.Unlock()
	c, err := keeper.Dial(ctx, b.socket(), keeper.WithEvents)
	if err == nil {
		return c, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b.keeper, err = keeper.StartProcess(&keeper.Launch{
		Command: []string{exe, "keeper"}, Socket: b.socket(),
		StateDir: filepath.Join(b.root, "keeper"), LogFile: filepath.Join(b.root, "keeper.log"),
		// A test binary may have a C library, whose restartable sequences a raw child would
		// inherit.
		Environ: append(os.Environ(), "GLIBC_TUNABLES=glibc.pthread.rseq=0"),
	})
	if err != nil {
		return nil, err
	}
	return keeper.Dial(ctx, b.socket(), keeper.WithEvents)
}

// open starts an engine.
func (b *bed) open(change ...func(*Config)) *Engine {
	b.t.Helper()
	e, err := b.tryOpen(change...)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func (b *bed) tryOpen(change ...func(*Config)) (*Engine, error) {
	log := slog.New(slog.NewTextHandler(testWriter{b.t}, nil))
	target := filepath.Join(b.root, "rootfs")
	if err := os.MkdirAll(target, 0o700); err != nil {
		b.t.Fatal(err)
	}
	h, err := host.Open(b.t.Context(), host.Config{
		Connect: b.dial, OverlayTarget: target, Groups: b.groups,
		Log: log,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.hosts = append(b.hosts, h)
	sandboxes, err := sandbox.Open(sandbox.Config{
		Root: filepath.Join(b.root, "data"), Run: filepath.Join(b.root, "run"),
		Network: b.network, Tasks: h, Log: log,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := Config{
		Root: filepath.Join(b.root, "data"), Run: filepath.Join(b.root, "run"), Images: b.images,
		Network: b.network, Groups: b.groups, Tasks: h, Sandboxes: sandboxes, Log: log,
	}
	for _, f := range change {
		f(&cfg)
	}
	e, err := Open(context.Background(), cfg)
	if err == nil {
		b.engines = append(b.engines, e)
	}
	return e, err
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	fmt.Fprint(os.Stderr, w.t.Name()+": "+string(p))
	return len(p), nil
}

// close ends everything on the bed.
func (b *bed) close() {
	for _, e := range b.engines {
		e.Close()
	}
	for _, h := range b.hosts {
		h.Close()
	}
	if c, err := b.dial(context.Background()); err == nil {
		c.Shutdown(context.Background(), keeper.KillAll)
		c.Close()
	}
	if b.keeper != nil {
		b.keeper.Kill()
		b.keeper.Wait()
	}
	b.images.Close()
}

// noGroups and noNetwork stand for neighbours whose own tests are elsewhere.
type noGroups struct{}

func (noGroups) Enforced(*specs.LinuxResources) []string { return nil }

func (noGroups) Create(
	context.Context, string, string, *specs.LinuxResources,
) (task.Group, error) {
	return task.NoGroup{}, nil
}
func (noGroups) Path(parent, name string) (string, error) {
	return path.Join("/", parent, name), nil
}
func (noGroups) At(string) (task.Group, error) { return task.NoGroup{}, nil }
func (noGroups) Sweep(context.Context, func(name string) bool) error {
	return nil
}

type noNetwork struct{}

func (noNetwork) Attach(ctx context.Context, req *place.Request) (*place.Place, error) {
	return &place.Place{
		Hosts: []byte("127.0.0.1 localhost\n"), ResolvConf: []byte("nameserver 192.0.2.1\n"),
	}, nil
}
func (noNetwork) Detach(context.Context, string) error { return nil }
func (noNetwork) Reconcile(context.Context, string, map[string]place.Live) error {
	return nil
}
func (noNetwork) Spoil(string)                             {}
func (noNetwork) Disconnect(context.Context, string) error { return nil }
func (noNetwork) Connect(context.Context, *place.Request, string) (place.Endpoint, error) {
	return place.Endpoint{}, nil
}
func (noNetwork) HostFiles(*place.Request, bool) ([]byte, []byte, error) {
	return []byte("127.0.0.1 localhost\n"), nil, nil
}

// execute creates and starts a container and waits for its end.
func execute(t testing.TB, e *Engine, spec engine.Spec) (id string, code int, output string) {
	t.Helper()
	if spec.Image == "" {
		spec.Image = "box"
	}
	id, _, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	attached := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		attached <- e.Attach(
			t.Context(), id,
			engine.AttachOptions{
				Streams: engine.Streams{Stdout: &out, Stderr: &out}, Stream: true,
				Attached: func() { close(ready) },
			},
		)
	}()
	<-ready
	exit := make(chan engine.ExitStatus, 1)
	waiting := make(chan struct{})
	go func() {
		st, err := e.Wait(t.Context(), id, engine.WaitNextExit, func() { close(waiting) })
		if err != nil {
			t.Error(err)
		}
		exit <- st
	}()
	<-waiting
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	select {
	case st := <-exit:
		if err := <-attached; err != nil {
			t.Fatal(err)
		}
		return id, st.Code, out.String()
	case <-time.After(20 * time.Second):
		t.Fatalf("container %s does not end", id)
	}
	return
}

func ownLimit(t *testing.T) uint64 {
	t.Helper()
	n, err := ocispec.OpenFilesLimit()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLive(t *testing.T) {
	b := newBed(t)
	e := b.open()
	for _, tt := range []struct {
		name string
		spec engine.Spec
		code int
		want string
	}{
		{"output", engine.Spec{Cmd: []string{"echo", "hello"}}, 0, "hello\n"},
		{"exit code", engine.Spec{Cmd: []string{"sh", "-c", "exit 7"}}, 7, ""},
		{"both streams", engine.Spec{Cmd: []string{"sh", "-c", "echo a; echo b >&2"}}, 0, "a\nb\n"},
		{"signal", engine.Spec{Cmd: []string{"sh", "-c", "kill -9 $$"}, Init: true}, 137, ""},
		{
			"user", engine.Spec{Cmd: []string{"sh", "-c", "id -u; id -g; id -G; echo $HOME"}, User: "app"},
			0, "1234\n1235\n1235 44\n/srv/app\n",
		},
		{
			"host name",
			engine.Spec{Cmd: []string{"sh", "-c", "hostname; cat /etc/hostname"}, Hostname: "box1"}, 0,
			"box1\nbox1\n",
		},
		{
			"limit of open files", engine.Spec{Cmd: []string{"sh", "-c", "ulimit -Sn; ulimit -Hn"}}, 0,
			fmt.Sprintf("1024\n%d\n", min(524288, ownLimit(t))),
		},
		{
			"limit of open files of its own",
			engine.Spec{
				Cmd:     []string{"sh", "-c", "ulimit -Sn; ulimit -Hn"},
				Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}},
			},
			0, "64\n128\n",
		},
		{
			"environment", engine.Spec{Cmd: []string{"sh", "-c", "echo $A$HOME"}, Env: []string{"A=1"}}, 0,
			"1/root\n",
		},
		{
			"read-only root",
			engine.Spec{
				Cmd:            []string{"sh", "-c", "touch /x 2>/dev/null || echo refused"},
				ReadonlyRootfs: true,
			},
			0, "refused\n",
		},
		{
			"working directory", engine.Spec{Cmd: []string{"sh", "-c", "pwd"}, WorkingDir: "/made/here"},
			0, "/made/here\n",
		},
		{
			"tmpfs",
			engine.Spec{
				Cmd:   []string{"sh", "-c", "touch /t/x && ls /t"},
				Tmpfs: map[string]string{"/t": "size=1m"},
			},
			0, "x\n",
		},
		{
			"volume filled from the image",
			engine.Spec{Cmd: []string{"cat", "/data/seed"}, Volumes: []string{"/data"}}, 0,
			"from the image\n",
		},
		{
			"terminal", engine.Spec{Cmd: []string{"sh", "-c", "test -t 0 && echo tty"}, TTY: true}, 0,
			"tty\r\n",
		},
		{
			"size of a terminal",
			engine.Spec{
				Cmd: []string{"stty", "size"}, TTY: true,
				ConsoleSize: &engine.ConsoleSize{Width: 132, Height: 43},
			},
			0, "43 132\r\n",
		},
		{"pid 1 reaper", engine.Spec{Cmd: []string{"sh", "-c", "echo $$"}, Init: true}, 0, "2\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, code, out := execute(t, e, tt.spec)
			if code != tt.code || out != tt.want {
				t.Errorf("got %d %q, want %d %q", code, out, tt.code, tt.want)
			}
			in, err := e.Inspect(t.Context(), id)
			if err != nil || in.State.Status != engine.Exited || in.State.ExitCode != tt.code {
				t.Errorf("state %+v %v", in.State, err)
			}
			var logged strings.Builder
			err = e.Logs(t.Context(), id, engine.LogOptions{
				Stdout: true, Stderr: true, Tail: -1,
			}, func(l engine.LogLine) error {
				logged.Write(l.Line)
				return nil
			})
			if err != nil || logged.String() != tt.want {
				t.Errorf("log %q %v", logged.String(), err)
			}
			if err := e.Remove(t.Context(), id, engine.RemoveOptions{Volumes: true}); err != nil {
				t.Error(err)
			}
		})
	}
	if n := len(e.volumes.List()); n != 0 {
		t.Errorf("%d volumes are left", n)
	}
}

func TestLiveExecErrors(t *testing.T) {
	b := newBed(t)
	e := b.open()
	for _, tt := range []struct {
		name string
		cmd  string
		code int
	}{
		{"not found", "nonesuch", 127}, {"no such path", "/nonesuch", 127},
		{"empty", "", 127}, {"not executable", "/etc/passwd", 126}, {"a directory", "/etc", 126},
	} {
		id, _, err := e.Create(t.Context(), engine.Spec{Image: "box", Cmd: []string{tt.cmd}})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Start(t.Context(), id)
		var xe *engine.ExecError
		if !errors.As(err, &xe) || xe.Code != tt.code || !strings.Contains(err.Error(), tt.cmd) {
			t.Errorf("%s: %v, want an ExecError with code %d", tt.name, err, tt.code)
		}
		in, err := e.Inspect(t.Context(), id)
		if err != nil || in.State.Status != engine.Created || in.State.ExitCode != tt.code ||
			in.State.Error == "" {
			t.Errorf("%s: state %+v %v", tt.name, in.State, err)
		}
	}
}

// The terminal of an exec has the size that its start names, else the one that its creation names.
func TestLiveExecSize(t *testing.T) {
	b := newBed(t)
	e := b.open()
	box, _, err := e.Create(t.Context(), engine.Spec{Image: "box", Cmd: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), box); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		size *[2]uint16
		want string
	}{{nil, "43 132\r\n"}, {&[2]uint16{80, 24}, "24 80\r\n"}} {
		id, err := e.ExecCreate(t.Context(), box, engine.ExecSpec{
			Args: []string{"stty", "size"}, TTY: true,
			ConsoleSize: &engine.ConsoleSize{Width: 132, Height: 43},
		})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		streams := engine.Streams{Stdout: &out}
		if err := e.ExecStart(t.Context(), id, streams, tt.size, false); err != nil {
			t.Fatal(err)
		}
		if out.String() != tt.want {
			t.Errorf("started with %v: %q, want %q", tt.size, out.String(), tt.want)
		}
	}
}
