package network

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network/link"
	"strake/network/place"
)

// waysOut are the interfaces of the default routes in a namespace, for IPv4 and IPv6.
func (l *lab) waysOut(ns *os.File) string {
	l.t.Helper()
	var v4, v6 []string
	if err := link.Enter(ns, func() error {
		raw, err := os.ReadFile("/proc/thread-self/net/route")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); f[1] == "00000000" && f[7] == "00000000" {
				v4 = append(v4, f[0])
			}
		}
		raw, err = os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil {
			return err
		}
		zero := strings.Repeat("0", 32)
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); f[0] == zero && f[1] == "00" && f[4] != zero {
				v6 = append(v6, f[len(f)-1])
			}
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return fmt.Sprint(v4, v6)
}

// TestGatewayPriority: the network of the highest priority is the way out, each family on its own,
// also after another process has taken over; of equal ones it is the first.
func TestGatewayPriority(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	only4 := l.network(m, Spec{Name: "only4"})
	for _, name := range []string{"low", "high", "equal"} {
		l.network(m, Spec{Name: name, EnableIPv6: true})
	}
	l.network(m, Spec{Name: "inner", Internal: true})
	a := l.attach(m, Request{ContainerID: "a", Network: only4.ID})
	want := func(when, ways string) {
		t.Helper()
		if got := l.waysOut(a.NetNS); got != ways {
			t.Errorf("%s: ways out %s, want %s", when, got, ways)
		}
	}
	want("alone", "[eth0] []")
	l.attach(m, Request{ContainerID: "a", Network: "low", GatewayPriority: -5})
	want("with a lower one that has IPv6", "[eth0] [eth1]")
	high := l.attach(m, Request{
		ContainerID: "a", Network: "high", GatewayPriority: 100, Interface: "wan",
		Sysctls: []string{"net.ipv4.conf.IFNAME.log_martians=1"},
	})
	want("with a higher one", "[wan] [wan]")
	equal := l.attach(m, Request{ContainerID: "a", Network: "equal", GatewayPriority: 100})
	want("with an equal one", "[wan] [wan]")
	l.attach(m, Request{ContainerID: "a", Network: "inner", GatewayPriority: 1000})
	want("with an internal one", "[wan] [wan]")
	if high.Interface != "wan" || equal.Interface != "eth2" {
		t.Errorf("interfaces %q and %q", high.Interface, equal.Interface)
	}
	if err := link.Enter(a.NetNS, func() error {
		got, err := readSysctl("net.ipv4.conf.wan.log_martians")
		if got != "1" {
			t.Errorf("log_martians of wan is %q", got)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	for _, id := range []string{high.EndpointID, equal.EndpointID} {
		if err := m.Detach(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if id == high.EndpointID {
			want("after the highest", "[eth2] [eth2]")
		}
	}
	want("after all higher ones", "[eth0] [eth1]")
}

// TestGatewayPriorityRecorded: what a manager knew of priorities and of the order of interfaces,
// the next one knows.
func TestGatewayPriorityRecorded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m, err := Open(l.config())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two", "three"} {
		l.network(m, Spec{Name: name})
	}
	one := l.attach(m, Request{ContainerID: "a", Network: "one", Interface: "x"})
	l.attach(m, Request{ContainerID: "a", Network: "two", Interface: "a", GatewayPriority: 2})
	three := l.attach(m, Request{ContainerID: "a", Network: "three", GatewayPriority: 3})
	path := fmt.Sprintf("/proc/self/fd/%d", one.NetNS.Fd())
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = l.open(nil)
	if err := m.Reconcile(t.Context(), "docker", []Live{
		{ContainerID: "a", NetNS: fmt.Sprintf("/proc/self/fd/%d", held.Fd())},
	}); err != nil {
		t.Fatal(err)
	}
	if err := m.Detach(t.Context(), three.EndpointID); err != nil {
		t.Fatal(err)
	}
	if got := l.waysOut(held); got != "[a] []" {
		t.Errorf("ways out %s, want a", got)
	}
}

// TestGatewayOfPublished: the way out of a container does not leave the network in which its ports
// are published.
func TestGatewayOfPublished(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.open(nil)
	l.network(m, Spec{Name: "other"})
	a := l.attach(m, Request{
		ContainerID: "a",
		Ports: []place.Port{
			{ContainerPort: 80, HostIP: netip.MustParseAddr(hostAddr4), HostPort: 8080},
		},
	})
	_, err := m.Attach(t.Context(), Request{
		ContainerID: "a", Network: "other", GatewayPriority: 1,
	})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "gateway priority 1") {
		t.Errorf("got %v", err)
	}
	l.attach(m, Request{ContainerID: "a", Network: "other"})
	if got := l.waysOut(a.NetNS); !strings.HasPrefix(got, "[eth0]") {
		t.Errorf("ways out %s", got)
	}
	_, err = m.Attach(t.Context(), Request{ContainerID: "b", Network: "other", Interface: "all"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("interface all: %v", err)
	}
}

func TestInterfaceSysctl(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"net.ipv4.conf.IFNAME.log_martians=1": "net.ipv4.conf.a/b.log_martians 1",
		"net.ipv6.neigh.ifname.x.y=a=b":       "net.ipv6.neigh.a/b.x.y a=b",
		"net.ipv4.conf.eth0.log_martians=1":   "",
		"net.core.conf.IFNAME.x=1":            "",
		"net.ipv4.conf.IFNAME=1":              "",
		"net.ipv4.conf.IFNAME.x":              "",
		"kernel.ipv4.conf.IFNAME.x=1":         "",
		"net.ipv4.../../IFNAME.x=1":           "",
	} {
		name, value, err := interfaceSysctl(text, "a.b")
		if got := strings.TrimSpace(name + " " + value); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
}
