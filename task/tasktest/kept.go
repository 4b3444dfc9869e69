package tasktest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"strake/task"
)

// This file has the cases of what a task keeps when no process of its front end is left.

func (r *run) adopt() {
	s := r.spec("old", "cat; exit 6")
	s.Stdin = true
	first := r.start(s)
	rec := first.Record()
	ended := r.start(r.spec("gone", "exit 9"))
	r.wait(ended)
	r.next()
	found := map[string]task.Found{}
	for _, f := range r.iso.Found(Owner) {
		found[f.ID] = f
	}
	if f, ok := found["old"]; !ok || f.Ended || f.Exec {
		r.Errorf("found %+v, want a running task old", found)
	}
	if f, ok := found["gone"]; !ok || !f.Ended {
		r.Errorf("found %+v, want gone, which has ended", found)
	}
	exits := make(chan task.Exit, 1)
	t, err := r.iso.Adopt(r.Context(), rec, func(e task.Exit) { exits <- e })
	if err != nil {
		r.Fatal(err)
	}
	if got := r.iso.Found(Owner); len(got) != 1 {
		r.Errorf("found %+v after the adoption, want gone only", got)
	}
	in, err := t.Input()
	if err != nil {
		r.Fatal(err)
	}
	if _, err := io.Copy(in, bytes.NewReader([]byte("hello again\n"))); err != nil {
		r.Error(err)
	}
	in.Close()
	if err := t.CloseInput(r.Context()); err != nil {
		r.Error(err)
	}
	select {
	case e := <-exits:
		if e.Code != 6 {
			r.Errorf("exit %+v, want code 6", e)
		}
	case <-time.After(patience):
		r.Fatal("the end of an adopted task is not told")
	}
	r.drained(t)
	if got := r.log(s.Log.Path); got != "hello again\n" {
		r.Errorf("log %q", got)
	}
	g, err := r.iso.Adopt(r.Context(), ended.Record(), nil)
	if err != nil {
		r.Fatal(err)
	}
	if exit := r.wait(g); exit.Code != 9 {
		r.Errorf("exit %+v of a task that ended before its adoption, want code 9", exit)
	}
	if err := g.Delete(r.Context()); err != nil {
		r.Error(err)
	}
	if _, err := r.iso.Adopt(r.Context(), ended.Record(), nil); !errdefs.IsNotFound(err) {
		r.Errorf("second adoption: %v, want not found", err)
	}
}

// next ends the implementation as the end of its process would, and opens the next one.
func (r *run) next() {
	r.Helper()
	if c, ok := r.iso.(io.Closer); ok {
		if err := c.Close(); err != nil {
			r.Fatal(err)
		}
	}
	iso, done := r.cfg.Open(r.T)
	r.Cleanup(done)
	r.iso = iso
}

func (r *run) owners() {
	r.start(r.spec("mine", "sleep"))
	s := r.spec("theirs", "sleep")
	s.Owner = "another"
	theirs := r.start(s)
	r.next()
	if got := r.iso.Found(Owner); len(got) != 1 || got[0].ID != "mine" {
		r.Errorf("found %+v, want mine", got)
	}
	rec := theirs.Record()
	rec.Owner = Owner
	if _, err := r.iso.Adopt(r.Context(), rec, nil); !errdefs.IsNotFound(err) {
		r.Errorf("adoption of another owner's task: %v, want not found", err)
	}
	rec.Owner = "another"
	t, err := r.iso.Adopt(r.Context(), rec, nil)
	if err != nil {
		r.Fatal(err)
	}
	if err := t.Signal(0); err != nil {
		r.Errorf("another owner's task does not run any more: %v", err)
	}
}

// ending is a specification with an end command, which appends the words to a file.
func (r *run) ending(id, script, words string) (s *task.Spec, file string) {
	r.Helper()
	s = r.spec(id, script)
	file = filepath.Join(r.dir, "ended")
	script = "echo $(pwd) $1 $(cat " + s.Log.Path + " | wc -l) >> " + file
	s.EndCommand = []string{"/bin/sh", "-c", script, "end", words}
	return s, file
}

// read is the content of a file, "" if there is none.
func (r *run) read(name string) string {
	r.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	return string(b)
}

func (r *run) endCommand() {
	s, file := r.ending("closed", "echo one; echo two; cat", "closed")
	s.Stdin = true
	t := r.start(s)
	in, err := t.Input()
	if err != nil {
		r.Fatal(err)
	}
	defer in.Close()
	s, _ = r.ending("aborted", "sleep", "aborted")
	r.start(s)
	if got := r.read(file); got != "" {
		r.Errorf("executed before the end: %q", got)
	}
	if err := r.iso.Abort(r.Context(), "aborted"); err != nil {
		r.Fatal(err)
	}
	rec := t.Record()
	r.next() // the front end's process is gone, and the next one has nothing to do with the end
	adopted, err := r.iso.Adopt(r.Context(), rec, nil)
	if err != nil {
		r.Fatal(err)
	}
	if err := adopted.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	const want = "/ closed 2\n"
	r.until("the end command is executed", func() bool { return r.read(file) == want })
	if exit := r.wait(adopted); exit.Unknown {
		r.Errorf("exit %+v", exit)
	}
	if err := adopted.Delete(r.Context()); err != nil {
		r.Error(err)
	}
	if got := r.read(file); got != want {
		r.Errorf("executed %q, want once", got)
	}
}

func (r *run) badEndCommand() {
	s := r.spec("bad", "exit 0")
	s.EndCommand = []string{"sh", "-c", "exit 0"}
	if _, err := r.iso.Start(r.Context(), s); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "endCommand") {
		r.Errorf("a relative end command: %v, want an invalid argument", err)
	}
	// Nothing is left: the ID is free.
	r.wait(r.start(r.spec("bad", "exit 0")))
}

// file is a pipe with a text in it, of which the reading end is returned.
func (r *run) file(text string) *os.File {
	r.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	defer write.Close()
	if _, err := write.WriteString(text); err != nil {
		r.Fatal(err)
	}
	return read
}

func (r *run) kept() {
	s := r.spec("keeps", "sleep")
	files := map[string]*os.File{"tty1": r.file("first"), "a.b-c": r.file("second")}
	// That it is held is seen at the other end.
	held, end, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	defer held.Close()
	files["end"] = end
	for name, f := range files {
		s.Keep = append(s.Keep, task.Kept{Name: name, File: f})
	}
	t := r.start(s)
	for _, f := range files {
		f.Close()
	}
	other := r.start(r.spec("other", "sleep"))
	if _, err := other.Kept("tty1"); !errdefs.IsNotFound(err) {
		r.Errorf("a file of another task: %v, want not found", err)
	}
	r.isKept(t, "tty1", "first")
	rec := t.Record()
	r.next()
	t, err = r.iso.Adopt(r.Context(), rec, nil)
	if err != nil {
		r.Fatal(err)
	}
	if err := t.Signal(syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	r.wait(t)
	r.isKept(t, "a.b-c", "second")
	if _, err := t.Kept("tty2"); !errdefs.IsNotFound(err) {
		r.Errorf("an unknown name: %v, want not found", err)
	}
	gone := make(chan error, 1)
	go func() {
		_, err := held.Read(make([]byte, 1))
		gone <- err
	}()
	select {
	case err := <-gone:
		r.Errorf("a kept file is closed before the delete: %v", err)
	default:
	}
	if err := t.Delete(r.Context()); err != nil {
		r.Fatal(err)
	}
	select {
	case err := <-gone:
		if err != io.EOF {
			r.Errorf("%v, want the end of the file", err)
		}
	case <-time.After(patience):
		r.Error("a kept file is held after the delete")
	}
	if _, err := t.Kept("tty1"); !errdefs.IsFailedPrecondition(err) {
		r.Errorf("after the delete: %v, want a failed precondition", err)
	}
}

// isKept reads a kept file.
func (r *run) isKept(t task.Task, name, want string) {
	r.Helper()
	f, err := t.Kept(name)
	if err != nil {
		r.Fatal(err)
	}
	b, err := io.ReadAll(f)
	f.Close()
	if err != nil || string(b) != want {
		r.Errorf("%s is %q, %v, want %q", name, b, err, want)
	}
	again, err := t.Kept(name)
	if err != nil {
		r.Fatal(err)
	}
	again.Close()
}

func (r *run) badKeep() {
	for _, names := range [][]string{{"a", "a"}, {""}} {
		s := r.spec("bad", "exit 0")
		for _, name := range names {
			f := r.file("")
			defer f.Close()
			s.Keep = append(s.Keep, task.Kept{Name: name, File: f})
		}
		if _, err := r.iso.Start(r.Context(), s); !errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), "keep[") {
			r.Errorf("names %q: %v, want an invalid argument", names, err)
		}
	}
	// Nothing is left: the ID is free.
	r.wait(r.start(r.spec("bad", "exit 0")))
}
