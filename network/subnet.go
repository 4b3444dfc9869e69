package network

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"strake/network/ipam"
)

// checkSubnet names what is wrong with a chosen subnet. taken are those of other networks.
func checkSubnet(s Subnet, taken []netip.Prefix) error {
	if !s.Prefix.IsValid() {
		return fmt.Errorf("subnet: not a prefix: %w", errdefs.ErrInvalidArgument)
	}
	limit := 30
	if s.Prefix.Addr().Is6() {
		limit = 126
	}
	if s.Prefix.Bits() > limit || s.Prefix.Bits() == 0 {
		return fmt.Errorf(
			"subnet %q: want a prefix length of 1 to %d: %w", s.Prefix, limit,
			errdefs.ErrInvalidArgument,
		)
	}
	if s.Prefix != s.Prefix.Masked() {
		return fmt.Errorf(
			"subnet %q: address bits are set behind the prefix, want %q: %w", s.Prefix,
			s.Prefix.Masked(), errdefs.ErrInvalidArgument,
		)
	}
	if a := s.Prefix.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return fmt.Errorf(
			"subnet %q: loopback, multicast and link-local addresses cannot be used: %w",
			s.Prefix, errdefs.ErrInvalidArgument,
		)
	}
	for _, t := range taken {
		if t.Overlaps(s.Prefix) {
			return fmt.Errorf(
				"subnet %q overlaps %q of another network: %w", s.Prefix, t,
				errdefs.ErrFailedPrecondition,
			)
		}
	}
	if s.Gateway.IsValid() && !s.Prefix.Contains(s.Gateway) {
		return fmt.Errorf(
			"gateway %q: not inside subnet %q: %w", s.Gateway, s.Prefix,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// chosenSubnets checks the subnets of a Spec and returns them by family; nil where none is chosen.
func chosenSubnets(spec Spec, taken []netip.Prefix) (v4, v6 *Subnet, err error) {
	for _, s := range spec.Subnets {
		if err := checkSubnet(s, taken); err != nil {
			return nil, nil, err
		}
		family := &v4
		if s.Prefix.Addr().Is6() {
			family = &v6
		}
		if *family != nil {
			return nil, nil, fmt.Errorf(
				"subnet %q: second of its family, want at most one of IPv4 and one of IPv6: %w",
				s.Prefix, errdefs.ErrInvalidArgument,
			)
		}
		*family = &s
	}
	return v4, v6, nil
}

// subnets completes the subnets of a Spec from the pools.
func (h *host) subnets(spec Spec, taken []netip.Prefix) ([]Subnet, error) {
	v4, v6, err := chosenSubnets(spec, taken)
	if err != nil {
		return nil, err
	}
	fromPool := func(blocks []ipam.Block) (*Subnet, error) {
		used, err := h.prefixes()
		if err != nil {
			return nil, err
		}
		p, err := ipam.NextSubnet(blocks, append(used, taken...))
		return &Subnet{Prefix: p}, err
	}
	if v4 == nil {
		if v4, err = fromPool(h.cfg.Pools); err != nil {
			return nil, err
		}
	}
	if v6 == nil && spec.EnableIPv6 {
		base := h.rec.PoolV6
		if h.cfg.PoolV6.IsValid() {
			base = h.cfg.PoolV6.Masked()
		}
		if v6, err = fromPool([]ipam.Block{{Base: base, Bits: 64}}); err != nil {
			return nil, err
		}
	}
	var out []Subnet
	for _, s := range []*Subnet{v4, v6} {
		if s == nil {
			continue
		}
		if !s.Gateway.IsValid() {
			s.Gateway = ipam.FirstHost(s.Prefix)
		}
		out = append(out, *s)
	}
	return out, nil
}
