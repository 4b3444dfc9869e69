package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"strake/engine"
	"strake/internal/rawfile"
	"strake/sandbox"
	"strake/task"
)

var (
	idA = strings.Repeat("a", 64)
	idB = strings.Repeat("b", 64)
)

// made makes a container's directory with a record.
func made(t *testing.T, root, id string, sr *Spec) string {
	t.Helper()
	dir := filepath.Join(root, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if sr != nil {
		if err := WriteJSON(dir, SpecFile, sr); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, root string) ([]Spec, map[string]State, map[string]error) {
	t.Helper()
	reported := map[string]error{}
	list, states, err := Load(root, func(id string, err error) { reported[id] = err })
	if err != nil {
		t.Fatal(err)
	}
	return list, states, reported
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	sr := Spec{
		Version: Version, ID: idA, Owner: "cri", Created: at,
		Spec: engine.Spec{Name: "box", Cmd: []string{"true"}, Labels: map[string]string{"k": "v"}},
		Resolved: Resolved{
			RootfsKey: "cri/box", Args: []string{"true"}, Env: []string{"A=1"}, Cwd: "/",
			Mounts: []MountPoint{{
				Mount:  engine.Mount{Type: "volume", Target: "/data"},
				Volume: "v", Anonymous: true,
			}},
		},
	}
	dir := made(t, root, idA, &sr)
	st := State{
		Version: Version,
		State:   engine.State{Status: engine.Running, Pid: 7, StartedAt: at, Lost: true},
		Task:    &task.Record{ID: idA, Owner: "cri", Group: "/g", Namespaces: 5},
		Sandbox: &sandbox.Record{ID: idA, Owner: "cri", Attached: true}, RemoveVolumes: true,
		HealthLog: []engine.HealthResult{{Start: at, End: at, ExitCode: 1, Output: "no"}},
	}
	if err := WriteState(dir, &st); err != nil {
		t.Fatal(err)
	}
	made(t, root, idB, &Spec{Version: Version, ID: idB})
	list, states, reported := load(t, root)
	if len(list) != 2 || !reflect.DeepEqual(list[0], sr) || len(reported) != 0 {
		t.Errorf("got %+v, want %+v; reported %v", list, sr, reported)
	}
	if !reflect.DeepEqual(states[idA], st) {
		t.Errorf("got %+v, want %+v", states[idA], st)
	}
	if got := states[idB].State; got != (engine.State{Status: engine.Created}) {
		t.Errorf("the state of a container that was never started: %+v", got)
	}
	if list[1].Owner != "" {
		t.Errorf("a record without an owner has %q", list[1].Owner)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 2 {
		t.Errorf("files %q %v", names, err)
	}
}

func TestLoadLeavesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	good := `{"version":1,"id":"` + idA + `"}`
	for _, tt := range []struct {
		name, spec, state string
		class             func(error) bool
	}{
		{name: "no JSON", spec: "{"},
		{name: "empty", spec: ""},
		{
			name: "a later version", spec: `{"version":2,"id":"` + idA + `"}`,
			class: errdefs.IsFailedPrecondition,
		},
		{name: "no version", spec: `{"id":"` + idA + `"}`, class: errdefs.IsFailedPrecondition},
		{
			name: "another's record", spec: `{"version":1,"id":"` + idB + `"}`,
			class: errdefs.IsFailedPrecondition,
		},
		{name: "state", spec: good, state: "{"},
		{name: "no state on any line", spec: good, state: "{\n\nx\n"},
	} {
		root := t.TempDir()
		dir := made(t, root, idA, nil)
		files := map[string]string{SpecFile: tt.spec}
		if tt.state != "" {
			files[StateFile] = tt.state
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		list, states, reported := load(t, root)
		if len(list) != 0 || len(states) != 0 || reported[idA] == nil ||
			tt.class != nil && !tt.class(reported[idA]) {
			t.Errorf("%s: list %+v, states %+v, reported %v", tt.name, list, states, reported)
		}
		for name, text := range files {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s: %s is now %q %v", tt.name, name, got, err)
			}
		}
	}
}

// Directories without a record are what a creation or a removal left. What is no container's is
// not touched.
func TestLoadRemovesDirectoriesWithoutRecord(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	half := made(t, root, idA, nil)
	for _, name := range []string{StateFile, "x-json.log", "." + SpecFile} {
		if err := os.WriteFile(filepath.Join(half, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made(t, root, "lost+found", nil)
	made(t, root, strings.ToUpper(idB), nil)
	if err := os.WriteFile(filepath.Join(root, idB), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, _, reported := load(t, root)
	if len(list) != 0 || len(reported) != 0 {
		t.Errorf("list %+v, reported %v", list, reported)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory without a record: %v", err)
	}
	for _, name := range []string{"lost+found", strings.ToUpper(idB), idB} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := Load(filepath.Join(root, "missing"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing root: %v", err)
	}
}

func TestWriteJSONReplaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, id := range []string{strings.Repeat("long", 1000), "short"} {
		if err := WriteJSON(dir, SpecFile, &Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
		var got Spec
		if err := ReadJSON(dir, SpecFile, &got); err != nil || got.ID != id {
			t.Errorf("got %q %v, want %q", got.ID, err, id)
		}
	}
	if err := WriteJSON(dir, SpecFile, func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := WriteJSON(filepath.Join(dir, "missing"), SpecFile, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	var got Spec
	if err := ReadJSON(dir, SpecFile, &got); err != nil || got.ID != "short" {
		t.Errorf("after the errors: %q %v", got.ID, err)
	}
}

// The last whole version of a state counts, whatever a killed engine or a machine that went down has
// left behind it.
func TestState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func() int {
		t.Helper()
		var st State
		if err := ReadState(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.State.Pid
	}
	write := func(pid int) {
		t.Helper()
		st := State{Version: Version, State: engine.State{Pid: pid}}
		if err := WriteState(dir, &st); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, StateFile)
	// What an engine wrote that kept one version only.
	if err := os.WriteFile(path, []byte(`{"version":1,"state":{"pid":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != 1 {
		t.Errorf("got %d", got)
	}
	for pid, rest := range []string{
		2: "", 3: `{"version":1,"sta`, 4: "\n{", 5: "\x00\x00\x00", 6: "\n\n",
	} {
		if pid < 2 {
			continue
		}
		write(pid)
		if _, err := rawfile.Append(path, []byte(rest), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != pid {
			t.Errorf("followed by %q: got %d, want %d", rest, got, pid)
		}
	}
	for _, rest := range []string{"", "\n", "\n{", "\n" + `{"version":1,"state":{}`, "\n\x00\x00"} {
		if err := os.WriteFile(path, []byte(rest), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ReadState(dir, &State{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("only %q: %v, want that there is none", rest, err)
		}
		write(6)
		if got := read(); got != 6 {
			t.Errorf("after %q: got %d, want 6", rest, got)
		}
	}
	for pid := 7; pid < 3000; pid++ {
		write(pid)
		if st, err := os.Stat(path); err != nil || st.Size() > stateLimit {
			t.Fatalf("after %d versions: %v %v", pid, st, err)
		}
	}
	if got := read(); got != 2999 {
		t.Errorf("got %d", got)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left: %v %v", list, err)
	}
	if err := WriteState(filepath.Join(dir, "none"), &State{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	if err := ReadState(filepath.Join(dir, "none"), &State{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

// waiting says whether a run is to come.
func (s *Syncer) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func TestSyncer(t *testing.T) {
	t.Parallel()
	// A name that is too long cannot be opened, so that a run reports its directory.
	bad := filepath.Join(t.TempDir(), strings.Repeat("x", 300))
	synctest.Test(t, func(t *testing.T) {
		var reports []error
		s := Syncer{
			Pause:  time.Second,
			Report: func(err error) { reports = append(reports, err) },
		}
		begin := time.Now()
		s.Add(bad)
		<-time.After(500 * time.Millisecond) // the bubble's clock: no time passes
		s.Add(bad)
		s.Add(filepath.Join(t.TempDir(), "removed")) // what is removed meanwhile is no failure
		if len(reports) != 0 || !s.waiting() {
			t.Errorf("before the pause has passed: %v", reports)
		}
		<-time.After(500 * time.Millisecond)
		synctest.Wait()
		if len(reports) != 1 || !strings.Contains(reports[0].Error(), bad) ||
			strings.Contains(reports[0].Error(), "removed") || s.waiting() {
			t.Errorf("after the pause: %v, want one report of one batch", reports)
		}
		s.Add(bad)
		s.Close()
		if took := time.Since(begin); took != time.Second || len(reports) != 2 {
			t.Errorf("Close: %v after %s, want the second batch at once", reports, took)
		}
		s.Add(bad)
		<-time.After(time.Hour)
		synctest.Wait()
		if len(reports) != 2 || s.waiting() {
			t.Errorf("after Close: %v", reports)
		}
	})
	var idle Syncer
	idle.Close()
}
