package server

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// inputTTY is the name under which a program asks for a terminal of the host's devpts.
const inputTTY = "tty"

// makeTTY allocates a terminal, if the program asks for one.
func (j *job) makeTTY() error {
	p := j.p
	if _, ok := j.inputs[inputTTY]; ok || !slices.Contains(j.image.Inputs(), inputTTY) {
		return nil
	}
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/ptmx: %w", err)
	}
	// ioctl_tty(2): unlock, then open the other end without a path.
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(master)
		return fmt.Errorf("unlock a terminal: %w", err)
	}
	slave, _, errno := unix.Syscall(
		unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC,
	)
	if errno != 0 {
		unix.Close(master)
		return fmt.Errorf("open a terminal's other end: %w", errno)
	}
	j.inputs[inputTTY] = int(slave)
	return p.addTTY(master)
}

// addTTY makes master the process's terminal and takes it over, also when it fails.
func (p *process) addTTY(master int) error {
	if !p.isTTY() || p.streams[0] != nil {
		unix.Close(master)
		return fmt.Errorf(
			"the program has sent a terminal that the request has not asked for: %w",
			errdefs.ErrFailedPrecondition,
		)
	}
	if p.stdio.Width != 0 || p.stdio.Height != 0 {
		if err := setSize(master, p.stdio.Width, p.stdio.Height); err != nil {
			unix.Close(master)
			return err
		}
	}
	return p.addStream(0, master)
}

func setSize(master int, width, height uint16) error {
	if err := unix.IoctlSetWinsize(
		master, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height},
	); err != nil {
		return fmt.Errorf("size %d×%d of a terminal: %w", width, height, err)
	}
	return nil
}
