package tasktest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/task"
)

// Machine is where the tasks of Fakes run: what stays when a Fake is closed.
type Machine struct {
	mu    sync.Mutex
	procs map[string]*fakeProcess // guarded by mu; by ID
	pids  int                     // guarded by mu
}

// NewMachine makes a machine without tasks.
func NewMachine() *Machine { return &Machine{procs: map[string]*fakeProcess{}} }

// Fake is a task.Isolation in memory: its processes are goroutines that interpret the scripts of
// the suite, which are the last argument of their command.
type Fake struct {
	m     *Machine
	mu    sync.Mutex
	found map[string]bool // guarded by mu
}

// NewFake starts a Fake on a machine and finds the tasks of those before it.
func NewFake(m *Machine) *Fake {
	f := &Fake{m: m, found: map[string]bool{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.procs {
		f.found[id] = true
	}
	return f
}

// fakeProcess implements task.Task.
type fakeProcess struct {
	m       *Machine
	id      string
	owner   string
	of      string
	pid     int
	started time.Time
	kill    chan syscall.Signal
	done    chan struct{}
	drained chan struct{}
	command []string // what is executed at the end
	input   *os.File // the reading end
	feed    *os.File // the writing end

	mu      sync.Mutex
	exit    *task.Exit      // guarded by mu
	exited  func(task.Exit) // guarded by mu
	log     *os.File        // guarded by mu
	path    string
	outs    []task.Output       // guarded by mu
	files   []*os.File          // guarded by mu; duplicates that outs refers to
	frozen  bool                // guarded by mu
	aborted bool                // guarded by mu
	kept    map[string]*os.File // guarded by mu; nil when it is deleted
	late    []syscall.Signal    // guarded by mu; sent while it is frozen
}

var _ task.Isolation = (*Fake)(nil)

// Close ends the Fake; its tasks go on.
func (f *Fake) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for _, p := range f.m.procs {
		p.mu.Lock()
		p.exited = nil
		p.mu.Unlock()
	}
	return nil
}

// Start implements task.Isolation.
func (f *Fake) Start(ctx context.Context, s *task.Spec) (task.Task, error) {
	p := &fakeProcess{id: s.ID, owner: s.Owner, exited: s.Exited, path: s.Log.Path}
	if p.command = s.EndCommand; len(p.command) > 0 && !filepath.IsAbs(p.command[0]) {
		return nil, fmt.Errorf("endCommand %q: %w", p.command, errdefs.ErrInvalidArgument)
	}
	if err := p.keep(s.Keep); err != nil {
		return nil, err
	}
	if err := f.m.launch(p, s.Config.Process.Args, s.Stdin, s.Outputs); err != nil {
		p.closeKept()
		return nil, err
	}
	return p, nil
}

// launch starts the goroutine of a process.
func (m *Machine) launch(p *fakeProcess, args []string, stdin bool, outs []task.Output) error {
	if args[0] != "/bin/sh" {
		return &task.StartError{
			Code: 127, Exec: true, Errno: syscall.ENOENT, Err: errors.New("no such program"),
		}
	}
	p.m, p.started = m, time.Now()
	p.kill, p.done = make(chan syscall.Signal, 8), make(chan struct{})
	p.drained = make(chan struct{})
	var err error
	if stdin {
		if p.input, p.feed, err = os.Pipe(); err != nil {
			return err
		}
	}
	if p.path != "" {
		if err := p.openLog(); err != nil {
			return err
		}
	}
	for _, o := range outs {
		if err := p.subscribe(o); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.procs[p.id] != nil {
		return fmt.Errorf("%q: %w", p.id, errdefs.ErrAlreadyExists)
	}
	m.pids++
	p.pid = m.pids
	m.procs[p.id] = p
	go p.interpret(args[len(args)-1])
	return nil
}

// interpret runs a script.
func (p *fakeProcess) interpret(script string) {
	code := 0
	for command := range strings.SplitSeq(script, "; ") {
		name, rest, _ := strings.Cut(command, " ")
		switch name {
		case "echo":
			p.print(rest + "\n")
		case "exit":
			code, _ = strconv.Atoi(rest)
		case "cat":
			code = p.cat()
		case "sleep":
			code = 128 + int(<-p.kill)
		}
	}
	p.end(code)
}

func (p *fakeProcess) cat() int {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sc := bufio.NewReader(p.input); ; {
			line, err := sc.ReadString('\n')
			if line != "" {
				p.print(line)
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case <-ended:
		return 0
	case sig := <-p.kill:
		return 128 + int(sig)
	}
}

// print gives text to the log and the subscribers.
func (p *fakeProcess) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		line, _ := json.Marshal(map[string]string{
			"log": text, "stream": "stdout", "time": time.Now().UTC().Format(time.RFC3339Nano),
		})
		p.log.Write(append(line, '\n'))
	}
	for _, o := range p.outs {
		if o.Stdout != nil {
			io.WriteString(o.Stdout, text)
		}
	}
}

func (p *fakeProcess) end(code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exit = &task.Exit{Code: code, Time: time.Now()}
	for _, f := range p.files {
		f.Close()
	}
	if p.log != nil {
		p.log.Close()
	}
	p.outs, p.files, p.log = nil, nil, nil
	close(p.drained)
	close(p.done)
	if p.exited != nil {
		go p.exited(*p.exit)
	}
	if p.command != nil && !p.aborted {
		c := exec.Command(p.command[0], p.command[1:]...)
		c.Dir, c.Env = "/", []string{"PATH=/usr/bin:/bin"}
		go c.Run()
	}
}

// subscribe keeps duplicates of an output's files.
func (p *fakeProcess) subscribe(o task.Output) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range []**os.File{&o.Stdout, &o.Stderr} {
		if *f == nil {
			continue
		}
		fd, err := syscall.Dup(int((*f).Fd()))
		if err != nil {
			return err
		}
		*f = os.NewFile(uintptr(fd), "output")
		p.files = append(p.files, *f)
	}
	p.outs = append(p.outs, o)
	return nil
}

func (p *fakeProcess) openLog() error {
	f, err := os.OpenFile(p.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		p.log.Close()
	}
	p.log = f
	return nil
}

// Adopt implements task.Isolation.
func (f *Fake) Adopt(
	ctx context.Context, rec task.Record, exited func(task.Exit),
) (task.Task, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.m.procs[rec.ID]
	if p == nil || !f.found[rec.ID] || p.owner != rec.Owner || p.of != "" {
		return nil, fmt.Errorf("task %q: %w", rec.ID, errdefs.ErrNotFound)
	}
	delete(f.found, rec.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exited = exited
	if p.exit != nil && exited != nil {
		go exited(*p.exit)
	}
	return p, nil
}

// Found implements task.Isolation.
func (f *Fake) Found(owner string) []task.Found {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []task.Found
	for id := range f.found {
		if p := f.m.procs[id]; p != nil && p.owner == owner {
			out = append(out, task.Found{
				ID: id, Owner: owner, Exec: p.of != "", Of: p.of, Pid: p.pid, Ended: p.ended(),
			})
		}
	}
	return out
}

// Abort implements task.Isolation.
func (f *Fake) Abort(ctx context.Context, id string) error {
	f.m.mu.Lock()
	p := f.m.procs[id]
	delete(f.m.procs, id)
	f.m.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	p.exited, p.aborted = nil, true
	p.mu.Unlock()
	if !p.ended() {
		p.kill <- syscall.SIGKILL
		<-p.done
	}
	p.closeKept()
	return nil
}

func (p *fakeProcess) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func failed(what string) error {
	return fmt.Errorf("%s: %w", what, errdefs.ErrFailedPrecondition)
}

func (p *fakeProcess) ID() string                        { return p.id }
func (p *fakeProcess) Owner() string                     { return p.owner }
func (p *fakeProcess) Pid() int                          { return p.pid }
func (p *fakeProcess) Started() time.Time                { return p.started }
func (p *fakeProcess) Done() <-chan struct{}             { return p.done }
func (p *fakeProcess) Drained() <-chan struct{}          { return p.drained }
func (p *fakeProcess) Record() task.Record               { return task.Record{ID: p.id, Owner: p.owner} }
func (p *fakeProcess) Pids() ([]int, error)              { return []int{p.pid}, nil }
func (p *fakeProcess) OOMKills() (uint64, error)         { return 0, nil }
func (p *fakeProcess) ReopenLog(_ context.Context) error { return p.openLog() }

func (p *fakeProcess) Exit() task.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		return task.Exit{}
	}
	return *p.exit
}

func (p *fakeProcess) Signal(sig syscall.Signal) error {
	if p.ended() {
		return failed("it has ended")
	}
	p.mu.Lock()
	frozen := p.frozen
	if frozen && sig != 0 {
		p.late = append(p.late, sig)
	}
	p.mu.Unlock()
	if sig != 0 && !frozen {
		p.kill <- sig
	}
	return nil
}

// Pause holds back signals, as a frozen group of version 1 does, also those that kill.
func (p *fakeProcess) Pause(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
	return nil
}

func (p *fakeProcess) Resume(context.Context) error {
	p.mu.Lock()
	late := p.late
	p.frozen, p.late = false, nil
	p.mu.Unlock()
	for _, sig := range late {
		if !p.ended() {
			p.kill <- sig
		}
	}
	return nil
}

func (p *fakeProcess) Attach(_ context.Context, o task.Output) (task.Subscription, error) {
	return task.Subscription{ID: 1}, p.subscribe(o)
}

func (p *fakeProcess) Detach(context.Context, uint64) error { return nil }

func (p *fakeProcess) Input() (*os.File, error) {
	if p.feed == nil || p.ended() {
		return nil, failed("no input")
	}
	fd, err := syscall.Dup(int(p.feed.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "stdin"), nil
}

func (p *fakeProcess) CloseInput(context.Context) error { return p.feed.Close() }

func (p *fakeProcess) Resize(context.Context, uint16, uint16) error { return failed("no terminal") }

func (p *fakeProcess) Delete(context.Context) error {
	if !p.ended() {
		return failed("it runs")
	}
	p.closeKept()
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.m.procs[p.id] == p {
		delete(p.m.procs, p.id)
	}
	return nil
}

func (p *fakeProcess) Exec(ctx context.Context, x *task.Exec) (task.Process, error) {
	if p.ended() {
		return nil, failed("it has ended")
	}
	n := &fakeProcess{id: x.ID, owner: p.owner, of: p.id, exited: x.Exited}
	if err := p.m.launch(n, x.Process.Args, x.Stdin, x.Outputs); err != nil {
		return nil, err
	}
	return n, nil
}

func (p *fakeProcess) Update(context.Context, *specs.LinuxResources) error { return nil }

func (p *fakeProcess) Stats(context.Context) (task.Stats, error) {
	return task.Stats{Time: time.Now(), Pids: 1}, nil
}

func (p *fakeProcess) ReadFile(name string, limit int) ([]byte, error) {
	if name != "/etc/motd" {
		return nil, nil
	}
	const text = "welcome\n"
	if limit < len(text) {
		return nil, fmt.Errorf("%s: %w", name, errdefs.ErrInvalidArgument)
	}
	return []byte(text), nil
}

func (p *fakeProcess) Namespace(specs.LinuxNamespaceType) (*os.File, error) {
	return nil, fmt.Errorf("a fake has no namespaces: %w", errdefs.ErrNotImplemented)
}
