package server

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// sinkMemory is how much may wait for a subscriber in memory, in bytes.
const sinkMemory = 256 << 10

// subscription is a client's request for a process's output.
type subscription struct {
	id       uint64
	framed   bool
	overflow wire.Overflow
	sinks    [2]*sink // by stream; the same one twice for both in one, nil where not wanted
}

// sink is a descriptor that output is delivered to, and what it has not taken yet: first what is in
// memory, then what is in the file.
type sink struct {
	p      *process
	sub    *subscription
	fd     int // -1 when it is done
	socket bool
	feeds  int // streams that are not at their end
	mem    []byte
	spill  int // file, -1 if none
	from   int64
	to     int64
	failed bool // ended before its streams
	lost   uint64
}

// newSink takes fd over, also when it fails. Errors are of class errdefs.ErrInvalidArgument.
func newSink(fd int) (*sink, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	k := &sink{fd: fd, spill: -1}
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		k.socket = true
		var kind int
		if kind, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil &&
			kind != unix.SOCK_STREAM {
			err = fmt.Errorf(
				"subscriber: socket of type %d, want SOCK_STREAM: %w", kind,
				errdefs.ErrInvalidArgument,
			)
		}
	case st.Mode&unix.S_IFMT == unix.S_IFIFO:
		// O_NONBLOCK would apply to the client's end of the same open file too, so this is a new
		// one.
		own, operr := unix.Open(
			fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0,
		)
		if operr != nil {
			// its reader is gone (ENXIO): the first write will tell
			err = unix.SetNonblock(fd, true)
			break
		}
		unix.Close(fd)
		k.fd = own
	default:
		err = fmt.Errorf(
			"subscriber: file of mode %#o, want a stream socket or a pipe: %w", st.Mode,
			errdefs.ErrInvalidArgument,
		)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return k, nil
}

// deliver gives a piece of output to the subscriber. buf begins with headroom bytes in front of the
// output.
func (k *sink) deliver(stream int, buf []byte) {
	if k.fd < 0 {
		return
	}
	data := buf[headroom:]
	if k.sub.framed {
		data = frame(stream, buf)
	}
	if len(k.mem) == 0 && k.spill < 0 {
		n, err := k.write(data)
		if err != nil {
			k.fail(0)
			return
		}
		data = data[n:]
	}
	if len(data) > 0 {
		k.store(data)
	}
}

// frame fills the headroom with Docker's header for a piece of a stream.
func frame(stream int, buf []byte) []byte {
	binary.BigEndian.PutUint32(buf, uint32(stream+1)<<24)
	binary.BigEndian.PutUint32(buf[4:], uint32(len(buf)-headroom))
	return buf
}

// write writes what the subscriber takes at once; an error means that the reader has gone.
func (k *sink) write(data []byte) (done int, err error) {
	for done < len(data) {
		var n int
		if k.socket {
			n, err = unix.SendmsgN(k.fd, data[done:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			n, err = unix.Write(k.fd, data[done:])
		}
		switch err {
		case nil:
			done += n
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return done, nil
		default:
			return done, err
		}
	}
	return done, nil
}

// store keeps what the subscriber has not taken.
func (k *sink) store(data []byte) {
	if k.spill < 0 && (k.sub.overflow == wire.OverflowBlock || len(k.mem)+len(data) <= sinkMemory) {
		// With OverflowBlock the stream is paused before this can grow by more than a read.
		if len(k.mem) == 0 {
			k.p.s.watch(k.fd, unix.EPOLLOUT, k.ready)
		}
		k.mem = append(k.mem, data...)
		return
	}
	if err := k.toFile(data); err != nil {
		k.p.s.cfg.Logf("process %q: subscriber %d is disconnected: %v", k.p.id, k.sub.id, err)
		k.fail(k.waiting() + uint64(len(data)))
	}
}

var errTooSlow = errors.New("too much waits for it")

func (k *sink) toFile(data []byte) error {
	s := k.p.s
	if k.to-k.from+int64(len(data)) > s.cfg.SpillBytes {
		return errTooSlow
	}
	if k.spill < 0 {
		fd, err := unix.Open(s.cfg.StateDir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("file for output in %q: %w", s.cfg.StateDir, err)
		}
		k.spill, k.from, k.to = fd, 0, 0
	}
	for len(data) > 0 {
		n, err := unix.Pwrite(k.spill, data, k.to)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("file for output in %q: %w", s.cfg.StateDir, err)
		}
		k.to += int64(n)
		data = data[n:]
	}
	return nil
}

func (k *sink) waiting() uint64 { return uint64(len(k.mem)) + uint64(k.to-k.from) }

// full says that an OverflowBlock subscriber must catch up first.
func (k *sink) full() bool {
	return k.fd >= 0 && k.sub.overflow == wire.OverflowBlock && len(k.mem) >= sinkMemory
}

func (k *sink) ready(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		k.fail(0)
		k.p.unblock()
		return
	}
	k.flush()
	k.p.unblock()
}

// flush writes what waits.
func (k *sink) flush() {
	n, err := k.write(k.mem)
	if err != nil {
		k.fail(0)
		return
	}
	if k.mem = k.mem[n:]; len(k.mem) > 0 {
		return
	}
	k.mem = nil
	if k.spill >= 0 {
		if !k.flushFile() {
			return
		}
		unix.Close(k.spill)
		k.spill, k.from, k.to = -1, 0, 0
	}
	if k.feeds == 0 {
		k.finish()
		return
	}
	k.p.s.watch(k.fd, 0, k.ready)
}

// flushFile writes what waits in the file, at most what fills a socket many times over, and says
// whether that is all.
func (k *sink) flushFile() bool {
	if k.p.s.output == nil {
		k.p.s.output = make([]byte, outputSize)
	}
	buf := k.p.s.output
	for range 16 {
		if k.from == k.to {
			return true
		}
		n, err := unix.Pread(k.spill, buf[:min(int64(len(buf)), k.to-k.from)], k.from)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			k.p.s.cfg.Logf(
				"process %q: subscriber %d is disconnected: read what waits for it: %v", k.p.id,
				k.sub.id, err,
			)
			k.fail(k.waiting())
			return false
		}
		done, err := k.write(buf[:n])
		if err != nil {
			k.fail(0)
			return false
		}
		k.from += int64(done)
		if done < n {
			break
		}
	}
	// What is delivered takes no space any more; a file system that cannot give it back keeps it
	// until the end.
	const block = 1 << 20
	if end := k.from &^ (block - 1); end > 0 {
		unix.Fallocate(k.spill, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, end)
	}
	return k.from == k.to
}

// end says that one of the sink's streams has ended.
func (k *sink) end() {
	if k.feeds--; k.feeds == 0 && len(k.mem) == 0 && k.spill < 0 {
		k.finish()
	}
}

// finish closes the descriptor: everything is delivered, or the reader has gone.
func (k *sink) finish() {
	if k.fd < 0 {
		return
	}
	k.p.s.ignore(k.fd)
	unix.Close(k.fd)
	k.fd, k.mem = -1, nil
	if k.spill >= 0 {
		unix.Close(k.spill)
		k.spill = -1
	}
	k.p.sinkEnded(k.sub)
}

// fail ends a sink whose streams go on.
func (k *sink) fail(lost uint64) {
	if k.fd >= 0 {
		k.failed, k.lost = true, lost
		k.finish()
	}
}
