// Package tasktest is the suite that every implementation of task.Isolation passes, and a fake that
// passes it too, for the tests of front ends.
//
// Not for: production code.
package tasktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/keeper/logfile"
	"strake/task"
)

// Owner is the owner of the suite's tasks.
const Owner = "tasktest"

// Config is an implementation under test.
type Config struct {
	// Open starts the implementation, or, called again after Close of the one before, what the
	// next process of a front end would have: it finds the tasks of the one before.
	Open func(t *testing.T) (task.Isolation, func())
	// Spec makes a specification that executes a script: commands separated by "; " of echo WORDS,
	// cat, sleep (for a long time) and exit N. /etc/motd has the text "welcome\n".
	Spec func(t *testing.T, id, script string) *task.Spec
	// Missing is Spec for a command that does not exist.
	Missing func(t *testing.T, id string) *task.Spec
	// Exec makes an exec of a script in a task made by Spec.
	Exec func(t *testing.T, id, script string) *task.Exec
}

// patience bounds every wait for another process.
const patience = 20 * time.Second

// run is one case under way.
type run struct {
	*testing.T
	cfg *Config
	iso task.Isolation
	dir string
}

// Run runs the suite. Each case has an implementation of its own.
func Run(t *testing.T, cfg Config) {
	for name, test := range map[string]func(*run){
		"output and exit status":           (*run).outputAndExit,
		"a subscription from the start":    (*run).subscription,
		"input until its end":              (*run).input,
		"signals, and none after the end":  (*run).signals,
		"exited is called once":            (*run).exitedOnce,
		"a command that does not exist":    (*run).missing,
		"an ID is in use until its delete": (*run).identity,
		"exec":                             (*run).exec,
		"files as the task sees them":      (*run).files,
		"the log is opened again":          (*run).reopen,
		"the next process adopts":          (*run).adopt,
		"owners find their own only":       (*run).owners,
		"abort":                            (*run).abort,
		"waiting ends with its context":    (*run).waiting,
		"an end command":                   (*run).endCommand,
		"an end command that is wrong":     (*run).badEndCommand,
		"files that are kept":              (*run).kept,
		"files that cannot be kept":        (*run).badKeep,
	} {
		t.Run(name, func(t *testing.T) {
			iso, done := cfg.Open(t)
			defer func() { done() }()
			r := &run{T: t, cfg: &cfg, iso: iso, dir: t.TempDir()}
			test(r)
		})
	}
}

// spec is a specification with a log.
func (r *run) spec(id, script string) *task.Spec {
	r.Helper()
	s := r.cfg.Spec(r.T, id, script)
	s.Owner = Owner
	s.Log = task.Log{Format: task.JSONFile, Path: filepath.Join(r.dir, id+".log")}
	return s
}

func (r *run) start(s *task.Spec) task.Task {
	r.Helper()
	t, err := r.iso.Start(r.Context(), s)
	if err != nil {
		r.Fatalf("start %q: %v", s.ID, err)
	}
	r.Cleanup(func() { r.iso.Abort(context.Background(), s.ID) })
	return t
}

func (r *run) wait(p task.Process) task.Exit {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	exit, err := task.Wait(ctx, p)
	if err != nil {
		r.Fatalf("%q does not end: %v", p.ID(), err)
	}
	return exit
}

// drained waits until the log is whole.
func (r *run) drained(p task.Process) {
	r.Helper()
	select {
	case <-p.Drained():
	case <-time.After(patience):
		r.Fatalf("the output of %q does not end", p.ID())
	}
}

func (r *run) log(path string) string {
	r.Helper()
	var b strings.Builder
	o := logfile.Options{Stdout: true, Stderr: true, Tail: -1}
	err := logfile.Read(r.Context(), path, o, func(l logfile.Line) error {
		b.WriteString(l.Text)
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	return b.String()
}

func (r *run) outputAndExit() {
	s := r.spec("one", "echo hello; exit 7")
	t := r.start(s)
	if t.ID() != "one" || t.Owner() != Owner || t.Record().ID != "one" || t.Started().IsZero() {
		r.Errorf("task %q of %q, record %+v, started %v", t.ID(), t.Owner(), t.Record(), t.Started())
	}
	if exit := r.wait(t); exit.Code != 7 || exit.Unknown || exit.Time.IsZero() {
		r.Errorf("exit %+v, want code 7", exit)
	}
	r.drained(t)
	if got := r.log(s.Log.Path); got != "hello\n" {
		r.Errorf("log %q, want %q", got, "hello\n")
	}
	if err := t.Delete(r.Context()); err != nil {
		r.Error(err)
	}
}

// pipe is an output that is read to its end.
func (r *run) pipe() (w *os.File, text func() string) {
	r.Helper()
	rd, w, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(rd)
		rd.Close()
		got <- string(b)
	}()
	return w, func() string {
		select {
		case s := <-got:
			return s
		case <-time.After(patience):
			r.Fatal("the subscription does not end")
			return ""
		}
	}
}

func (r *run) subscription() {
	w, text := r.pipe()
	s := r.spec("sub", "echo first; echo second")
	s.Outputs = []task.Output{{Stdout: w, Stderr: w}}
	t := r.start(s)
	w.Close()
	r.wait(t)
	if got := text(); got != "first\nsecond\n" {
		r.Errorf("got %q", got)
	}
}

func (r *run) input() {
	w, text := r.pipe()
	s := r.spec("in", "cat")
	s.Stdin, s.Outputs = true, []task.Output{{Stdout: w}}
	t := r.start(s)
	w.Close()
	in, err := t.Input()
	if err != nil {
		r.Fatal(err)
	}
	if _, err := in.WriteString("typed\n"); err != nil {
		r.Error(err)
	}
	in.Close()
	if err := t.CloseInput(r.Context()); err != nil {
		r.Error(err)
	}
	if exit := r.wait(t); exit.Code != 0 {
		r.Errorf("exit %+v", exit)
	}
	if got := text(); got != "typed\n" {
		r.Errorf("got %q", got)
	}
}

func (r *run) signals() {
	t := r.start(r.spec("sig", "sleep"))
	if err := t.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	if exit := r.wait(t); exit.Code != 137 || exit.Unknown {
		r.Errorf("exit %+v, want code 137", exit)
	}
	if err := t.Signal(syscall.SIGTERM); !errdefs.IsFailedPrecondition(err) {
		r.Errorf("signal after the end: %v, want a failed precondition", err)
	}
	if err := t.Delete(r.Context()); err != nil {
		r.Fatal(err)
	}
	if err := t.Signal(syscall.SIGTERM); !errdefs.IsFailedPrecondition(err) {
		r.Errorf("signal after the delete: %v, want a failed precondition", err)
	}
}

func (r *run) exitedOnce() {
	var mu sync.Mutex
	var exits []task.Exit
	called := make(chan struct{}, 8)
	s := r.spec("once", "exit 3")
	s.Exited = func(e task.Exit) {
		mu.Lock()
		exits = append(exits, e)
		mu.Unlock()
		called <- struct{}{}
	}
	t := r.start(s)
	select {
	case <-called:
	case <-time.After(patience):
		r.Fatal("Exited is not called")
	}
	r.wait(t)
	if err := t.Delete(r.Context()); err != nil {
		r.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(exits) != 1 || exits[0].Code != 3 {
		r.Errorf("exits %+v, want one with code 3", exits)
	}
}

func (r *run) missing() {
	s := r.cfg.Missing(r.T, "none")
	s.Owner = Owner
	_, err := r.iso.Start(r.Context(), s)
	var se *task.StartError
	if !errors.As(err, &se) || se.Code != 127 || !se.Exec {
		r.Fatalf("error %v (%+v), want a StartError of the command with code 127", err, se)
	}
	// Nothing is left: the ID is free.
	r.wait(r.start(r.spec("none", "exit 0")))
}

func (r *run) identity() {
	t := r.start(r.spec("same", "sleep"))
	if _, err := r.iso.Start(r.Context(), r.spec("same", "exit 0")); !errdefs.IsAlreadyExists(err) {
		r.Errorf("second start: %v, want already exists", err)
	}
	if err := t.Delete(r.Context()); !errdefs.IsFailedPrecondition(err) {
		r.Errorf("delete of a running task: %v, want a failed precondition", err)
	}
	if err := t.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	r.wait(t)
	if _, err := r.iso.Start(r.Context(), r.spec("same", "exit 0")); !errdefs.IsAlreadyExists(err) {
		r.Errorf("start before the delete: %v, want already exists", err)
	}
	if err := t.Delete(r.Context()); err != nil {
		r.Fatal(err)
	}
	if exit := r.wait(r.start(r.spec("same", "exit 4"))); exit.Code != 4 {
		r.Errorf("exit %+v, want code 4", exit)
	}
}

func (r *run) exec() {
	t := r.start(r.spec("host", "sleep"))
	w, text := r.pipe()
	x := r.cfg.Exec(r.T, "guest", "echo inside; exit 5")
	x.Outputs = []task.Output{{Stdout: w, Stderr: w}}
	p, err := t.Exec(r.Context(), x)
	if err != nil {
		r.Fatal(err)
	}
	w.Close()
	if exit := r.wait(p); exit.Code != 5 {
		r.Errorf("exit %+v, want code 5", exit)
	}
	if got := text(); got != "inside\n" {
		r.Errorf("got %q", got)
	}
	if err := p.Delete(r.Context()); err != nil {
		r.Error(err)
	}
	if err := t.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	r.wait(t)
	if p, err := t.Exec(r.Context(), r.cfg.Exec(r.T, "late", "exit 0")); err == nil {
		r.wait(p)
		r.Error("an exec in a task that has ended is not refused")
	}
}

func (r *run) files() {
	t := r.start(r.spec("files", "sleep"))
	b, err := t.ReadFile("/etc/motd", 1<<10)
	if err != nil || string(b) != "welcome\n" {
		r.Errorf("/etc/motd: %q %v", b, err)
	}
	if b, err := t.ReadFile("/nonesuch", 1<<10); err != nil || len(b) != 0 {
		r.Errorf("a file that is missing: %q %v, want nothing", b, err)
	}
	if _, err := t.ReadFile("/etc/motd", 3); !errdefs.IsInvalidArgument(err) {
		r.Errorf("a file above the limit: %v, want an invalid argument", err)
	}
}

func (r *run) reopen() {
	s := r.spec("log", "cat")
	s.Stdin = true
	t := r.start(s)
	in, err := t.Input()
	if err != nil {
		r.Fatal(err)
	}
	defer in.Close()
	say := func(text, path, want string) {
		if _, err := in.WriteString(text); err != nil {
			r.Fatal(err)
		}
		r.until(fmt.Sprintf("%q in %s", want, filepath.Base(path)), func() bool {
			return r.log(path) == want
		})
	}
	say("before\n", s.Log.Path, "before\n")
	old := s.Log.Path + ".old"
	if err := os.Rename(s.Log.Path, old); err != nil {
		r.Fatal(err)
	}
	if err := t.ReopenLog(r.Context()); err != nil {
		r.Fatal(err)
	}
	say("after\n", s.Log.Path, "after\n")
	if got := r.log(old); got != "before\n" {
		r.Errorf("the renamed log has %q", got)
	}
}

// until polls what another process does.
func (r *run) until(what string, cond func() bool) {
	r.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			r.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (r *run) abort() {
	s := r.spec("aborted", "sleep")
	s.Exited = func(e task.Exit) { r.Errorf("Exited is called for an aborted task: %+v", e) }
	t := r.start(s)
	if err := r.iso.Abort(r.Context(), "aborted"); err != nil {
		r.Fatal(err)
	}
	select {
	case <-t.Done():
	case <-time.After(patience):
		r.Error("an aborted task is not done")
	}
	if err := r.iso.Abort(r.Context(), "aborted"); err != nil {
		r.Errorf("second abort: %v", err)
	}
	r.wait(r.start(r.spec("aborted", "exit 0")))
}

func (r *run) waiting() {
	t := r.start(r.spec("long", "sleep"))
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	if _, err := task.Wait(ctx, t); !errors.Is(err, context.Canceled) {
		r.Errorf("wait: %v, want canceled", err)
	}
}
