package network

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
	"strake/network/link"
)

// fingerprint is what a namespace looks like from inside. If two are equal, and the interface sent
// nothing but the reports, then no container has used the namespace in between.
type fingerprint struct {
	sockets    string // in use and in TIME_WAIT, from /proc/net/sockstat
	topology   uint64 // links, addresses, routes, rules
	generation uint32 // of its nftables
	// multicast listener reports sent, the only packets a kernel sends on its own here
	reports uint64
}

// inspect takes the fingerprint of the calling thread's namespace; rt is a socket of it.
func inspect(rt *link.Socket, v6 bool) (fingerprint, error) {
	var f fingerprint
	stat, err := rawfile.Read("/proc/thread-self/net/sockstat")
	if err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	f.sockets = sockets(string(stat))
	if f.topology, err = rt.Topology(); err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	if f.generation, err = generation(); err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	if !v6 {
		return f, nil // its interface has none, and the kernel sends nothing
	}
	snmp, err := rawfile.Read("/proc/thread-self/net/snmp6")
	if err != nil {
		return f, fmt.Errorf("inspect network namespace: %w", err)
	}
	f.reports = counter(string(snmp), "Icmp6OutMLDv2Reports") + counter(
		string(snmp), "Icmp6OutGroupMembResponses",
	) + counter(string(snmp), "Icmp6OutGroupMembReductions")
	return f, nil
}

// sockets keeps of sockstat what is per namespace: sockets in use, and TCP connections in
// TIME_WAIT.
func sockets(stat string) string {
	var used, tw string
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "sockets:" {
			used = f[2]
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[0] == "TCP:" && f[i] == "tw" {
				tw = f[i+1]
			}
		}
	}
	return used + " used, " + tw + " waiting"
}

func counter(snmp, name string) uint64 {
	for line := range strings.Lines(snmp) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return v
		}
	}
	return 0
}

// generation asks for the number of changes that the nftables of the calling thread's namespace
// have seen (NFT_MSG_GETGEN).
func generation() (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	msg := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = append(msg, make([]byte, 8+4)...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return 0, err
	}
	// nlmsghdr, nfgenmsg, then NFTA_GEN_ID first: a 32-bit number in network byte order.
	const at = unix.NLMSG_HDRLEN + 4
	if n < at+8 || binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR ||
		binary.NativeEndian.Uint16(buf[at+2:]) != unix.NFTA_GEN_ID {
		return 0, fmt.Errorf("nftables generation: unexpected answer: %w", unix.EBADMSG)
	}
	return binary.BigEndian.Uint32(buf[at+4:]), nil
}

// difference says why a namespace may not go back to the pool; empty when it may. sent is how many
// packets its interface sent in its life.
func difference(initial, final fingerprint, sent uint64) string {
	switch {
	case final.sockets != initial.sockets:
		return "sockets left: " + final.sockets
	case final.topology != initial.topology:
		return "interfaces, addresses, routes or rules changed"
	case final.generation != initial.generation:
		return "nftables changed"
	case sent != final.reports:
		return fmt.Sprintf("%d packets sent", sent-min(sent, final.reports))
	}
	return ""
}
