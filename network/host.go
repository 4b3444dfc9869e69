package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/network/link"
)

// host is the host's network namespace: its interfaces, sysctls and connection tracking.
type host struct {
	cfg   *Config
	own   *regexp.Regexp // names of the interfaces of this instance
	store *store
	rt    *link.Socket
	ipv6  bool // constant: the host has IPv6

	// mu is acquired after network.setup and before no other.
	mu  sync.Mutex
	rec hostRecord // guarded by mu, except PoolV6, which is constant
}

// openHost reads host.json, or draws what a new instance writes to it.
func openHost(cfg *Config, st *store) (*host, error) {
	h := &host{cfg: cfg, own: ownInterface(cfg.Prefix), store: st}
	err := link.Enter(cfg.NetNS, func() (err error) {
		h.rt, err = link.Open()
		return err
	})
	if err == nil {
		h.ipv6, err = hasIPv6(cfg.NetNS)
	}
	if err == nil {
		err = h.load()
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *host) close() error {
	if h.rt == nil {
		return nil
	}
	return h.rt.Close()
}

func (h *host) load() error {
	rec, err := load[hostRecord](filepath.Join(h.cfg.StateDir, "host.json"))
	if err == nil && rec.Version == recordVersion {
		if rec.Prefix != h.cfg.Prefix {
			return fmt.Errorf(
				"network: Prefix %q: the state in %q is that of %q: %w", h.cfg.Prefix,
				h.cfg.StateDir, rec.Prefix, errdefs.ErrInvalidArgument,
			)
		}
		h.rec = rec
		return nil
	}
	if err == nil {
		return fmt.Errorf(
			"network state: host.json has version %d, want %d: %w", rec.Version, recordVersion,
			errdefs.ErrFailedPrecondition,
		)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// RFC 4193, 3.2.1: fd00::/8 and forty random bits.
	ula := [16]byte{0xfd}
	rand.Read(ula[1:6])
	h.rec = hostRecord{
		Version: recordVersion, Prefix: h.cfg.Prefix,
		PoolV6: netip.PrefixFrom(netip.AddrFrom16(ula), 48),
	}
	return h.store.durable("host.json", h.rec)
}

// enter runs fn in the host's network namespace.
func (h *host) enter(fn func() error) error { return link.Enter(h.cfg.NetNS, fn) }

// prefixes are the destinations of the host's routes and the networks of its addresses, without
// those of this instance.
func (h *host) prefixes() ([]netip.Prefix, error) {
	links, err := h.rt.Links()
	if err != nil {
		return nil, err
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Index] = h.own.MatchString(l.Name)
	}
	return h.rt.Prefixes(func(i int) bool { return ours[i] })
}

// deleteAll removes interfaces, several at a time: most of the time of a removal the kernel waits.
// An interface that is gone already is no error.
func (h *host) deleteAll(reqs []link.Request) error {
	const atOnce = 16
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		work = make(chan link.Request)
	)
	fail := func(err error) {
		mu.Lock()
		errs = append(errs, err)
		mu.Unlock()
	}
	for range min(atOnce, len(reqs)) {
		wg.Go(func() {
			var rt *link.Socket
			err := h.enter(func() (err error) {
				rt, err = link.Open()
				return err
			})
			for r := range work {
				if err != nil {
					fail(err)
					continue
				}
				if err := ignoreMissing(rt.Do(r)); err != nil {
					fail(err)
				}
			}
			if rt != nil {
				rt.Close()
			}
		})
	}
	for _, r := range reqs {
		work <- r
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

// ignoreMissing turns the error of a deletion into success when the interface was gone already.
func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// bridgedFiltered says whether bridged packets go through the packet filter (br_netfilter).
func (h *host) bridgedFiltered() (filtered bool, err error) {
	err = h.enter(func() error {
		for _, name := range []string{
			"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
		} {
			v, err := readSysctl(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			filtered = filtered || v == "1"
		}
		return nil
	})
	return filtered, err
}

// hairpin lets a container reach itself through a published port where bridged packets are
// filtered: there the kernel sends the translated packet back over the bridge instead of routing
// it. The container then hears its own broadcasts, so the flag is set on such hosts only. index is
// the bridge port's.
func (h *host) hairpin(index int) error {
	filtered, err := h.bridgedFiltered()
	if err != nil || !filtered {
		return err
	}
	return h.rt.Do(link.SetPortFlag(index, link.Hairpin))
}
