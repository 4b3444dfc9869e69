package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"strake/network/firewall"
)

// PortInUseError says that a host port belongs to another container or program. It unwraps to
// errdefs.ErrAlreadyExists.
type PortInUseError struct {
	Port string // address:port/protocol
	// By names the container or process, as far as it can be found out.
	By string
}

func (e *PortInUseError) Error() string {
	by := e.By
	if by == "" {
		by = "another program"
	}
	return fmt.Sprintf("port %s is already in use by %s: %v", e.Port, by, errdefs.ErrAlreadyExists)
}

// Unwrap returns the class of the error.
func (e *PortInUseError) Unwrap() error { return errdefs.ErrAlreadyExists }

// nameOwner completes the error for a port that is in use.
func (p *publisher) nameOwner(b binding, e *PortInUseError) {
	if e.By = p.reg.portHolder(b); e.By != "" {
		return
	}
	var inode uint32
	// Without an owner the error is still true, only less helpful.
	_ = p.host.enter(func() (err error) {
		inode, err = socketInode(b)
		return err
	})
	if inode != 0 {
		e.By = processOf(inode)
	}
}

// overlap says whether two addresses cannot have the same port at the same time.
func overlap(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// socketInode asks the kernel for the socket that has the port, in the calling thread's namespace
// (sock_diag(7)).
func socketInode(p binding) (uint32, error) {
	h, err := netlink.NewHandle(unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var socks []*netlink.Socket
		if p.Proto == firewall.UDP {
			socks, err = h.SocketDiagUDP(family)
		} else {
			socks, err = h.SocketDiagTCP(family)
		}
		if err != nil {
			return 0, err
		}
		const listening = 10 // TCP_LISTEN
		for _, s := range socks {
			addr, _ := netip.AddrFromSlice(s.ID.Source)
			addr = addr.Unmap()
			// A socket on :: without IPV6_V6ONLY takes the port of 0.0.0.0 as well.
			clash := overlap(addr, p.HostIP) || addr.IsUnspecified() && family == unix.AF_INET6
			held := p.Proto == firewall.UDP || s.State == listening
			if s.ID.SourcePort == p.HostPort && clash && held {
				return s.INode, nil
			}
		}
	}
	return 0, nil
}

// processOf names the process that has a socket open.
func processOf(inode uint32) string {
	want := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("process %q (pid %s)", strings.TrimSpace(string(comm)), pid)
	}
	return ""
}
