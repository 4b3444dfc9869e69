package spawn

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"syscall"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// Child is a started process. Its methods are not for concurrent use.
type Child struct {
	// Pid is the child in the caller's PID namespace. It is a child of the calling process, to be
	// reaped by it.
	Pid int
	// PidFD refers to it. The caller closes it.
	PidFD int
	sync  int
}

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

func (c *Child) writeMaps(req *Request) error {
	if req.Image.CloneFlags()&unix.CLONE_NEWUSER == 0 {
		return nil
	}
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
// program.StageForked is handled here: the child that was cloned first is reaped and Pid and PidFD
// change to its successor.
func (c *Child) Next() (Message, error) {
	var b [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(c.sync, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR, err == unix.ECONNRESET:
			// A child that ends before it has read all that was sent to it resets the connection.
			// That is reported once, and the child's own messages follow.
			continue
		case err == nil && n == 0:
			return Message{FD: -1}, nil
		case err != nil:
			return Message{FD: -1}, fmt.Errorf("read from the child: %w", err)
		case n != 8:
			return Message{FD: -1}, fmt.Errorf("read from the child: %d bytes, want 8", n)
		}
		m := Message{FD: -1}
		if oobn > 0 {
			if m.FD, err = receivedFD(oob[:oobn]); err != nil {
				return m, err
			}
		}
		first, second := binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])
		if first&program.StageBit == 0 {
			return m, &Failure{Index: int(first), Errno: syscall.Errno(second)}
		}
		m.Stage = first &^ program.StageBit
		if m.Stage != program.StageForked {
			return m, nil
		}
		if err := c.succeed(int(second)); err != nil {
			return m, err
		}
	}
}

// receivedFD takes the one descriptor out of a control message.
func receivedFD(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("control message of the child: %d messages: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("control message of the child: %d descriptors: %w", len(fds), err)
	}
	return fds[0], nil
}

// succeed replaces the first child, which ends now, by the one that it has cloned with
// CLONE_PARENT. That one is our child too and cannot be reaped by another process, so its pid is
// not reused before pidfd_open.
func (c *Child) succeed(pid int) error {
	first, firstFD := c.Pid, c.PidFD
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	}
	c.Pid, c.PidFD = pid, fd
	unix.Close(firstFD)
	for {
		if _, err := unix.Wait4(first, nil, 0, nil); err != unix.EINTR {
			return nil
		}
	}
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
func Resume(pid, pidFD, syncFD int) *Child { return &Child{Pid: pid, PidFD: pidFD, sync: syncFD} }

// Release closes the channel to the child. The process itself is not affected, but for a program
// that still waits: it ends.
func (c *Child) Release() {
	if c.sync >= 0 {
		unix.Close(c.sync)
		c.sync = -1
	}
}

// Kill ends the child, reaps it, and closes PidFD.
func (c *Child) Kill() {
	unix.Kill(c.Pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(c.Pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if c.PidFD >= 0 {
		unix.Close(c.PidFD)
		c.PidFD = -1
	}
	c.Release()
}
