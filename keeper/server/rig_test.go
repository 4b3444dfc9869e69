package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/keeper"
)

// The test binary is the keeper, when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		os.Exit(Main(os.Args[:2], os.Args[2:], os.Environ()))
	}
	os.Exit(m.Run())
}

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

// rig is a keeper in a process of its own and a connection to it.
type rig struct {
	t       testing.TB
	dir     string
	launch  keeper.Launch
	process *os.Process
	*keeper.Client

	mu       sync.Mutex
	changed  *sync.Cond
	exits    map[string]keeper.Exit
	owners   map[string]string
	closed   map[string]bool
	detached map[uint64]uint64
	logs     []keeper.LogEvent
	reader   sync.WaitGroup
}

func newRig(t testing.TB, args ...string) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: PR_SET_MM_MAP")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, dir: t.TempDir(), exits: map[string]keeper.Exit{}, owners: map[string]string{},
		closed: map[string]bool{}, detached: map[uint64]uint64{},
	}
	r.changed = sync.NewCond(&r.mu)
	r.launch = keeper.Launch{
		Command: append([]string{exe, "keeper"}, args...), Socket: r.dir + "/run/keeper.sock",
		StateDir: r.dir + "/state", LogFile: r.dir + "/keeper.log",
		Environ: os.Environ(),
	}
	r.begin()
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(r.launch.LogFile)
			t.Logf("keeper's log:\n%s", text)
		}
		r.end()
	})
	return r
}

// begin starts a keeper and connects.
func (r *rig) begin() {
	r.t.Helper()
	p, err := keeper.StartProcess(&r.launch)
	if err != nil {
		r.t.Fatal(err)
	}
	r.process = p
	r.connect()
}

func (r *rig) connect() {
	r.t.Helper()
	c, err := keeper.Dial(r.ctx(), r.launch.Socket, keeper.WithEvents)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Client = c
	r.reader.Go(func() { r.readEvents(c) })
}

func (r *rig) readEvents(c *keeper.Client) {
	for {
		e, err := c.Next(context.Background())
		if err != nil {
			return
		}
		r.mu.Lock()
		switch e := e.(type) {
		case *keeper.ExitEvent:
			r.exits[e.ID], r.owners[e.ID] = e.Exit, e.Owner
		case *keeper.StreamsClosedEvent:
			r.closed[e.ID] = true
		case *keeper.DetachedEvent:
			r.detached[e.Subscription] = e.Lost
		case *keeper.LogEvent:
			r.logs = append(r.logs, *e)
		}
		r.changed.Broadcast()
		r.mu.Unlock()
	}
}

func (r *rig) disconnect() {
	r.Client.Close()
	r.reader.Wait()
}

// end ends everything.
func (r *rig) end() {
	if r.process == nil {
		return
	}
	if err := r.Shutdown(r.ctx(), keeper.KillAll); err != nil {
		r.t.Errorf("shutdown: %v", err)
		r.process.Kill()
	}
	r.disconnect()
	st, err := r.process.Wait()
	if err != nil || !st.Success() {
		r.t.Errorf("keeper ended with %v, %v", st, err)
	}
	r.process = nil
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

// until waits for a condition on what the events have told.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	late := time.AfterFunc(patience, func() { r.changed.Broadcast() })
	defer late.Stop()
	deadline := time.Now().Add(patience)
	r.mu.Lock()
	defer r.mu.Unlock()
	for !cond() {
		if !time.Now().Before(deadline) {
			r.t.Fatalf("%s: not within %v", what, patience)
		}
		r.changed.Wait()
	}
}

func (r *rig) exit(id string) keeper.Exit {
	r.t.Helper()
	r.until("exit of "+id, func() bool { _, ok := r.exits[id]; return ok })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.exits[id]
}

// owner is the owner that the exit event of a process named.
func (r *rig) owner(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owners[id]
}

func (r *rig) streamsClosed(id string) {
	r.t.Helper()
	r.until("end of the streams of "+id, func() bool { return r.closed[id] })
}

func (r *rig) start(req *keeper.StartRequest) *keeper.Process {
	r.t.Helper()
	p, err := r.Client.Start(r.ctx(), req)
	if err != nil {
		r.t.Fatalf("start: %v", err)
	}
	r.t.Cleanup(p.Close)
	return p
}

func (r *rig) logPath(id string) string { return filepath.Join(r.dir, id+".log") }

// request asks for a shell script with pipes and a log.
func (r *rig) request(id, script string) *keeper.StartRequest {
	return &keeper.StartRequest{
		ID: id, Image: image(r.t, func(b *program.Builder) { shell(b, script) }),
		Stdio: keeper.Stdio{Mode: keeper.StdioPipes},
		Log:   keeper.LogConfig{Driver: keeper.LogJSONFile, Path: r.logPath(id)},
	}
}

func image(t testing.TB, build func(b *program.Builder)) []byte {
	t.Helper()
	var b program.Builder
	b.Isolate()
	build(&b)
	p, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p.Encode()
}

var environment = []string{"PATH=/usr/bin:/bin", "HOME=/"}

func shell(b *program.Builder, script string) {
	b.Field("stdio")
	b.Call(unix.SYS_SETSID)
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		b.Call(unix.SYS_DUP3, b.Input(name), program.Num(i), program.Num(0))
	}
	execute(b, "/bin/sh", "sh", "-c", script)
}

func execute(b *program.Builder, path string, args ...string) {
	b.Field("process.args")
	none := b.Room(8)
	b.Call(
		unix.SYS_RT_SIGPROCMASK, program.Num(unix.SIG_SETMASK), none.Ptr(), program.Num(0),
		program.Num(8),
	)
	b.Call(unix.SYS_EXECVE, b.Str(path).Ptr(), b.Strs(args).Ptr(), b.Strs(environment).Ptr())
}

type logRecord struct {
	Log, Stream string
	Time        time.Time
}

func logRecords(t testing.TB, path string) []logRecord {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []logRecord
	for line := range bytes.Lines(text) {
		var rec logRecord
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		list = append(list, rec)
	}
	return list
}

// logged joins what a stream has logged.
func logged(t testing.TB, path, stream string) string {
	var b strings.Builder
	for _, rec := range logRecords(t, path) {
		if rec.Stream == stream {
			b.WriteString(rec.Log)
		}
	}
	return b.String()
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// reader collects what a subscriber gets.
type reader struct {
	// give goes to the keeper.
	give *os.File
	done chan struct{}
	text bytes.Buffer // valid when done is closed
}

func newReader(t testing.TB) *reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := &reader{give: w, done: make(chan struct{})}
	t.Cleanup(func() { w.Close(); r.Close() })
	go func() {
		defer close(k.done)
		io.Copy(&k.text, r)
	}()
	return k
}

// all closes the test's own writing end and returns what came until the keeper closed its.
func (k *reader) all(t testing.TB) string {
	t.Helper()
	k.give.Close()
	select {
	case <-k.done:
	case <-time.After(patience):
		t.Fatal("the subscription does not end")
	}
	return k.text.String()
}

// descriptors lists the keeper's descriptors.
func (r *rig) descriptors() []string {
	r.t.Helper()
	// What came with a request that was refused is closed right after the answer, and before the
	// next request.
	list, err := r.List(r.ctx())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range list {
		p.Close()
	}
	dir := fmt.Sprintf("/proc/%d/fd", r.Pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			r.t.Fatal(err)
		}
		out = append(out, e.Name()+" "+target)
	}
	slices.Sort(out)
	return out
}

// dead waits for the end of the process of a pidfd without reaping.
func dead(t testing.TB, p *keeper.Process) {
	t.Helper()
	err := p.WithPidFD(func(fd int) error {
		events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(events, int(patience/time.Millisecond))
			if err == nil && n == 0 {
				return errors.New("it does not end")
			} else if err != unix.EINTR {
				return err
			}
		}
	})
	if err != nil {
		t.Fatalf("process %s: %v", p.ID, err)
	}
}
