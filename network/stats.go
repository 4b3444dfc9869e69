package network

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"strake/network/link"
)

// Stats are an interface's counters since the container got it, from the container's side.
type Stats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// of turns counters of our end into counters of the container's: what we receive it sent.
func (Stats) of(s link.Stats) Stats {
	return Stats{
		RxBytes: s.TxBytes, RxPackets: s.TxPackets, RxErrors: s.TxErrors, RxDropped: s.TxDropped,
		TxBytes: s.RxBytes, TxPackets: s.RxPackets, TxErrors: s.RxErrors, TxDropped: s.RxDropped,
	}
}

// minus is what was counted since base.
func (s Stats) minus(base Stats) Stats {
	return Stats{
		RxBytes: s.RxBytes - base.RxBytes, RxPackets: s.RxPackets - base.RxPackets,
		RxErrors: s.RxErrors - base.RxErrors, RxDropped: s.RxDropped - base.RxDropped,
		TxBytes: s.TxBytes - base.TxBytes, TxPackets: s.TxPackets - base.TxPackets,
		TxErrors: s.TxErrors - base.TxErrors, TxDropped: s.TxDropped - base.TxDropped,
	}
}

// Stats returns the counters of one endpoint; an errdefs.ErrNotFound when there is none.
func (m *Manager) Stats(ctx context.Context, endpointID string) (Stats, error) {
	if err := m.alive(ctx); err != nil {
		return Stats{}, err
	}
	m.mu.Lock()
	ep := m.endpoints[endpointID]
	m.mu.Unlock()
	if ep == nil {
		return Stats{}, fmt.Errorf("endpoint %s: %w", endpointID, errdefs.ErrNotFound)
	}
	info, err := m.rt.ByName(ep.wire.host)
	if err != nil {
		return Stats{}, fmt.Errorf("endpoint %s: %w", endpointID, err)
	}
	return Stats{}.of(info.Stats).minus(ep.rec.Baseline), nil
}
