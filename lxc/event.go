package lxc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Event is a change of a container's state.
type Event struct {
	Name  string
	State State
}

// maxEvents is the size in bytes at which the file of events begins anew. Who watches has read it
// long before that.
const maxEvents = 1 << 20

func (p *Path) eventFile() string { return filepath.Join(p.run, "events") }

// announce tells those who watch of a state.
func (c *Container) announce(s State) error {
	f, err := os.OpenFile(c.path.eventFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxEvents {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	// One write: lines of several processes do not mix.
	_, err = fmt.Fprintf(f, "%s %s\n", c.name, s)
	return err
}

// Watch calls ready when it sees every change from now on, and then see for each of them, until see
// returns false or ctx ends.
func (p *Path) Watch(ctx context.Context, ready func() error, see func(Event) bool) error {
	if err := os.MkdirAll(p.run, 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(p.eventFile(), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	notify := os.NewFile(uintptr(fd), "inotify")
	defer notify.Close()
	if _, err := unix.InotifyAddWatch(fd, p.eventFile(), unix.IN_MODIFY); err != nil {
		return fmt.Errorf("watch %q: %w", p.eventFile(), err)
	}
	at, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { notify.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		if _, err := notify.Read(buf); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		if st, err := f.Stat(); err == nil && st.Size() < at {
			at = 0
		}
		for {
			n, err := f.ReadAt(buf, at)
			if n == 0 {
				if err != nil && !errors.Is(err, fs.ErrClosed) {
					break
				}
				return err
			}
			whole := bytes.LastIndexByte(buf[:n], '\n') + 1
			at += int64(whole)
			for line := range strings.Lines(string(buf[:whole])) {
				name, state, _ := strings.Cut(strings.TrimSpace(line), " ")
				if !see(Event{name, State(state)}) {
					return nil
				}
			}
			if whole == 0 {
				break
			}
		}
	}
}

// Wait waits until the container is in one of some states.
func (c *Container) Wait(ctx context.Context, states ...State) (State, error) {
	got := State("")
	is := func() error {
		st, err := c.Status()
		if err == nil && slices.Contains(states, st.State) {
			got = st.State
			return errReached
		}
		return err
	}
	err := c.path.Watch(ctx, is, func(e Event) bool {
		if e.Name == c.name && slices.Contains(states, e.State) {
			got = e.State
			return false
		}
		return true
	})
	if errors.Is(err, errReached) {
		err = nil
	}
	return got, err
}

// errReached ends Watch before it waits.
var errReached = errors.New("reached")
