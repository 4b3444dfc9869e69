package driver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"strake/lmctfy/policy"
)

// window is that of all triggers. Processes without CAP_SYS_RESOURCE may only use multiples of two
// seconds (psi.rst, "Monitoring for pressure thresholds").
const window = 2 * time.Second

// PSI is the Watch of a kernel with pressure stall information. Its triggers let the driver sleep
// until there is pressure. NewPSI makes one; it is not for concurrent use.
type PSI struct {
	config policy.Config
	root   string
	poller poller
	dirs   []string
	fds    []unix.PollFd
}

// NewPSI returns a Watch of the files below root, which is ProcPressure on a real machine. The
// configuration's high marks become thresholds of triggers. It is errdefs.ErrNotFound if the kernel
// has no PSI. Close has to be called.
func NewPSI(root string, c policy.Config) (*PSI, error) {
	if _, err := ReadPSI(root); err != nil {
		return nil, err
	}
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &PSI{config: c.WithDefaults(), root: root, poller: p}, nil
}

// Read reads the pressure on the machine.
func (p *PSI) Read() (policy.Pressure, error) { return ReadPSI(p.root) }

// Wait returns when there is pressure in one of the groups, of which dirs are the directories, when
// the time is over, or when the context ends. "" stands for the machine. Woken says that a trigger
// fired. A group that has no triggers is not waited for; if none has, an error says why, at once.
func (p *PSI) Wait(ctx context.Context, dirs []string, d time.Duration) (woken bool, err error) {
	if !slices.Equal(p.dirs, dirs) {
		p.drop()
		p.dirs = slices.Clone(dirs)
	}
	if len(p.fds) == 0 {
		if err := p.open(); err != nil {
			return false, err
		}
	}
	ready, err := p.poller.wait(ctx, p.fds, d)
	for _, f := range ready {
		// The group is gone; its descriptor would be ready for ever.
		if f.Revents&unix.POLLERR != 0 {
			p.fds = slices.DeleteFunc(p.fds, func(o unix.PollFd) bool { return o.Fd == f.Fd })
			_ = unix.Close(int(f.Fd))
		}
	}
	return len(ready) > 0, err
}

// open makes a trigger for each resource of each group.
func (p *PSI) open() (first error) {
	for _, dir := range p.dirs {
		if dir == "" {
			dir = p.root
		}
		for r, name := range files(dir) {
			marks := [...]policy.Marks{p.config.CPU, p.config.Memory, p.config.IO}[r]
			stall := time.Duration(float64(window) * marks.High / 100)
			fd, err := openTrigger(name, stall)
			if err == nil {
				p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI})
			} else if first == nil {
				first = err
			}
		}
	}
	if len(p.fds) > 0 || first == nil && len(p.dirs) == 0 {
		return nil
	}
	return first
}

// openTrigger opens a file of PSI and makes it ready with POLLPRI whenever some processes stalled
// for that long within the window. It lasts until the descriptor is closed.
func openTrigger(name string, stall time.Duration) (int, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", name, err)
	}
	text := fmt.Sprintf("some %d %d\x00", stall.Microseconds(), window.Microseconds())
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("trigger of %q: %w", name, err)
	}
	return fd, nil
}

func (p *PSI) drop() {
	for _, f := range p.fds {
		_ = unix.Close(int(f.Fd))
	}
	p.fds = nil
}

// Close ends all triggers.
func (p *PSI) Close() error {
	p.drop()
	return p.poller.close()
}
