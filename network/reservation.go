package network

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"strake/network/firewall"
)

// reservation keeps a host port for a container by a socket bound to it, so that no other program
// takes the port while packets to it go elsewhere, and ss(8) shows it. Packets never reach the
// socket: they are translated before, with one exception, those to [::1]. A socket that can receive
// these relays them.
//
// The socket ends with this process; the rule in the kernel does not. The next Open binds it again.
type reservation struct {
	// fd is -1 without a socket of its own: the relay has it, or the kernel has no such protocol.
	fd    int
	port  uint16 // the port that it is bound to
	relay interface{ close() error }
}

// Close gives the port up.
func (r *reservation) Close() error {
	if r.relay != nil {
		return r.relay.close()
	}
	if r.fd < 0 {
		return nil
	}
	return unix.Close(r.fd)
}

// bind binds a socket in the calling thread's namespace. A TCP socket listens as well: only then
// does bind(2) by others fail whatever options they set, and no connection in TIME_WAIT keeps us
// from binding.
func bind(p binding) (*reservation, error) {
	family, typ := unix.AF_INET, unix.SOCK_STREAM
	if p.HostIP.Is6() {
		family = unix.AF_INET6
	}
	if p.Proto == firewall.UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(p.Proto))
	if err != nil {
		if p.Proto == firewall.SCTP {
			// On a kernel without SCTP sockets no program can take the port.
			return &reservation{fd: -1}, nil
		}
		return nil, err
	}
	kept := false
	defer func() {
		if !kept {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return nil, err
		}
	}
	if p.Proto == firewall.TCP {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, err
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.HostPort), Addr: as4(p.HostIP)}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(p.HostPort), Addr: p.HostIP.As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, err
	}
	if p.Proto == firewall.TCP {
		if err := unix.Listen(fd, 16); err != nil {
			return nil, err
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	r := &reservation{fd: fd}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		r.port = uint16(name.Port)
	case *unix.SockaddrInet6:
		r.port = uint16(name.Port)
	}
	kept = true
	return r, nil
}

func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
