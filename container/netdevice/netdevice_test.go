package netdevice

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// inNewNetwork leaves the calling goroutine in a network namespace of its own, for good.
func inNewNetwork(t *testing.T) *os.File {
	t.Helper()
	runtime.LockOSThread() // not undone: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs the right to make network namespaces: %v", err)
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// otherNetwork makes a network namespace that lives as long as its file.
func otherNetwork(t *testing.T) *os.File {
	t.Helper()
	made := make(chan *os.File)
	go func() { made <- inNewNetwork(t) }()
	f := <-made
	t.Cleanup(func() { f.Close() })
	return f
}

// addPair makes two devices that are joined (veth(4)).
func addPair(t *testing.T, s socket, a, b string) {
	t.Helper()
	// linux/veth.h, VETH_INFO_PEER
	peer := attribute(information(0, 0, 0), unix.IFLA_IFNAME, text(b))
	info := attribute(nil, unix.IFLA_INFO_KIND, text("veth"))
	info = attribute(
		info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED,
		attribute(nil, 1|unix.NLA_F_NESTED, peer),
	)
	body := attribute(information(0, 0, 0), unix.IFLA_IFNAME, text(a))
	body = attribute(body, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	if err := s.talk(
		unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body, nil,
	); err != nil {
		t.Skipf("needs veth devices: %v", err)
	}
}

func addAddress(t *testing.T, s socket, name, prefix string, scope byte) {
	t.Helper()
	index, _, err := find(s, name)
	if err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix(prefix)
	family, flags := byte(unix.AF_INET), byte(0)
	if p.Addr().Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD
	}
	body := append([]byte{family, byte(p.Bits()), flags, scope}, number(index)...)
	body = attribute(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = attribute(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	if err := s.talk(unix.RTM_NEWADDR, unix.NLM_F_CREATE, body, nil); err != nil {
		t.Fatal(err)
	}
}

// addresses are those of a device but for what the kernel makes itself, sorted.
func addresses(t *testing.T, s socket, name string) (list []string) {
	t.Helper()
	index, _, err := find(s, name)
	if err != nil {
		t.Fatal(err)
	}
	err = s.talk(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, 8), func(b []byte) {
		if int(binary.NativeEndian.Uint32(b[4:])) != index {
			return
		}
		attributes(b[8:], func(typ uint16, v []byte) {
			a, ok := netip.AddrFromSlice(v)
			if typ == unix.IFA_ADDRESS && ok && !a.IsLinkLocalUnicast() {
				list = append(list, netip.PrefixFrom(a, int(b[1])).String())
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestMove moves a device there and back, and fails to move some.
func TestMove(t *testing.T) {
	inNewNetwork(t)
	other := otherNetwork(t)
	home, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer home.close()
	addPair(t, home, "sk-a", "sk-b")
	for _, name := range []string{"sk-a", "sk-b"} {
		index, _, err := find(home, name)
		if err == nil {
			err = home.talk(
				unix.RTM_NEWLINK, 0, information(index, unix.IFF_UP, unix.IFF_UP), nil,
			)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"10.99.0.1/24", "fd00:99::1/64"}
	for _, a := range all {
		addAddress(t, home, "sk-a", a, unix.RT_SCOPE_UNIVERSE)
	}
	addAddress(t, home, "sk-a", "10.98.0.1/24", unix.RT_SCOPE_HOST)

	d, err := Move("sk-a", "eth7", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := find(home, "sk-a"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the device is still here: %v", err)
	}
	err = d.inside(func(s socket) error {
		if _, flags, err := find(s, "eth7"); err != nil || flags&unix.IFF_UP == 0 {
			t.Errorf("there: flags %#x, %v", flags, err)
		}
		if got := addresses(t, s, "eth7"); !slices.Equal(got, all) {
			t.Errorf("there: %q, want %q", got, all)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// The name is taken there, and none is here.
	if _, err := Move("sk-b", "eth7", other); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, flags, err := find(home, "sk-b"); err != nil || flags&unix.IFF_UP == 0 {
		t.Errorf("the device that was not moved: flags %#x, %v", flags, err)
	}
	if _, err := Move("sk-none", "", other); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no device: %v", err)
	}

	if err := d.Back(); err != nil {
		t.Fatal(err)
	}
	if _, flags, err := find(home, "sk-a"); err != nil || flags&unix.IFF_UP == 0 {
		t.Errorf("back: flags %#x, %v", flags, err)
	}
	if got := addresses(t, home, "sk-a"); !slices.Equal(got, all) {
		t.Errorf("back: %q, want %q", got, all)
	}
}
