// Package record is what the engine keeps on disk of its containers: the form of the records, how
// they are written and loaded, and how they become durable.
//
// Promises: a reader sees one whole version of a record. A record that cannot be read, or is of a
// later version, is reported and never changed. Every record names its owner.
//
// Not for: decisions about containers (engine/state), what else is in a container's directory.
//
// Tested by round trips, by tables of records that cannot be read, and under a fake clock.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/internal/rawfile"
	"strake/sandbox"
	"strake/task"
)

// A container is a directory <root>/containers/<id>. container.json holds what never changes but by
// Update and Rename; it is written to a temporary name and renamed. state.json holds what changes:
// one version on each line, of which the last whole one counts. So a reader (the next engine) sees
// one whole version of both.
//
// What is acknowledged survives the death of the engine at any instant without fsync(2), because
// the page cache does. For loss of power there is the syncer: it makes records of containers that
// are not removed by themselves durable in the background, within about a second; what was
// acknowledged in that second may be lost, with the directory entry in place of a half-written
// file.
const (
	Version   = 1
	SpecFile  = "container.json"
	StateFile = "state.json"
)

// Spec is container.json.
type Spec struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// Owner is the front end that the container belongs to; empty in records of engines that had
	// no owner.
	Owner    string      `json:"owner,omitempty"`
	Created  time.Time   `json:"created"`
	Spec     engine.Spec `json:"spec"`
	Resolved Resolved    `json:"resolved"`
}

// State is state.json.
type State struct {
	Version int          `json:"version"`
	State   engine.State `json:"state"`
	// Task is the running container's task.
	Task *task.Record `json:"task,omitempty"`
	// Sandbox is where the running container is, for the next engine to release.
	Sandbox *sandbox.Record `json:"sandbox,omitempty"`
	// RemoveVolumes is how far-reaching an unfinished removal (status removing) is.
	RemoveVolumes bool `json:"removeVolumes,omitempty"`
	// HealthLog are the last probes.
	HealthLog []engine.HealthResult `json:"healthLog,omitempty"`
}

// Resolved is what the engine decided when the container was created.
type Resolved struct {
	// RootfsKey names the container's layer in the image store; empty for the container's ID.
	RootfsKey  string               `json:"rootfsKey,omitempty"`
	ImageID    string               `json:"imageID,omitempty"`
	Args       []string             `json:"args"`
	Env        []string             `json:"env"`
	Cwd        string               `json:"cwd"`
	User       string               `json:"user,omitempty"`
	StopSignal string               `json:"stopSignal,omitempty"`
	Shell      []string             `json:"shell,omitempty"`
	Health     *engine.HealthConfig `json:"health,omitempty"`
	Exposed    []string             `json:"exposed,omitempty"`
	Mounts     []MountPoint         `json:"mounts,omitempty"`
	// LogAttributes are the labels and variables that are written beside each line of the log.
	LogAttributes map[string]string `json:"logAttributes,omitempty"`
}

// MountPoint is a mount with its volume made.
type MountPoint struct {
	engine.Mount
	// Volume is the name of the volume, and Anonymous says that it was made for this container.
	Volume    string `json:"volume,omitempty"`
	Anonymous bool   `json:"anonymous,omitempty"`
}

// WriteJSON replaces a file of a container's directory in one step.
func WriteJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	if err := rawfile.Replace(dir, name, b, 0o600); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

// stateLimit is the size in bytes at which the earlier versions in state.json go.
const stateLimit = 64 << 10

// WriteState writes one more version of a container's state. That costs a part of what replacing
// the file costs, which makes and removes an inode.
func WriteState(dir string, st *State) error {
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("write %q: %w", StateFile, err)
	}
	// What an engine that was killed has left of a line ends before this one.
	line := make([]byte, 0, len(b)+2)
	line = append(append(append(line, '\n'), b...), '\n')
	path := filepath.Join(dir, StateFile)
	size, err := rawfile.Append(path, line, 0o600)
	switch {
	case err == nil && size > stateLimit:
		err = rawfile.Replace(dir, StateFile, line[1:], 0o600)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		if overwrite(path, line[1:]) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", StateFile, err)
	}
	return nil
}

// overwrite makes a line the only one of a file without a need for more space: it writes the line
// over earlier ones and cuts the rest off. Until that last step the last whole line is the one that
// was it before, so it must begin after the end of the new one; otherwise the file is only given
// back what a failed append has left.
func overwrite(path string, line []byte) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	old, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	end := bytes.LastIndexByte(old, '\n') + 1
	whole := bytes.TrimRight(old[:end], "\n")
	begin := bytes.LastIndexByte(whole, '\n') + 1
	if !json.Valid(whole[begin:]) || begin < len(line) {
		_ = f.Truncate(int64(end))
		return false
	}
	if _, err := f.WriteAt(line, 0); err != nil {
		return false
	}
	return f.Truncate(int64(len(line))) == nil
}

// ReadState reads what WriteState wrote last. Where there is no file, or not a whole line of one,
// because its writer was killed, the error is fs.ErrNotExist.
func ReadState(dir string, st *State) error {
	path := filepath.Join(dir, StateFile)
	b, err := rawfile.Read(path)
	if err != nil {
		return err
	}
	for rest := b; len(rest) > 0; {
		rest = bytes.TrimRight(rest, "\n")
		i := bytes.LastIndexByte(rest, '\n') + 1
		version := *st
		if err = json.Unmarshal(rest[i:], &version); err == nil {
			*st = version
			return nil
		}
		rest = rest[:i]
	}
	// What WriteState writes begins with the end of a line, and ends with one.
	if len(b) == 0 || bytes.LastIndexByte(b, '\n') == 0 {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("read a whole line of %s: %w", path, err)
}

// ReadJSON reads a file that WriteJSON wrote. A missing file is fs.ErrNotExist.
func ReadJSON(dir, name string, v any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// Load reads all containers. Directories without container.json are what a creation or a
// removal left; they are removed. A record that cannot be read is reported and left alone: it is
// evidence, and its container must not be forgotten silently.
func Load(
	root string, report func(id string, err error),
) ([]Spec, map[string]State, error) {
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, nil, fmt.Errorf("load containers: %w", err)
	}
	var specsOut []Spec
	states := map[string]State{}
	for _, d := range list {
		dir := filepath.Join(root, d.Name())
		if !d.IsDir() || !ValidID(d.Name()) {
			continue
		}
		var sr Spec
		err := ReadJSON(dir, SpecFile, &sr)
		if errors.Is(err, fs.ErrNotExist) {
			if err := os.RemoveAll(dir); err != nil {
				report(d.Name(), err)
			}
			continue
		}
		if err == nil && (sr.Version != Version || sr.ID != d.Name()) {
			err = fmt.Errorf(
				"record of version %d for container %q, this strake reads version %d: %w",
				sr.Version, sr.ID, Version, errdefs.ErrFailedPrecondition,
			)
		}
		st := State{Version: Version, State: engine.State{Status: engine.Created}}
		if err == nil {
			if err = ReadState(dir, &st); errors.Is(err, fs.ErrNotExist) {
				err = nil // never started
			}
		}
		if err != nil {
			report(d.Name(), err)
			continue
		}
		specsOut = append(specsOut, sr)
		states[sr.ID] = st
	}
	return specsOut, states, nil
}

// ValidID says whether s has the form of a container's ID: 64 hexadecimal digits.
func ValidID(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

// Syncer makes directories of records durable in batches. Its goroutine exists only while there is
// something to do.
type Syncer struct {
	mu      sync.Mutex
	dirty   map[string]bool // guarded by mu
	running bool            // guarded by mu
	closed  bool            // guarded by mu
	timer   *time.Timer     // guarded by mu; of the run to come
	idle    sync.WaitGroup
	Report  func(error)
	Pause   time.Duration
}

// Add asks for a directory's files to become durable soon.
func (s *Syncer) Add(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirty == nil {
		s.dirty = map[string]bool{}
	}
	s.dirty[dir] = true
	if !s.running && !s.closed {
		s.running = true
		s.idle.Add(1)
		s.timer = time.AfterFunc(s.Pause, s.run)
	}
}

func (s *Syncer) run() {
	defer s.idle.Done()
	s.mu.Lock()
	batch := make([]string, 0, len(s.dirty))
	for dir := range s.dirty {
		batch = append(batch, dir)
	}
	s.dirty, s.running = nil, false
	s.mu.Unlock()
	slices.Sort(batch)
	if err := syncDirs(batch); err != nil {
		s.Report(err)
	}
}

// Close makes durable at once what was asked for. Directories that are added later are ignored.
func (s *Syncer) Close() {
	s.mu.Lock()
	s.closed = true
	early := s.running && s.timer.Stop()
	s.mu.Unlock()
	if early {
		s.run()
	}
	s.idle.Wait()
}

// syncDirs makes the records in directories durable: their files, they themselves, and their
// entries in the parent.
func syncDirs(dirs []string) error {
	var errs []error
	parents := map[string]bool{}
	sync := func(path string) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			err = unix.Fsync(fd)
			unix.Close(fd)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // removed meanwhile
			errs = append(errs, fmt.Errorf("make %q durable: %w", path, err))
		}
	}
	for _, dir := range dirs {
		sync(filepath.Join(dir, SpecFile))
		sync(filepath.Join(dir, StateFile))
		sync(dir)
		parents[filepath.Dir(dir)] = true
	}
	for p := range parents {
		sync(p)
	}
	return errors.Join(errs...)
}
