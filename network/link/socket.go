// Package link speaks rtnetlink: interfaces, addresses and routes, in a network namespace that the
// caller chooses.
//
// A start of a container waits for what happens here, so messages are sent in batches: everything
// that a new namespace needs goes to the kernel in one system call, and one message makes a veth
// pair that is a port of its bridge, up, and has its far end in place.
//
// Not for: decisions (which address, which bridge), anything but links, addresses, routes and
// neighbours. Rare and long-winded work goes through github.com/vishvananda/netlink instead.
//
// Tested on a real kernel in network namespaces of the test's own; needs root.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Socket is an rtnetlink socket. It belongs to the network namespace of the thread that opened it,
// wherever it is used afterwards. Safe for concurrent use.
type Socket struct {
	fd int

	mu  sync.Mutex
	seq uint32 // guarded by mu
}

// Open opens a socket in the network namespace of the calling thread.
func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	// Errors come with the kernel's explanation, not with a copy of the request. Old kernels lack
	// neither.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Socket{fd: fd}, nil
}

// buffers are for reading a datagram. The kernel makes no datagram of a listing longer than the
// longest read so far, and at least 16 KiB if the reader takes that.
var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// Close closes the socket.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.fd
	s.fd = -1
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Request is one message to the kernel.
type Request struct {
	// what names the request in errors.
	what  string
	typ   uint16
	flags uint16
	body  []byte
}

// Error is the kernel's refusal of one request. It unwraps to the errno.
type Error struct {
	What    string
	Errno   unix.Errno
	Message string // the kernel's explanation (NLMSGERR_ATTR_MSG), often empty
}

func (e *Error) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("%s: %v: %s", e.What, e.Errno, e.Message)
	}
	return fmt.Sprintf("%s: %v", e.What, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

// Do sends requests in one system call and waits for the answer to each. The kernel carries out all
// of them, also those behind a refused one; Do returns the refusals joined.
func (s *Socket) Do(reqs ...Request) error {
	if len(reqs) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.seq + 1
	var out []byte
	for _, r := range reqs {
		s.seq++
		out = r.append(out, s.seq, unix.NLM_F_ACK)
	}
	if err := s.send(out); err != nil {
		return fmt.Errorf("%s: %w", reqs[0].what, err)
	}
	var errs []error
	for answered := 0; answered < len(reqs); {
		err := s.receive(func(h header, body []byte) error {
			i := h.seq - first
			if h.typ != unix.NLMSG_ERROR || i >= uint32(len(reqs)) {
				return nil // a late answer to a request that failed half way
			}
			answered++
			if err := ackError(reqs[i].what, h, body); err != nil {
				errs = append(errs, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", reqs[0].what, err)
		}
	}
	return errors.Join(errs...)
}

// Dump sends one request and gives each message of the answer to visit, without its header. The
// slice is valid during the call only.
func (s *Socket) Dump(r Request, visit func(typ uint16, body []byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	seq := s.seq
	if err := s.send(r.append(nil, seq, unix.NLM_F_DUMP)); err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	for done := false; !done; {
		err := s.receive(func(h header, body []byte) error {
			switch {
			case h.seq != seq:
			case h.typ == unix.NLMSG_DONE:
				done = true
			case h.typ == unix.NLMSG_ERROR:
				done = true
				return ackError(r.what, h, body)
			default:
				visit(h.typ, body)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// get sends one request that is answered by one message and an acknowledgement.
func (s *Socket) get(r Request, visit func(body []byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	seq := s.seq
	if err := s.send(r.append(nil, seq, unix.NLM_F_ACK)); err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	for done := false; !done; {
		err := s.receive(func(h header, body []byte) error {
			switch {
			case h.seq != seq:
			case h.typ == unix.NLMSG_ERROR:
				done = true
				return ackError(r.what, h, body)
			default:
				visit(body)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Socket) send(out []byte) error {
	if s.fd < 0 {
		return os.ErrClosed
	}
	return unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

type header struct {
	typ, flags uint16
	seq        uint32
}

// receive reads one datagram and visits its messages; the first error of visit is returned after
// all of them. visit must not keep what it gets.
func (s *Socket) receive(visit func(header, []byte) error) error {
	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)
	var n int
	for {
		var err error
		n, _, err = unix.Recvfrom(s.fd, buf[:], 0)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("receive: %w", err)
		}
	}
	var first error
	for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return fmt.Errorf(
				"receive: message of %d bytes in %d: %w", length, len(b), unix.EBADMSG,
			)
		}
		h := header{
			binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]),
			binary.NativeEndian.Uint32(b[8:]),
		}
		if err := visit(h, b[unix.NLMSG_HDRLEN:length]); err != nil && first == nil {
			first = err
		}
		b = b[min(align(length), len(b)):]
	}
	return first
}

// ackError reads an acknowledgement (linux/netlink.h, struct nlmsgerr).
func ackError(what string, h header, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%s: short acknowledgement: %w", what, unix.EBADMSG)
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	e := &Error{What: what, Errno: unix.Errno(-code)}
	const ackTLVs, attrMsg = 0x200, 1
	if rest := 4 + unix.NLMSG_HDRLEN; h.flags&ackTLVs != 0 && len(body) > rest {
		attributes(body[rest:], func(typ uint16, v []byte) {
			if typ == attrMsg {
				for len(v) > 0 && v[len(v)-1] == 0 {
					v = v[:len(v)-1]
				}
				e.Message = string(v)
			}
		})
	}
	return e
}

func (r Request) append(out []byte, seq uint32, flags uint16) []byte {
	out = binary.NativeEndian.AppendUint32(out, uint32(unix.NLMSG_HDRLEN+len(r.body)))
	out = binary.NativeEndian.AppendUint16(out, r.typ)
	out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|r.flags|flags)
	out = binary.NativeEndian.AppendUint32(out, seq)
	out = binary.NativeEndian.AppendUint32(out, 0)
	return pad(append(out, r.body...))
}

func align(n int) int { return (n + 3) &^ 3 }

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// attr appends one attribute.
func attr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return pad(append(b, value...))
}

func attr32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, binary.NativeEndian.AppendUint32(nil, v))
}

func attrString(b []byte, typ uint16, s string) []byte {
	return attr(b, typ, append([]byte(s), 0))
}

// attributes visits the attributes of b; malformed rest is ignored.
func attributes(b []byte, visit func(typ uint16, value []byte)) {
	for len(b) >= 4 {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return
		}
		visit(
			binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER),
			b[4:length],
		)
		b = b[min(align(length), len(b)):]
	}
}
