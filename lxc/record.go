package lxc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/task"
)

// State is a place in a container's life, by LXC's name.
type State string

// States as lxc-wait(1) has them.
const (
	Stopped  State = "STOPPED"
	Starting State = "STARTING"
	Running  State = "RUNNING"
	Stopping State = "STOPPING"
	Aborting State = "ABORTING"
	Freezing State = "FREEZING"
	Frozen   State = "FROZEN"
	Thawed   State = "THAWED"
)

// record is what is kept of a run of a container, from before its first step until after its last.
// It is replaced in one step.
type record struct {
	State State       `json:"state"` // Starting, Running, Stopping or Frozen
	Task  task.Record `json:"task"`
	// Pid and Birth tell the process from a later one with its number: Birth is its start in clock
	// ticks since the system's (proc_pid_stat(5), field 22).
	Pid     int       `json:"pid,omitempty"`
	Birth   uint64    `json:"birth,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// Nics are the host's interfaces of the container.
	Nics []nic `json:"nics,omitempty"`
	// Restart says that the container is to be started again when it has ended.
	Restart bool `json:"restart,omitempty"`
	// Options are those of the start, for the restart.
	Options StartOptions `json:"options,omitzero"`
}

// lock takes the lock of the container for changes. It is held by one process at a time.
func (c *Container) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.run), 0o711); err != nil {
		return nil, err
	}
	// Beside the directory, which comes and goes.
	f, err := os.OpenFile(c.run+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	got := make(chan error, 1)
	go func() {
		for {
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-got
			f.Close()
		}()
		return nil, fmt.Errorf(
			"container %q: another operation is under way: %w", c.name, ctx.Err(),
		)
	}
}

// load reads the record; nil if the container is stopped.
func (c *Container) load() (*record, error) {
	raw, err := os.ReadFile(filepath.Join(c.run, "record"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("record of container %q: %w", c.name, err)
	}
	return r, nil
}

// save replaces the record and tells those who wait for its state. Callers hold the lock.
func (c *Container) save(r *record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.run, 0o700); err != nil {
		return err
	}
	name := filepath.Join(c.run, "record")
	if err := os.WriteFile(name+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// change records a state and announces it.
func (c *Container) change(r *record, s State) error {
	r.State = s
	if err := c.save(r); err != nil {
		return err
	}
	return c.announce(s)
}

// Status is what can be told of a container without asking anyone but the kernel.
type Status struct {
	State   State
	Pid     int // 0: none
	Started time.Time
	// Group is the container's control group, by the kernel's path; "": none.
	Group string
	Nics  []string // the host's ends of its interfaces
}

// Status reads the container's state. One that does not exist is stopped.
func (c *Container) Status() (Status, error) {
	r, err := c.load()
	if err != nil || r == nil {
		return Status{State: Stopped}, err
	}
	st := Status{State: r.State, Started: r.Started, Group: r.Task.Group}
	for _, n := range r.Nics {
		st.Nics = append(st.Nics, n.Host)
	}
	if r.Pid == 0 {
		return st, nil
	}
	if birth(r.Pid) != r.Birth {
		// It has ended, and the command that its keeper executes is at work.
		st.State = Stopping
		return st, nil
	}
	st.Pid = r.Pid
	return st, nil
}

// birth is when a process was started, in clock ticks since the system's start; 0 if it has ended.
func birth(pid int) uint64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// Behind the name, which is in parentheses and may have any character.
	rest := raw[bytes.LastIndexByte(raw, ')')+1:]
	f := bytes.Fields(rest)
	const state, start = 0, 19
	if len(f) <= start || f[state][0] == 'Z' || f[state][0] == 'X' {
		return 0
	}
	n, _ := strconv.ParseUint(string(f[start]), 10, 64)
	return n
}

// running is the record of a container that runs, or errdefs.ErrFailedPrecondition.
func (c *Container) running() (*record, error) {
	r, err := c.load()
	if err != nil {
		return nil, err
	}
	if r == nil || r.Pid == 0 || birth(r.Pid) != r.Birth {
		return nil, fmt.Errorf("container %q is not running: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	return r, nil
}
