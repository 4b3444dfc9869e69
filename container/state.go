package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/leader"
	"strake/container/ocijson"
	"strake/internal/rawfile"
)

// Names of the files in a container's state directory.
const (
	stateFile   = "state.json"
	configFile  = "config.json"
	startSocket = "start"
)

// stateVersion is the version of the format of state.json.
const stateVersion = 1

// record is what state.json holds: facts that do not change while the container exists. What
// changes (its status) is read from the kernel.
type record struct {
	Version    int    `json:"version"`
	OCIVersion string `json:"ociVersion"`
	ID         string `json:"id"`
	Pid        int    `json:"pid"`
	// PidStart is field 22 of /proc/PID/stat: it tells a process whose number was reused.
	PidStart    uint64            `json:"pidStartTicks"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       string            `json:"owner,omitempty"`
	CgroupPath  string            `json:"cgroupPath,omitempty"`
	Flags       uint64            `json:"namespaceFlags"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// State is what `state` prints: the runtime-spec's state (runtime.md, State) with what runc adds.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// StatePaused is the one status that runc knows beyond the runtime-spec's.
const StatePaused specs.ContainerState = "paused"

// CheckID refuses names of containers that could be paths. Errors are of class
// errdefs.ErrInvalidArgument.
func CheckID(id string) error {
	if id == "" {
		return fmt.Errorf("container id: empty: %w", errdefs.ErrInvalidArgument)
	}
	for i, c := range []byte(id) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("_+-", c) >= 0 || c == '.' && i > 0
		if !ok {
			return fmt.Errorf(
				"container id %q: want letters, digits and _ + - . with no dot in front: %w", id,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if len(id) > 1024 {
		return fmt.Errorf(
			"container id: %d bytes, at most 1024 are allowed: %w", len(id),
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

func (c *Container) save() error {
	return rawfile.Replace(c.dir, stateFile, c.rec.encode(), 0o600)
}

// load reads a container. One whose creation was interrupted before it had a process has no
// state.json; it is returned without a pid, so that it can be deleted.
func load(dir, id string) (*Container, error) {
	c := &Container{dir: dir}
	raw, err := rawfile.Read(filepath.Join(dir, configFile))
	if err == nil {
		c.spec = new(specs.Spec)
		err = ocijson.Decode(raw, c.spec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %q: %s: %w", id, configFile, err)
	}
	raw, err = rawfile.Read(filepath.Join(dir, stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
		}
		c.rec = record{ID: id, Version: stateVersion}
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	if err := ocijson.Decode(raw, &c.rec); err != nil {
		return nil, fmt.Errorf("container %q: %s: %w", id, stateFile, err)
	}
	if c.rec.Version != stateVersion {
		return nil, fmt.Errorf(
			"container %q: %s has version %d, this program knows %d: %w", id, stateFile,
			c.rec.Version, stateVersion, errdefs.ErrFailedPrecondition,
		)
	}
	return c, nil
}

// procStat reads the state letter and the start time of a process.
func procStat(pid int) (state byte, start uint64, err error) {
	raw, err := rawfile.Read("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may hold anything, so count from its end (proc_pid_stat(5)).
	s := string(raw)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// pidfd returns a descriptor of the container's first process, or an error of class
// errdefs.ErrNotFound if it has ended. Signals and joins use the descriptor, because the number may
// have gone to another process meanwhile.
func (c *Container) pidfd() (int, error) {
	gone := fmt.Errorf("container %q is not running: %w", c.rec.ID, errdefs.ErrNotFound)
	if c.rec.Pid == 0 {
		return -1, gone
	}
	fd, err := unix.PidfdOpen(c.rec.Pid, 0)
	if err != nil {
		return -1, gone
	}
	// While one of its other threads executes, there is a moment without an entry in /proc.
	var state byte
	var start uint64
	for range 10 {
		if state, start, err = procStat(c.rec.Pid); err == nil || c.process(fd).Ended() {
			break
		}
	}
	// The first thread is a zombie while another one executes, and after it has exited alone.
	zombie := state == 'Z' || state == 'X'
	if err != nil || start != c.rec.PidStart || zombie && c.process(fd).Ended() {
		unix.Close(fd)
		return -1, gone
	}
	return fd, nil
}

// process is the container's first process.
func (c *Container) process(pidfd int) leader.Process {
	return leader.Process{Pid: c.rec.Pid, PidFD: pidfd}
}

// Status asks the kernel what the container does. One whose creation has not come to a process is
// "creating", also if it never will because the creator was killed.
func (c *Container) Status() (specs.ContainerState, error) {
	if c.rec.Pid == 0 {
		return specs.StateCreating, nil
	}
	fd, err := c.pidfd()
	if err != nil {
		return specs.StateStopped, nil
	}
	unix.Close(fd)
	if g, err := c.group(); err == nil {
		frozen, ferr := g.Frozen()
		g.Close()
		if ferr == nil && frozen {
			return StatePaused, nil
		}
	}
	if _, err := os.Stat(filepath.Join(c.dir, startSocket)); err == nil {
		return specs.StateCreated, nil
	}
	return specs.StateRunning, nil
}

// State is the container's state for `state` and for hooks.
func (c *Container) State() (*State, error) {
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	s := &State{
		State: specs.State{
			Version: c.rec.OCIVersion, ID: c.rec.ID, Status: status, Pid: c.rec.Pid,
			Bundle: c.rec.Bundle, Annotations: c.rec.Annotations,
		},
		Rootfs: c.rec.Rootfs, Created: c.rec.Created, Owner: c.rec.Owner,
	}
	if status == specs.StateStopped {
		s.Pid = 0
	}
	return s, nil
}
