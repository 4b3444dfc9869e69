// Package ipam decides which subnets networks get and which addresses containers get. Everything
// here is a pure function of its arguments or of one Allocator's history: no clock, no disk, no
// kernel.
//
// Promises:
//
//   - A subnet handed out overlaps none that the caller names as taken (other networks, routes of
//     the host).
//   - An address is never held twice. A released address rests for the allocator's delay before it
//     is handed out again, so that what peers still remember of it (ARP entries, conntrack entries,
//     open connections) does not reach its next holder. Only when nothing else is left is a resting
//     address reused, the longest-resting first.
//   - Addresses are handed out in ascending order, next-fit, so a fresh network numbers its
//     containers .2, .3, .4.
//
// Not for: persistence (the caller records what it holds and claims it again), DHCP, concurrency
// (the caller locks).
//
// Tested by tables and by random walks against a naive model.
package ipam

import (
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
)

// Block is a range of addresses that subnets of one size are cut from.
type Block struct {
	// Base is the whole range.
	Base netip.Prefix
	// Bits is the prefix length of each subnet cut from it; at least Base.Bits().
	Bits int
}

// Validate names the field that makes the block unusable, as an errdefs.ErrInvalidArgument.
func (b Block) Validate() error {
	if !b.Base.IsValid() {
		return fmt.Errorf("pool base %q: not a prefix: %w", b.Base, errdefs.ErrInvalidArgument)
	}
	if b.Base != b.Base.Masked() {
		return fmt.Errorf(
			"pool base %q: address bits are set behind the prefix, want %q: %w", b.Base,
			b.Base.Masked(), errdefs.ErrInvalidArgument,
		)
	}
	if limit := b.Base.Addr().BitLen() - 2; b.Bits < b.Base.Bits() || b.Bits > limit {
		return fmt.Errorf(
			"pool %q: subnet size /%d: want /%d to /%d: %w", b.Base, b.Bits, b.Base.Bits(), limit,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// NextSubnet returns the first subnet of the blocks, in order, that overlaps none of taken. It
// returns an errdefs.ErrResourceExhausted when there is none left.
func NextSubnet(blocks []Block, taken []netip.Prefix) (netip.Prefix, error) {
	for _, b := range blocks {
		if err := b.Validate(); err != nil {
			return netip.Prefix{}, err
		}
		candidate := netip.PrefixFrom(b.Base.Addr(), b.Bits)
		for candidate.IsValid() && b.Base.Contains(candidate.Addr()) {
			clash, found := firstOverlap(candidate, taken)
			if !found {
				return candidate, nil
			}
			end := lastAddr(candidate)
			if e := lastAddr(clash); end.Less(e) {
				end = e
			}
			// Past the clash; a clash reaches a multiple of its own size, which is a multiple of
			// ours when it is the larger one.
			candidate = netip.PrefixFrom(end.Next(), b.Bits)
		}
	}
	return netip.Prefix{}, fmt.Errorf(
		"every subnet of the %d address pools overlaps a network or a route of this host; name a subnet: %w",
		len(blocks), errdefs.ErrResourceExhausted,
	)
}

func firstOverlap(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		// A default route covers everything and says nothing about what is in use.
		if t.Bits() > 0 && t.Overlaps(p) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

// lastAddr is the highest address of the prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// MaxDynamic is how many addresses of one subnet are handed out without being asked for by name:
// enough for a /16, and a bound for the bitmap of an IPv6 subnet.
const MaxDynamic = 1 << 16

// Allocator hands out the addresses of one subnet. Not safe for concurrent use.
type Allocator struct {
	subnet  netip.Prefix
	delay   time.Duration
	first   netip.Addr // address of bit 0
	size    int        // bits in the window of dynamic addresses
	held    []uint64   // held or resting
	resting []rest     // in order of release
	cursor  int        // where the search for the next address starts
	outside map[netip.Addr]struct{}
}

type rest struct {
	bit   int
	since time.Time
}

// New returns an allocator for subnet. Dynamic addresses come from rng, which must lie inside
// subnet; an invalid rng means the whole subnet. Reserved addresses (the gateway) are never handed
// out. A released address rests for delay.
//
// The network and the broadcast address of an IPv4 subnet and the subnet-router anycast address of
// an IPv6 subnet (RFC 4291, 2.6.1) are not handed out.
func New(
	subnet, rng netip.Prefix, delay time.Duration, reserved ...netip.Addr,
) (*Allocator, error) {
	subnet = subnet.Masked()
	if !rng.IsValid() {
		rng = subnet
	}
	rng = rng.Masked()
	if !Contains(subnet, rng) {
		return nil, fmt.Errorf(
			"ip range %q: not inside subnet %q: %w", rng, subnet, errdefs.ErrInvalidArgument,
		)
	}
	hostBits := rng.Addr().BitLen() - rng.Bits()
	a := &Allocator{
		subnet: subnet, delay: delay, first: rng.Addr(), size: MaxDynamic,
		outside: map[netip.Addr]struct{}{},
	}
	if hostBits < bits.Len(MaxDynamic)-1 {
		a.size = 1 << hostBits
	}
	a.held = make([]uint64, (a.size+63)/64)
	for _, r := range append(edges(subnet), reserved...) {
		if !subnet.Contains(r) {
			return nil, fmt.Errorf(
				"reserved address %q: not inside subnet %q: %w", r, subnet,
				errdefs.ErrInvalidArgument,
			)
		}
		if bit, ok := a.bit(r); ok {
			a.set(bit)
		} else {
			a.outside[r] = struct{}{}
		}
	}
	return a, nil
}

// Contains says whether inner lies inside outer.
func Contains(outer, inner netip.Prefix) bool {
	return outer.Addr().Is4() == inner.Addr().Is4() && inner.Bits() >= outer.Bits() &&
		outer.Contains(inner.Addr())
}

// edges are the addresses of a subnet that no host may have.
func edges(p netip.Prefix) []netip.Addr {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return nil // RFC 3021: both addresses of a /31 are usable
	}
	if p.Addr().Is4() {
		return []netip.Addr{p.Addr(), lastAddr(p)}
	}
	return []netip.Addr{p.Addr()}
}

// FirstHost is the address that a gateway gets by default: the first of the subnet.
func FirstHost(subnet netip.Prefix) netip.Addr {
	subnet = subnet.Masked()
	if subnet.Addr().BitLen()-subnet.Bits() < 2 {
		return subnet.Addr()
	}
	return subnet.Addr().Next()
}

// Take hands out the next free address. It returns an errdefs.ErrResourceExhausted when all are
// held.
func (a *Allocator) Take(now time.Time) (netip.Addr, error) {
	for len(a.resting) > 0 && now.Sub(a.resting[0].since) >= a.delay {
		a.wake()
	}
	bit, ok := a.search()
	if !ok && len(a.resting) > 0 {
		a.wake()
		bit, ok = a.search()
	}
	if !ok {
		return netip.Addr{}, fmt.Errorf(
			"no address left in %s: %w", a.subnet, errdefs.ErrResourceExhausted,
		)
	}
	a.set(bit)
	a.cursor = bit + 1
	return a.addr(bit), nil
}

// Claim takes one address by name, resting or not. It returns an errdefs.ErrInvalidArgument for an
// address outside the subnet and an errdefs.ErrAlreadyExists for one that is held or reserved.
func (a *Allocator) Claim(addr netip.Addr) error {
	if !a.subnet.Contains(addr) {
		return fmt.Errorf(
			"address %q: not inside subnet %q: %w", addr, a.subnet, errdefs.ErrInvalidArgument,
		)
	}
	bit, ok := a.bit(addr)
	if !ok {
		if _, held := a.outside[addr]; held {
			return fmt.Errorf("address %q is already in use: %w", addr, errdefs.ErrAlreadyExists)
		}
		a.outside[addr] = struct{}{}
		return nil
	}
	if a.isSet(bit) {
		for i, r := range a.resting {
			if r.bit == bit {
				a.resting = append(a.resting[:i], a.resting[i+1:]...)
				return nil
			}
		}
		return fmt.Errorf("address %q is already in use: %w", addr, errdefs.ErrAlreadyExists)
	}
	a.set(bit)
	return nil
}

// Release gives an address back at the time now. Precondition: addr is held.
func (a *Allocator) Release(addr netip.Addr, now time.Time) {
	if bit, ok := a.bit(addr); ok {
		a.resting = append(a.resting, rest{bit, now})
		return
	}
	delete(a.outside, addr)
}

// Restore gives back an address that was never used, so that no peer remembers it: it may be handed
// out again at once. Precondition: addr is held.
func (a *Allocator) Restore(addr netip.Addr) {
	if bit, ok := a.bit(addr); ok {
		a.clear(bit)
		if bit < a.cursor {
			a.cursor = bit
		}
		return
	}
	delete(a.outside, addr)
}

// wake frees the address that rests longest.
func (a *Allocator) wake() {
	a.clear(a.resting[0].bit)
	a.resting = a.resting[1:]
}

// search finds a clear bit at or after the cursor, then before it.
func (a *Allocator) search() (int, bool) {
	if a.cursor >= a.size {
		a.cursor = 0
	}
	if bit, ok := a.scan(a.cursor, a.size); ok {
		return bit, true
	}
	return a.scan(0, a.cursor)
}

func (a *Allocator) scan(from, to int) (int, bool) {
	for bit := from; bit < to; {
		word := a.held[bit/64] | (1<<(bit%64) - 1)
		if word != ^uint64(0) {
			if found := bit/64*64 + bits.TrailingZeros64(^word); found < to {
				return found, true
			}
			return 0, false
		}
		bit = bit/64*64 + 64
	}
	return 0, false
}

// bit is the address's place in the window.
func (a *Allocator) bit(addr netip.Addr) (int, bool) {
	x, y := addr.As16(), a.first.As16()
	for i := range 13 {
		if x[i] != y[i] {
			return 0, false
		}
	}
	d := tail(x) - tail(y)
	return d, d >= 0 && d < a.size
}

// tail is the number that the last three bytes of an address make.
func tail(b [16]byte) int { return int(b[13])<<16 | int(b[14])<<8 | int(b[15]) }

// addr is the inverse of bit. The window never carries past its last three bytes: it starts at a
// multiple of its own size.
func (a *Allocator) addr(bit int) netip.Addr {
	b := a.first.As16()
	v := tail(b) + bit
	b[13], b[14], b[15] = byte(v>>16), byte(v>>8), byte(v)
	addr := netip.AddrFrom16(b)
	if a.first.Is4() {
		return addr.Unmap()
	}
	return addr
}

func (a *Allocator) set(bit int)        { a.held[bit/64] |= 1 << (bit % 64) }
func (a *Allocator) clear(bit int)      { a.held[bit/64] &^= 1 << (bit % 64) }
func (a *Allocator) isSet(bit int) bool { return a.held[bit/64]&(1<<(bit%64)) != 0 }
