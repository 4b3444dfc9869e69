package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func prefixes(s string) (out []netip.Prefix) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func TestNextSubnet(t *testing.T) {
	t.Parallel()
	small := []Block{
		{netip.MustParsePrefix("10.1.0.0/16"), 16}, {netip.MustParsePrefix("10.2.0.0/23"), 24},
	}
	tests := []struct {
		name, taken, want string
		blocks            []Block
	}{
		{"first", "", "10.1.0.0/16", small},
		{"next block", "10.1.0.0/16", "10.2.0.0/24", small},
		{"an address is enough", "10.1.77.3/32", "10.2.0.0/24", small},
		{"second of a block", "10.1.0.0/16 10.2.0.0/24", "10.2.1.0/24", small},
		{"part of a subnet", "10.1.0.0/16 10.2.0.128/25", "10.2.1.0/24", small},
		{"a larger one covers both blocks", "10.0.0.0/8", "", small},
		{"a larger one covers a block", "10.2.0.0/15 10.1.0.0/16", "", small},
		{"a default route says nothing", "0.0.0.0/0 ::/0", "10.1.0.0/16", small},
		{"the other family says nothing", "fd00::/8", "10.1.0.0/16", small},
		{"none left", "10.1.0.0/16 10.2.0.0/24 10.2.1.7/32", "", small},
		{
			"IPv6", "fd00:0:0:1::/64 fd00::/64", "fd00:0:0:2::/64",
			[]Block{{netip.MustParsePrefix("fd00::/48"), 64}},
		},
		{
			"the end of the address space", "255.255.255.0/25", "",
			[]Block{{netip.MustParsePrefix("255.255.255.0/24"), 24}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := NextSubnet(tt.blocks, prefixes(tt.taken))
			if tt.want == "" {
				if !errdefs.IsResourceExhausted(err) {
					t.Errorf("got %v, %v; want an exhausted resource", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
	for _, b := range []Block{
		{}, {netip.MustParsePrefix("10.1.0.7/16"), 24}, {netip.MustParsePrefix("10.1.0.0/16"), 15},
		{netip.MustParsePrefix("10.1.0.0/16"), 31}, {netip.MustParsePrefix("fd00::/48"), 127},
	} {
		if _, err := NextSubnet([]Block{b}, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("block %v: got %v, want an invalid argument", b, err)
		}
	}
}

// TestFresh: which addresses a new allocator hands out, in order, until none is left.
func TestFresh(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, subnet, rng, reserved, want string }{
		{
			"without network and broadcast address", "10.0.0.0/29", "", "10.0.0.1",
			"10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6",
		},
		{
			"reserved in the middle", "10.0.0.0/29", "", "10.0.0.4 10.0.0.2",
			"10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.6",
		},
		{
			"range", "10.0.0.0/24", "10.0.0.128/30", "10.0.0.1 10.0.0.130",
			"10.0.0.128 10.0.0.129 10.0.0.131",
		},
		{
			"range at the end", "10.0.0.0/24", "10.0.0.252/30", "10.0.0.1",
			"10.0.0.252 10.0.0.253 10.0.0.254",
		},
		{"both of a /31", "10.0.0.0/31", "", "", "10.0.0.0 10.0.0.1"},
		{"IPv6 without the anycast address", "fd00::/126", "", "fd00::2", "fd00::1 fd00::3"},
		{
			"range outside of the first 2^16", "fd00::/64", "fd00::a:b:c:0/127", "fd00::1",
			"fd00::a:b:c:0 fd00::a:b:c:1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var rng netip.Prefix
			if tt.rng != "" {
				rng = netip.MustParsePrefix(tt.rng)
			}
			var reserved []netip.Addr
			for _, s := range strings.Fields(tt.reserved) {
				reserved = append(reserved, netip.MustParseAddr(s))
			}
			a, err := New(netip.MustParsePrefix(tt.subnet), rng, time.Second, reserved...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				addr, err := a.Take(time.Unix(0, 0))
				if err != nil {
					if !errdefs.IsResourceExhausted(err) {
						t.Errorf("at the end: got %v, want an exhausted resource", err)
					}
					break
				}
				got = append(got, addr.String())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
			for _, r := range reserved {
				if err := a.Claim(r); !errdefs.IsAlreadyExists(err) {
					t.Errorf("claim of reserved %s: got %v, want it taken", r, err)
				}
			}
		})
	}
}

func TestBadAllocator(t *testing.T) {
	t.Parallel()
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	for name, rng := range map[string]string{
		"outside": "10.0.1.0/25", "larger": "10.0.0.0/23", "other family": "fd00::/64",
	} {
		_, err := New(subnet, netip.MustParsePrefix(rng), 0)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("range %s: got %v, want an invalid argument", name, err)
		}
	}
	_, err := New(subnet, netip.Prefix{}, 0, netip.MustParseAddr("10.0.1.1"))
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("reserved address outside: got %v, want an invalid argument", err)
	}
}

// TestReuse: the order in which addresses come back.
func TestReuse(t *testing.T) {
	t.Parallel()
	const delay = 10 * time.Second
	start := time.Unix(1000, 0)
	a, err := New(
		netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{}, delay,
		netip.MustParseAddr("10.0.0.1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	take := func(after time.Duration, want string) {
		t.Helper()
		got, err := a.Take(start.Add(after))
		if err != nil || got.String() != want {
			t.Errorf("take after %v: got %v, %v; want %s", after, got, err, want)
		}
	}
	addr := netip.MustParseAddr
	take(-9*delay, "10.0.0.2")
	a.Release(addr("10.0.0.2"), start.Add(-9*delay))
	take(0, "10.0.0.3") // next-fit: not the same again, although it has rested
	if err := a.Claim(addr("10.0.0.2")); err != nil {
		t.Error(err)
	}
	a.Release(addr("10.0.0.2"), start)
	take(time.Second, "10.0.0.4") // .2 rests
	take(time.Second, "10.0.0.5")
	take(2*delay, "10.0.0.6") // .2 has rested; next-fit goes on behind the last
	take(2*delay, "10.0.0.2") // and starts anew at the end
	a.Release(addr("10.0.0.4"), start.Add(2*delay))
	a.Release(addr("10.0.0.3"), start.Add(2*delay+1))
	take(2*delay+2, "10.0.0.4") // nothing else is left: the longest-resting first
	take(2*delay+2, "10.0.0.3")
	if _, err := a.Take(start.Add(9 * delay)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("all held: got %v, want an exhausted resource", err)
	}
	a.Release(addr("10.0.0.6"), start.Add(5*delay))
	a.Release(addr("10.0.0.5"), start.Add(5*delay))
	a.Release(addr("10.0.0.4"), start.Add(5*delay))
	take(6*delay, "10.0.0.4") // all three have rested for exactly long enough
	take(6*delay, "10.0.0.5")
	take(6*delay, "10.0.0.6")
	a.Restore(addr("10.0.0.3")) // never used: at once
	take(9*delay, "10.0.0.3")
	a.Release(addr("10.0.0.5"), start.Add(9*delay))
	if err := a.Claim(addr("10.0.0.5")); err != nil {
		t.Errorf("claim of a resting address: %v", err)
	}
	if err := a.Claim(addr("10.0.0.5")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("claim of a held address: got %v, want it taken", err)
	}
	if err := a.Claim(addr("10.0.1.5")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("claim of an address outside: got %v, want an invalid argument", err)
	}
}

// model is the allocator as its comments promise it, without any thought of speed.
type model struct {
	addrs   []netip.Addr // of the dynamic range, ascending
	index   map[netip.Addr]int
	state   map[netip.Addr]state
	rested  []netip.Addr // in order of release
	cursor  int
	delay   time.Duration
	subnet  netip.Prefix
	blocked map[netip.Addr]bool
}

type state struct {
	held, resting bool
	since         time.Time
}

func newModel(subnet, rng netip.Prefix, delay time.Duration, reserved ...netip.Addr) *model {
	m := &model{
		index: map[netip.Addr]int{}, state: map[netip.Addr]state{}, delay: delay, subnet: subnet,
		blocked: map[netip.Addr]bool{},
	}
	if !rng.IsValid() {
		rng = subnet
	}
	for a := rng.Addr(); rng.Contains(a); a = a.Next() {
		m.index[a] = len(m.addrs)
		m.addrs = append(m.addrs, a)
	}
	m.blocked[subnet.Addr()] = true
	if subnet.Addr().Is4() {
		last := subnet.Addr()
		for subnet.Contains(last.Next()) {
			last = last.Next()
		}
		m.blocked[last] = true
	}
	for _, r := range reserved {
		m.blocked[r] = true
	}
	return m
}

func (m *model) free(a netip.Addr, now time.Time) bool {
	s := m.state[a]
	return !m.blocked[a] && !s.held && (!s.resting || now.Sub(s.since) >= m.delay)
}

func (m *model) take(now time.Time) (netip.Addr, bool) {
	for i := range m.addrs {
		a := m.addrs[(m.cursor+i)%len(m.addrs)]
		if m.free(a, now) {
			m.hold(a)
			m.cursor = m.index[a] + 1
			return a, true
		}
	}
	for _, a := range m.rested {
		if _, dynamic := m.index[a]; dynamic {
			m.hold(a)
			m.cursor = m.index[a] + 1
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (m *model) hold(a netip.Addr) {
	m.state[a] = state{held: true}
	m.forget(a)
}

func (m *model) forget(a netip.Addr) {
	for i, r := range m.rested {
		if r == a {
			m.rested = append(m.rested[:i:i], m.rested[i+1:]...)
			return
		}
	}
}

func (m *model) claim(a netip.Addr) error {
	switch {
	case !m.subnet.Contains(a):
		return errdefs.ErrInvalidArgument
	case m.blocked[a], m.state[a].held:
		return errdefs.ErrAlreadyExists
	}
	m.hold(a)
	return nil
}

func (m *model) release(a netip.Addr, now time.Time) {
	if _, dynamic := m.index[a]; !dynamic {
		m.state[a] = state{} // an address that was asked for by name does not rest
		return
	}
	m.state[a] = state{resting: true, since: now}
	m.rested = append(m.rested, a)
}

func (m *model) restore(a netip.Addr) {
	m.state[a] = state{}
	if i, dynamic := m.index[a]; dynamic {
		m.cursor = min(m.cursor, i)
	}
}

// TestRandomWalk compares an Allocator with the model over random operations.
func TestRandomWalk(t *testing.T) {
	t.Parallel()
	pools := []struct{ subnet, rng, reserved string }{
		{"10.0.0.0/29", "", "10.0.0.1"},
		{"10.0.0.0/24", "", "10.0.0.1 10.0.0.77"},
		{"10.0.0.0/24", "10.0.0.64/27", "10.0.0.1 10.0.0.65"},
		{"172.16.255.0/25", "172.16.255.96/27", "172.16.255.1"},
		{"fd00::/120", "", "fd00::1"},
		{"fd00::/64", "fd00::ff:0/121", "fd00::1 fd00::ff:3"},
	}
	for _, p := range pools {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%s %s seed %d", p.subnet, p.rng, seed), func(t *testing.T) {
				t.Parallel()
				walk(t, p.subnet, p.rng, p.reserved, rand.New(rand.NewPCG(seed, 7)))
			})
		}
	}
}

func walk(t *testing.T, subnet, rng, reserved string, random *rand.Rand) {
	const delay = 50 * time.Second
	sub := netip.MustParsePrefix(subnet)
	var in netip.Prefix
	if rng != "" {
		in = netip.MustParsePrefix(rng)
	}
	var not []netip.Addr
	for _, s := range strings.Fields(reserved) {
		not = append(not, netip.MustParseAddr(s))
	}
	a, err := New(sub, in, delay, not...)
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(sub, in, delay, not...)
	now := time.Unix(0, 0)
	var held []netip.Addr
	drop := func() netip.Addr {
		i := random.IntN(len(held))
		x := held[i]
		held = append(held[:i], held[i+1:]...)
		return x
	}
	// The walk fills the range and empties it again, several times.
	filling := true
	exhausted := 0
	for step := range 6000 {
		now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
		if random.IntN(400) == 0 {
			filling = !filling
		}
		switch n := random.IntN(10); {
		case n < 2 && len(held) > 0, !filling && n < 7 && len(held) > 0:
			x := drop()
			if random.IntN(4) == 0 {
				a.Restore(x)
				m.restore(x)
			} else {
				a.Release(x, now)
				m.release(x, now)
			}
		case n == 9:
			x := someAddr(random, sub, m)
			got, want := a.Claim(x), m.claim(x)
			if errdefs.IsInvalidArgument(got) != errdefs.IsInvalidArgument(want) ||
				errdefs.IsAlreadyExists(got) != errdefs.IsAlreadyExists(want) ||
				(got == nil) != (want == nil) {
				t.Fatalf("step %d: claim %s: got %v, want %v", step, x, got, want)
			}
			if got == nil {
				held = append(held, x)
			}
		default:
			got, err := a.Take(now)
			want, ok := m.take(now)
			if ok != (err == nil) || got != want {
				t.Fatalf("step %d: take: got %v, %v; want %v", step, got, err, want)
			}
			if err == nil {
				held = append(held, got)
			} else {
				exhausted++
			}
		}
	}
	if exhausted == 0 {
		t.Error("the walk never used up the range: it is too short to say anything")
	}
}

// someAddr draws an address to ask for by name: most of the time one of the range.
func someAddr(random *rand.Rand, sub netip.Prefix, m *model) netip.Addr {
	switch random.IntN(8) {
	case 0: // outside the range, inside the subnet or just behind it
		x := sub.Addr()
		for range random.IntN(300) {
			x = x.Next()
		}
		return x
	case 1:
		return netip.MustParseAddr("192.0.2.1")
	}
	return m.addrs[random.IntN(len(m.addrs))]
}

// TestLargeSubnets: the window of dynamic addresses ends after 2^16, and addresses behind it can be
// asked for by name.
func TestLargeSubnets(t *testing.T) {
	t.Parallel()
	for subnet, far := range map[string]string{
		"10.0.0.0/8": "10.200.0.7", "fd00::/64": "fd00::1:2:3:4",
	} {
		a, err := New(netip.MustParsePrefix(subnet), netip.Prefix{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[netip.Addr]bool{}
		for {
			x, err := a.Take(time.Unix(0, 0))
			if err != nil {
				break
			}
			if seen[x] {
				t.Fatalf("%s: %s twice", subnet, x)
			}
			seen[x] = true
		}
		if len(seen) != MaxDynamic-1 { // without the network or anycast address
			t.Errorf("%s: got %d addresses, want %d", subnet, len(seen), MaxDynamic-1)
		}
		x := netip.MustParseAddr(far)
		for range 2 {
			if err := a.Claim(x); err != nil {
				t.Errorf("claim %s: %v", x, err)
			}
			if err := a.Claim(x); !errdefs.IsAlreadyExists(err) {
				t.Errorf("claim %s again: got %v, want it taken", x, err)
			}
			a.Release(x, time.Unix(0, 0))
		}
	}
}
