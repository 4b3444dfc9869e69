package network

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/network/link"
)

// lab is a host in a network namespace of its own, with a neighbour on its uplink. Nothing of the
// machine's own network is touched.
type lab struct {
	t          *testing.T
	host       *os.File
	outside    *os.File
	stateDir   string
	resolvConf string
}

// Addresses of the lab.
const (
	hostAddr4, outsideAddr4 = "203.0.113.1", "203.0.113.2"
	hostAddr6, outsideAddr6 = "2001:db8::1", "2001:db8::2"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	ns, err := link.Create(func(*os.File) error { return nil })
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN: makes network namespaces")
	}
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{
		t: t, stateDir: filepath.Join(t.TempDir(), "state"),
		resolvConf: filepath.Join(t.TempDir(), "resolv.conf"),
	}
	l.host, l.outside = labNamespaces(t)
	if err := os.WriteFile(
		l.resolvConf, []byte("nameserver "+outsideAddr4+"\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	return l
}

func labNamespaces(t testing.TB) (host, outside *os.File) {
	t.Helper()
	bare := func() *os.File {
		ns, err := link.Create(func(*os.File) error {
			for _, s := range [][2]string{
				{"net.ipv6.conf.default.accept_dad", "0"}, {"net.ipv6.conf.all.accept_dad", "0"},
				{"net.ipv4.ip_forward", "0"},
			} {
				if err := writeSysctl(s[0], s[1]); err != nil {
					return err
				}
			}
			rt, err := link.Open()
			if err != nil {
				return err
			}
			defer rt.Close()
			return rt.Do(link.SetUp(1))
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		return ns
	}
	host, outside = bare(), bare()
	err := link.Enter(host, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		// A bridge of the lab's stands for the host's uplink; its only port leads to the neighbour.
		if err := rt.Do(
			link.AddBridge("uplink", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0),
		); err != nil {
			return err
		}
		info, err := rt.ByName("uplink")
		if err != nil {
			return err
		}
		return rt.Do(
			link.AddVeth(
				link.Veth{
					Name: "port0", Bridge: info.Index, PeerName: "up0", PeerNS: int(outside.Fd()),
				},
			),
			link.AddAddress(info.Index, netip.MustParsePrefix(hostAddr4+"/24")),
			link.AddAddress(info.Index, netip.MustParsePrefix(hostAddr6+"/64")),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = link.Enter(outside, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		info, err := rt.ByName("up0")
		if err != nil {
			return err
		}
		// The neighbour uses the host as its router: what it sends to containers' addresses
		// arrives.
		return rt.Do(link.SetUp(info.Index), link.AddAddress(
			info.Index, netip.MustParsePrefix(outsideAddr4+"/24"),
		), link.AddAddress(info.Index, netip.MustParsePrefix(outsideAddr6+"/64")),
			link.AddRoute(
				link.Route{
					Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(hostAddr4),
					Index: info.Index,
				},
			),
			link.AddRoute(
				link.Route{
					Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr(hostAddr6),
					Index: info.Index,
				},
			),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	return host, outside
}

// filterBridged says whether bridged packets go through the packet filter ("1") or not ("0"). The
// error is an fs.ErrNotExist where br_netfilter is not loaded.
func (l *lab) filterBridged(call string) error {
	return link.Enter(l.host, func() error {
		for _, name := range []string{
			"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
		} {
			if err := writeSysctl(name, call); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *lab) config() Config {
	return Config{
		StateDir: l.stateDir, Prefix: "sk", NetNS: l.host, ResolvConf: l.resolvConf, PoolSize: 2,
		DefaultIPv6: true, Logger: slog.New(slog.NewTextHandler(testWriter{l.t}, nil)),
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// open opens a Manager that is closed with the test.
func (l *lab) open(change func(*Config)) *Manager {
	l.t.Helper()
	cfg := l.config()
	if change != nil {
		change(&cfg)
	}
	m, err := Open(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return m
}

// attach attaches a container, or ends the test.
func (l *lab) attach(m *Manager, r Request) *Attachment {
	l.t.Helper()
	a, err := m.Attach(l.t.Context(), r)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

func (l *lab) network(m *Manager, s Spec) Network {
	l.t.Helper()
	n, err := m.CreateNetwork(l.t.Context(), s)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// serve answers every connection and datagram on a port in ns with its word and the sender's
// address.
func (l *lab) serve(ns *os.File, port int, word string) {
	l.t.Helper()
	var listener net.Listener
	var pc net.PacketConn
	err := link.Enter(ns, func() (err error) {
		if listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		pc, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close(); pc.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", word, peerOf(c.RemoteAddr().String()))
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(fmt.Appendf(nil, "%s %s", word, peerOf(from.String())), from)
		}
	}()
}

func peerOf(hostport string) string {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return hostport
	}
	return ap.Addr().Unmap().String()
}

// call connects from ns and returns what the server says, or the error. Silence ends after
// patience.
func call(ns *os.File, network, address string, patience time.Duration) (string, error) {
	var c net.Conn
	err := link.Enter(ns, func() (err error) {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if network == "udp" {
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

const (
	patient   = 5 * time.Second
	impatient = 300 * time.Millisecond // for what must not arrive
)

// reaches requires an answer.
func (l *lab) reaches(what string, ns *os.File, network, address, want string) {
	l.t.Helper()
	got, err := call(ns, network, address, patient)
	if err != nil || got != want {
		l.t.Errorf("%s: %s %s: got %q, %v; want %q", what, network, address, got, err, want)
	}
}

// unreachable requires silence or a refusal.
func (l *lab) unreachable(what string, ns *os.File, network, address string) {
	l.t.Helper()
	if got, err := call(ns, network, address, impatient); err == nil {
		l.t.Errorf("%s: %s %s: got the answer %q; want none", what, network, address, got)
	}
}

// addressFlags reads /proc/net/if_inet6 of the calling thread's namespace without the loopback
// interface.
func addressFlags() (map[string]uint64, error) {
	raw, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] == "lo" {
			continue
		}
		if out[f[0]], err = strconv.ParseUint(f[4], 16, 32); err != nil {
			return nil, err
		}
	}
	return out, nil
}
