package network

import (
	"errors"
	"log/slog"
	"sync"

	"strake/network/firewall"
)

// packetFilter keeps the instance's nftables table in step with the registry.
type packetFilter struct {
	table  *firewall.Table
	wanted func() firewall.State
	log    *slog.Logger

	// mu makes reading the wanted state and writing it to the kernel one step.
	mu sync.Mutex
}

// update carries a change of the wanted state into the kernel: of is no longer wanted, to is.
// Precondition: the registry says so already.
func (f *packetFilter) update(of, to firewall.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.table.Update(of, to); !errors.Is(err, firewall.ErrAbsent) {
		return err
	}
	return f.table.Replace(f.wanted())
}

// rebuild makes the table express the wanted state, whatever it was before. Without networks there
// is no table.
func (f *packetFilter) rebuild() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.wanted()
	if len(s.Networks) > 0 {
		return f.table.Replace(s)
	}
	if there, err := f.table.Exists(); err != nil || !there {
		return err
	}
	return f.table.Remove()
}

// warnOfBlockers logs which tables of other programs keep containers from other hosts.
func (f *packetFilter) warnOfBlockers(prefix string) {
	blockers, err := f.table.Blockers()
	if err != nil {
		f.log.Warn("cannot look for packet filters of others", "error", err)
	}
	for _, b := range blockers {
		f.log.Warn(
			"a packet filter of another program drops forwarded packets by policy; unless it has rules for our bridges, containers reach no other host",
			"chain", b, "bridges", prefix+"*",
		)
	}
}
