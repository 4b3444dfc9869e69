package keeper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// Start starts a process and returns when its program has ended in execve(2), or with req.Hold at
// its first stage. The caller closes the Process. If the program fails, the error is
// *spawn.Failure, or ErrDied if the process was killed; nothing of it is left then.
func (c *Client) Start(ctx context.Context, req *StartRequest) (*Process, error) {
	m := &wire.Start{
		ID: req.ID, Owner: req.Owner, Kind: req.Kind, Note: req.Note,
		TimeOffsets: req.TimeOffsets, Hold: req.Hold, Stdio: wire.Stdio(req.Stdio),
		EndCommand: req.EndCommand,
	}
	var err error
	if m.Log, err = req.Log.wire(); err != nil {
		return nil, fmt.Errorf("start %q: %w", req.ID, err)
	}
	for _, l := range req.UIDMap {
		m.UIDMap = append(m.UIDMap, wire.IDMap(l))
	}
	for _, l := range req.GIDMap {
		m.GIDMap = append(m.GIDMap, wire.IDMap(l))
	}
	image, err := sealed(req.Image)
	if err != nil {
		return nil, fmt.Errorf("start %q: %w", req.ID, err)
	}
	defer unix.Close(image)
	fds := []int{image}
	for name, fd := range req.Inputs {
		m.Inputs = append(m.Inputs, name)
		fds = append(fds, fd)
	}
	if req.CgroupFD > 0 {
		m.Cgroup = true
		fds = append(fds, req.CgroupFD)
	}
	if m.Keep, fds, err = keep(req.Keep, fds); err != nil {
		return nil, fmt.Errorf("start %q: %w", req.ID, err)
	}
	if m.Attach, fds, err = attachments(req.Attach, fds); err != nil {
		return nil, fmt.Errorf("start %q: %w", req.ID, err)
	}
	a, err := c.ask(ctx, m, fds)
	runtime.KeepAlive(req)
	if err != nil {
		if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
			// Whether it came to life or not: the keeper kills and forgets it.
			c.abandon(req.ID)
		}
		return nil, fmt.Errorf("start %q: %w", req.ID, err)
	}
	return a.process()
}

// abandon undoes a start without waiting for it: a keeper that does not answer is no reason not to
// return.
func (c *Client) abandon(id string) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	request := c.number()
	c.calls[request] = &call{done: make(chan struct{}), dropped: true}
	c.mu.Unlock()
	if packet, err := wire.Encode(
		nil, request, &wire.Simple{T: wire.TypeAbort, ID: id},
	); err == nil {
		c.conn.WriteMsgUnix(packet, nil, nil)
	}
}

// Continue lets a held process go on and returns when it waits again (State Held) or has executed
// (State Running). Errors are Start's. If ctx ends, the process goes on.
func (c *Client) Continue(ctx context.Context, id string) (*Process, error) {
	a, err := c.ask(ctx, &wire.Simple{T: wire.TypeContinue, ID: id}, nil)
	if err != nil {
		return nil, fmt.Errorf("continue %q: %w", id, err)
	}
	return a.process()
}

// Abort kills a process and forgets it, whatever its state; that it ends is no event. An unknown ID
// is no error.
func (c *Client) Abort(ctx context.Context, id string) error {
	return wrap("abort", id, c.do(ctx, &wire.Simple{T: wire.TypeAbort, ID: id}, nil))
}

// Attach subscribes to a process's output from now on. If the streams have ended, the subscriber's
// descriptors are closed at once.
func (c *Client) Attach(ctx context.Context, id string, at Attachment) (Attached, error) {
	list, fds, err := attachments([]Attachment{at}, nil)
	if err != nil {
		return Attached{}, fmt.Errorf("attach to %q: %w", id, err)
	}
	a, err := c.ask(ctx, &wire.Attach{ID: id, Attachment: list[0]}, fds)
	runtime.KeepAlive(at)
	if err != nil {
		return Attached{}, fmt.Errorf("attach to %q: %w", id, err)
	}
	b, ok := a.body.(*wire.Attached)
	if !ok {
		return Attached{}, unexpected(a)
	}
	return Attached(*b), nil
}

// Detach ends a subscription: its descriptors are closed in the keeper. That it has ended already
// is no error.
func (c *Client) Detach(ctx context.Context, id string, subscription uint64) error {
	return wrap("detach from", id, c.do(ctx, &wire.Detach{ID: id, Subscription: subscription}, nil))
}

// CloseStdin closes the keeper's end of a process's input. The input ends when every duplicate of
// it is closed too (Process.CloseStdin). Closing it twice is no error.
func (c *Client) CloseStdin(ctx context.Context, id string) error {
	return wrap(
		"close the input of", id, c.do(ctx, &wire.Simple{T: wire.TypeCloseStdin, ID: id}, nil),
	)
}

// Signal sends a signal (pidfd_send_signal(2)). To a process that has ended it is
// errdefs.ErrFailedPrecondition.
func (c *Client) Signal(ctx context.Context, id string, sig syscall.Signal) error {
	return wrap("signal", id, c.do(ctx, &wire.Signal{ID: id, Signal: uint32(sig)}, nil))
}

// Resize sets the size of a process's terminal in characters. Without one it is
// errdefs.ErrFailedPrecondition.
func (c *Client) Resize(ctx context.Context, id string, width, height uint16) error {
	return wrap("resize", id, c.do(ctx, &wire.Resize{ID: id, Width: width, Height: height}, nil))
}

// ReopenLog opens a process's log again at its path, for those who have renamed it.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return wrap(
		"reopen the log of", id, c.do(ctx, &wire.Simple{T: wire.TypeReopenLog, ID: id}, nil),
	)
}

// Forget acknowledges that a process has exited: its status is dropped, its streams end, its ID is
// free. Subscribers are still given what waits for them, unless the keeper is upgraded before.
// Before it has exited it is errdefs.ErrFailedPrecondition.
func (c *Client) Forget(ctx context.Context, id string) error {
	return wrap("forget", id, c.do(ctx, &wire.Simple{T: wire.TypeForget, ID: id}, nil))
}

// List returns all processes with fresh duplicates of their descriptors, which the caller closes,
// and every exit that is not forgotten.
func (c *Client) List(ctx context.Context) ([]*Process, error) {
	answers, err := c.roundTrip(ctx, &wire.Empty{T: wire.TypeList}, nil)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []*Process
	for i, a := range answers {
		if i == len(answers)-1 {
			switch b := a.body.(type) {
			case *wire.Error:
				err = errorOf(b)
			case *wire.Empty:
			default:
				err = unexpected(a)
			}
			break
		}
		p, perr := a.process()
		if perr != nil {
			err = perr
			continue
		}
		list = append(list, p)
	}
	if err != nil {
		for _, p := range list {
			p.Close()
		}
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return list, nil
}

// Adopt hands a process of a dead keeper to this one, which takes over its streams, its terminal,
// its log (appending) and the notification of its exit. The descriptors of p stay the caller's. Its
// exit status is asked of the kernel (package pidfd); if that cannot tell, the exit is Unknown.
//
// A keeper that has recovered the process by itself, or has adopted it before, answers with it, in
// whatever state it is by now, and subscribes attach: ID and Pid must be the same, else it is
// errdefs.ErrAlreadyExists.
func (c *Client) Adopt(ctx context.Context, p *Process, attach ...Attachment) (*Process, error) {
	m := &wire.Adopt{Process: wire.Process{
		ID: p.ID, Owner: p.Owner, Kind: p.Kind, Note: p.Note, State: Running, Pid: p.Pid,
		Started: p.Started.UnixNano(), Stdio: wire.Stdio(p.Stdio),
		EndCommand: p.EndCommand,
	}}
	var err error
	if m.Process.Log, err = p.Log.wire(); err != nil {
		return nil, fmt.Errorf("adopt %q: %w", p.ID, err)
	}
	fds, err := p.duplicates(&m.Process)
	if err != nil {
		return nil, fmt.Errorf("adopt: %w", err)
	}
	defer closeAll(fds)
	if m.Attach, fds, err = attachments(attach, fds); err != nil {
		return nil, fmt.Errorf("adopt %q: %w", p.ID, err)
	}
	a, err := c.ask(ctx, m, fds)
	runtime.KeepAlive(attach)
	if err != nil {
		return nil, fmt.Errorf("adopt %q: %w", p.ID, err)
	}
	return a.process()
}

// Force says whether Shutdown may end running processes.
type Force bool

const (
	// IfIdle refuses with errdefs.ErrFailedPrecondition while a process runs.
	IfIdle Force = false
	// KillAll ends all processes with SIGKILL first.
	KillAll Force = true
)

// Shutdown ends the keeper. Exits that were not forgotten stay in its state directory for the next
// one.
func (c *Client) Shutdown(ctx context.Context, force Force) error {
	err := c.do(ctx, &wire.Shutdown{Force: bool(force)}, nil)
	if err != nil {
		return fmt.Errorf("shut the keeper down: %w", err)
	}
	return nil
}

// Upgrade makes the keeper replace its program by an executable, which must be a regular or sealed
// memory file. It returns when the successor has taken over; connections, this one included, go on,
// and a new Dial counts one upgrade more. If the successor says that it cannot take over, nothing
// has changed and the error is errdefs.ErrFailedPrecondition.
func (c *Client) Upgrade(ctx context.Context, executable *os.File) error {
	fd, err := descriptor(executable)
	if err == nil {
		err = c.do(ctx, &wire.Empty{T: wire.TypeUpgrade}, []int{fd})
	}
	runtime.KeepAlive(executable)
	if err != nil {
		return fmt.Errorf("upgrade the keeper to %q: %w", executable.Name(), err)
	}
	return nil
}

func wrap(verb, id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", verb, id, err)
}

func (l *LogConfig) wire() (wire.Log, error) {
	if l.MaxFiles < 0 || l.MaxFiles > math.MaxInt32 {
		return wire.Log{}, fmt.Errorf(
			"log.maxFiles %d: must not be negative: %w", l.MaxFiles, errdefs.ErrInvalidArgument,
		)
	}
	out := wire.Log{
		Driver: l.Driver, Path: l.Path, MaxBytes: l.MaxBytes, MaxFiles: uint32(l.MaxFiles),
	}
	if l.Driver == LogJSONFile && l.Attributes != "" {
		out.Driver, out.Attributes = wire.LogJSONAttributes, l.Attributes
	}
	return out, nil
}

// keep appends the descriptors of a list to fds.
func keep(list []Kept, fds []int) ([]string, []int, error) {
	var names []string
	for i, k := range list {
		if k.File == nil {
			return nil, nil, fmt.Errorf(
				"keep[%d] %.40q: no file: %w", i, k.Name, errdefs.ErrInvalidArgument,
			)
		}
		fd, err := descriptor(k.File)
		if err != nil {
			return nil, nil, fmt.Errorf("keep[%d] %.40q: %w", i, k.Name, err)
		}
		names, fds = append(names, k.Name), append(fds, fd)
	}
	return names, fds, nil
}

// attachments appends the descriptors of a list to fds.
func attachments(list []Attachment, fds []int) ([]wire.Attachment, []int, error) {
	fds = slices.Clip(fds)
	var out []wire.Attachment
	for i, at := range list {
		if at.Stdout == nil && at.Stderr == nil {
			return nil, nil, fmt.Errorf(
				"attach[%d]: neither stdout nor stderr is given: %w", i, errdefs.ErrInvalidArgument,
			)
		}
		w := wire.Attachment{
			Stdout: at.Stdout != nil, Stderr: at.Stderr != nil, Same: at.Stdout == at.Stderr,
			Framed: at.Framed, Pending: at.Pending,
			Overflow: at.Overflow,
		}
		files := []*os.File{at.Stdout, at.Stderr}
		if w.Same {
			files = files[:1]
		}
		for _, f := range files {
			if f == nil {
				continue
			}
			fd, err := descriptor(f)
			if err != nil {
				return nil, nil, fmt.Errorf("attach[%d]: %w", i, err)
			}
			fds = append(fds, fd)
		}
		out = append(out, w)
	}
	return out, fds, nil
}

// sealed puts an image into a memory file that cannot change any more.
func sealed(image []byte) (int, error) {
	if len(image) == 0 || len(image) > wire.MaxImage {
		return -1, fmt.Errorf(
			"image of %d bytes, 1 to %d are allowed: %w", len(image), wire.MaxImage,
			errdefs.ErrInvalidArgument,
		)
	}
	// MFD_NOEXEC_SEAL is for hosts that refuse executable memory files; kernels before 6.3 do not
	// know it.
	fd, err := unix.MemfdCreate(
		"strake-program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL,
	)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("strake-program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create for the program: %w", err)
	}
	for rest := image; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("write the program: %w", err)
		}
		rest = rest[max(n, 0):]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, wire.ImageSeals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal the program: %w", err)
	}
	return fd, nil
}
