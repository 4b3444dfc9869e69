package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network/link"
	"strake/network/place"
)

// TestPortInUse: the error names the container or the process that has the port.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	at := func(ip string, port, end uint16, proto string) []place.Port {
		p := place.Port{Proto: proto, ContainerPort: 80, HostPort: port, HostPortEnd: end}
		if ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		return []place.Port{p}
	}
	var tcp net.Listener
	var udp net.PacketConn
	if err := link.Enter(l.host, func() (err error) {
		if tcp, err = net.Listen("tcp4", hostAddr4+":7000"); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp6", "[::1]:7001")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	defer udp.Close()
	l.attach(m, Request{ContainerID: "a", Name: "web", Ports: at("", 8080, 0, "tcp")})
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	self := fmt.Sprintf("process %q (pid %d)", strings.TrimSpace(string(comm)), os.Getpid())
	tests := []struct {
		name  string
		ports []place.Port
		by    string
	}{
		{"of a container", at("127.0.0.1", 8080, 0, "tcp"), `container "web"`},
		{"of a process", at("", 7000, 0, "tcp"), self},
		{"of a process, by datagram", at("::1", 7001, 0, "udp"), self},
		{"range of one", at("", 8080, 8080, "tcp"), `container "web"`},
	}
	for _, tt := range tests {
		_, err := m.Attach(t.Context(), Request{ContainerID: "b", Ports: tt.ports})
		inUse := (*PortInUseError)(nil)
		if !errdefs.IsAlreadyExists(err) || !errors.As(err, &inUse) || inUse.By != tt.by ||
			!strings.Contains(err.Error(), "is already in use by "+tt.by) {
			t.Errorf("port %s: got %v, want it in use by %s", tt.name, err, tt.by)
		}
	}
	b := l.attach(m, Request{ContainerID: "b", Ports: append(
		at("", 8080, 8085, "tcp"), at("", 8080, 8085, "tcp")...,
	)})
	var got []uint16
	for _, p := range b.Ports {
		if p.HostIP.Is4() {
			got = append(got, p.HostPort)
		}
	}
	if !slices.Equal(got, []uint16{8081, 8082}) {
		t.Errorf("two of a range: got %v", got)
	}
	_, err = m.Attach(t.Context(), Request{
		ContainerID: "c", Ports: at("198.51.100.9", 9000, 0, "tcp"),
	})
	if !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "not an address of this host") {
		t.Errorf("address of another host: got %v", err)
	}
}
