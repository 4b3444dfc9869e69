package spawn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// Child is a started process. Its methods, but for Interrupt, are not for concurrent use.
type Child struct {
	// Pid is the child in the caller's PID namespace. It is a child of the calling process, to be
	// reaped by it.
	Pid int
	// PidFD refers to it. The caller closes it.
	PidFD int
	sync  int
	// forking: the program goes on in a second process that has not reported itself yet
	// (program.Builder.Fork).
	forking bool
	reaped  bool
	// later has the mappings of the second process.
	later *Request

	mu                    sync.Mutex // of who the child is, for Interrupt
	interrupted, released bool
}

// errKilled is the end of a child that was killed before its program went on in another process, as
// it was to do. Both are reaped then.
var errKilled = errors.New("the process was killed before it executed")

// Failure is an operation of a program that failed.
type Failure struct {
	// Index is the operation's place in the program.
	Index int
	// Errno is the kernel's reason.
	Errno syscall.Errno
}

func (f *Failure) Error() string {
	return fmt.Sprintf("operation %d: %s", f.Index, f.Errno.Error())
}

func (f *Failure) Unwrap() error { return f.Errno }

// writeMaps writes the mappings of the child's new user namespace, and its OOM score, which root of
// that namespace may not lower, and continues it.
func (c *Child) writeMaps(req *Request) error {
	if score, ok := req.Image.OOMScore(); ok {
		path := fmt.Sprintf("/proc/%d/oom_score_adj", c.Pid)
		if err := os.WriteFile(path, []byte(strconv.Itoa(score)), 0); err != nil {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	for _, m := range []struct {
		file string
		maps []IDMap
	}{{"uid_map", req.UIDMap}, {"gid_map", req.GIDMap}} {
		var text []byte
		for _, l := range m.maps {
			text = fmt.Appendf(text, "%d %d %d\n", l.Container, l.Host, l.Size)
		}
		path := fmt.Sprintf("/proc/%d/%s", c.Pid, m.file)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		// The kernel takes the whole map in one write.
		_, err = f.Write(text)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("write %d mappings to %s: %w", len(m.maps), path, err)
		}
	}
	return c.Continue()
}

// Message is what the child says: a stage that it has reached, or that it is done.
type Message struct {
	// Stage is one of program.Stage*, or 0 if the program has ended in a successful execve.
	Stage uint32
	// FD is the descriptor that came with program.StageTTY, else -1. It is the caller's to close.
	FD int
}

// Next waits for the child's next message. A failed operation is returned as *Failure. A child that
// was killed before it could execute looks like one that executed: its wait status tells.
//
// With program.StageForked, of which the caller need not do anything, the child that was cloned
// first is reaped, and Pid and PidFD change to its successor.
func (c *Child) Next() (Message, error) {
	var b [8]byte
	oob := make([]byte, unix.CmsgSpace(4)+unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.sync, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR, err == unix.ECONNRESET:
			// A child that ends before it has read all that was sent to it resets the connection.
			// That is reported once, and the child's own messages follow.
			continue
		case err == nil && n == 0 && c.forking:
			c.reapBoth()
			return Message{FD: -1}, errKilled
		case err == nil && n == 0:
			return Message{FD: -1}, nil
		case err != nil:
			return Message{FD: -1}, fmt.Errorf("read from the child: %w", err)
		case n != 8:
			return Message{FD: -1}, fmt.Errorf("read from the child: %d bytes, want 8", n)
		}
		m, sender, err := control(oob[:oobn])
		if err != nil {
			return m, err
		}
		first, second := binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])
		if first&program.StageBit == 0 {
			c.forking = false // the successor would have reported itself first
			return m, &Failure{Index: int(first), Errno: syscall.Errno(second)}
		}
		m.Stage = first &^ program.StageBit
		if m.Stage == program.StageForked {
			err = c.succeed(sender)
		}
		return m, err
	}
}

// control takes the descriptor and the sender's pid, 0 if it is not there, out of control messages.
func control(oob []byte) (m Message, sender int, err error) {
	m.FD = -1
	if len(oob) == 0 {
		return m, 0, nil
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return m, 0, fmt.Errorf("control messages of the child: %w", err)
	}
	for i := range list {
		switch list[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			cred, err := unix.ParseUnixCredentials(&list[i])
			if err != nil {
				return m, 0, fmt.Errorf("credentials of the child: %w", err)
			}
			sender = int(cred.Pid)
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&list[i])
			if err != nil || len(fds) != 1 {
				return m, 0, fmt.Errorf("descriptors of the child: %d, want 1: %w", len(fds), err)
			}
			m.FD = fds[0]
		}
	}
	return m, sender, nil
}

// Forking says that the program will go on in another process, which has not reported itself yet.
// When the present one ends, it may have been followed: Next tells.
func (c *Child) Forking() bool { return c.forking }

// expectFork makes the kernel add to each message who has sent it (SO_PASSCRED, unix(7)).
func (c *Child) expectFork(on bool) error {
	flag := 0
	if on {
		flag = 1
	}
	if err := unix.SetsockoptInt(c.sync, unix.SOL_SOCKET, unix.SO_PASSCRED, flag); err != nil {
		return fmt.Errorf("SO_PASSCRED: %w", err)
	}
	c.forking = on
	return nil
}

// succeed replaces the first child, which ends now, by the one that it has cloned with
// CLONE_PARENT. That one is our child too and cannot be reaped by another process, so its pid is
// not reused before pidfd_open.
func (c *Child) succeed(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	}
	c.mu.Lock()
	first, firstFD := c.Pid, c.PidFD
	c.Pid, c.PidFD = pid, fd
	if c.interrupted {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	c.mu.Unlock()
	unix.Close(firstFD)
	wait(first)
	if err := c.expectFork(false); err != nil || c.later == nil {
		return err
	}
	req := c.later
	c.later = nil
	return c.writeMaps(req)
}

// reapBoth reaps the child, and the process that it has cloned, if it has: one that has not reported
// itself. Both have ended or are about to. They are found by the process group of the child, which
// may have ended before it made that.
func (c *Child) reapBoth() {
	for first := false; ; {
		pid, err := unix.Wait4(-c.Pid, nil, 0, nil)
		first = first || pid == c.Pid
		if err == nil || err == unix.EINTR {
			continue
		}
		if !first {
			wait(c.Pid)
		}
		break
	}
	c.forking, c.reaped = false, true
}

// wait reaps a child.
func wait(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// Interrupt kills the child, also the process that its program goes on in later, unless Release was
// called.
func (c *Child) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return
	}
	c.interrupted = true
	unix.PidfdSendSignal(c.PidFD, unix.SIGKILL, nil, 0)
}

// Continue lets a child that waits go on.
func (c *Child) Continue() error {
	var b [8]byte
	if _, err := unix.Write(c.sync, b[:]); err != nil {
		return fmt.Errorf("release the child: %w", err)
	}
	return nil
}

// SyncFD is the spawner's end of the channel to the child, for poll(2) and epoll(7): Next does not
// block while it is readable or hung up. It stays the Child's.
func (c *Child) SyncFD() int { return c.sync }

// Resume makes a Child of a process that was started before the caller replaced itself by
// execve(2): the same three numbers, handed on.
func Resume(pid, pidFD, syncFD int) *Child {
	creds, err := unix.GetsockoptInt(syncFD, unix.SOL_SOCKET, unix.SO_PASSCRED)
	return &Child{Pid: pid, PidFD: pidFD, sync: syncFD, forking: err == nil && creds != 0}
}

// Release closes the channel to the child. The process itself is not affected, but for a program
// that still waits: it ends.
func (c *Child) Release() {
	c.mu.Lock()
	c.released = true
	c.mu.Unlock()
	if c.sync >= 0 {
		unix.Close(c.sync)
		c.sync = -1
	}
}

// Kill ends the child, reaps it, and closes PidFD.
func (c *Child) Kill() {
	if !c.reaped {
		unix.Kill(c.Pid, unix.SIGKILL)
	}
	if c.forking {
		// The child is not reaped, so that the number cannot be another group's.
		unix.Kill(-c.Pid, unix.SIGKILL)
		c.reapBoth()
	}
	if !c.reaped {
		wait(c.Pid)
	}
	c.Release()
	if c.PidFD >= 0 {
		unix.Close(c.PidFD)
		c.PidFD = -1
	}
}
