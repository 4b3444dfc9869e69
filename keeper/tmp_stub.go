package keeper

import (
	"errors"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const LogCRI = LogDriver(2)

func (p *Process) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(p.PidFD, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return errdefs.ErrFailedPrecondition
	}
	return err
}
func (p *Process) WithPidFD(f func(fd int) error) error { return f(p.PidFD) }
