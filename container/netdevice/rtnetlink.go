package netdevice

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// socket is an rtnetlink(7) socket. It stays in the network namespace in which it was opened.
type socket struct{ fd int }

func open() (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return socket{-1}, fmt.Errorf("open rtnetlink: %w", err)
	}
	return socket{fd}, nil
}

func (s socket) close() { unix.Close(s.fd) }

// talk sends one request (netlink(7)) and gives the messages of the answer to visit. It returns the
// kernel's refusal.
func (s socket) talk(typ, flags uint16, body []byte, visit func(body []byte)) error {
	out := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	out = binary.NativeEndian.AppendUint16(out, typ)
	out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	out = append(out, make([]byte, 8)...) // number and sender
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(s.fd, append(out, body...), 0, kernel); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := answer(buf[:n], visit); done || err != nil {
			return err
		}
	}
}

// answer reads one datagram and says whether it ends the answer.
func answer(b []byte, visit func(body []byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return false, fmt.Errorf("message of %d bytes in %d: %w", length, len(b), unix.EBADMSG)
		}
		body := b[unix.NLMSG_HDRLEN:length]
		switch typ := binary.NativeEndian.Uint16(b[4:]); {
		case typ != unix.NLMSG_ERROR && typ != unix.NLMSG_DONE:
			if visit != nil {
				visit(body)
			}
		case len(body) < 4:
			return true, nil
		default:
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return true, unix.Errno(-code)
			}
			return true, nil
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return false, nil
}

// attribute appends a struct rtattr with its value.
func attribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func number(v int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }

func text(s string) []byte { return append([]byte(s), 0) }

// attributes visits the attributes of b. What is malformed ends it.
func attributes(b []byte, visit func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		visit(
			binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER),
			b[unix.SizeofRtAttr:length],
		)
		b = b[min((length+3)&^3, len(b)):]
	}
}
