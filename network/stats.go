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

// statsOf turns counters of the host's end into counters of the container's: what the host receives
// the container sent.
func statsOf(s link.Stats) Stats {
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
	if err := m.reg.alive(ctx); err != nil {
		return Stats{}, err
	}
	ep := m.reg.endpoint(endpointID)
	if ep == nil {
		return Stats{}, fmt.Errorf("endpoint %s: %w", endpointID, errdefs.ErrNotFound)
	}
	info, err := m.host.rt.ByName(ep.veth.host)
	if err != nil {
		return Stats{}, fmt.Errorf("endpoint %s: %w", endpointID, err)
	}
	return statsOf(info.Stats).minus(ep.rec.Baseline), nil
}
