package docker

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"strake/engine"
)

// stats streams a reading every second. With stream=false it answers with one reading, after a
// second, so that it contains the one before it; with one-shot=true at once, without that.
func (a *viewAPI) stats(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	info, err := a.engine.Inspect(r.Context(), name)
	if err != nil {
		return err
	}
	stream := r.flagOr("stream", true)
	once := r.flag("one-shot")
	if once && stream {
		return invalid("cannot have stream=true and one-shot=true")
	}
	w.Header().Set("Content-Type", "application/json")
	out := newFlusher(w)
	enc := json.NewEncoder(out)
	var before *engine.Stats
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		now, err := a.engine.Stats(r.Context(), info.ID)
		if err != nil {
			if !first || info.State.Status != engine.Running && info.State.Status != engine.Paused {
				if first || stream {
					// A container that does not run has no figures; clients know it by the empty
					// time.
					enc.Encode(
						container.StatsResponse{
							ID: info.ID, Name: "/" + info.Spec.Name, OSType: "linux",
						},
					)
				}
				if !stream {
					return nil
				}
				if cur, err := a.engine.Inspect(r.Context(), info.ID); err != nil ||
					cur.State.Status != engine.Running {
					if err != nil {
						return errAnswered
					}
				}
			} else {
				return err
			}
		} else if stream || once || before != nil {
			if err := enc.Encode(statsOf(&info, &now, before)); err != nil || !stream {
				return nil
			}
			before = &now
		} else {
			before = &now
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func statsOf(info *engine.Info, now, before *engine.Stats) *container.StatsResponse {
	out := &container.StatsResponse{
		ID: info.ID, Name: "/" + info.Spec.Name, OSType: "linux", Read: now.Time.UTC(),
		CPUStats: cpuStats(&now.CPU),
		MemoryStats: container.MemoryStats{
			Usage: now.Memory.Usage, MaxUsage: now.Memory.MaxUsage, Limit: now.Memory.Limit,
			Failcnt: now.Memory.Failcnt, Stats: now.Memory.Stat,
		},
		PidsStats: container.PidsStats{Current: now.Pids, Limit: now.PidsMax},
	}
	if before != nil {
		out.PreRead, out.PreCPUStats = before.Time.UTC(), cpuStats(&before.CPU)
	}
	for _, e := range now.IO {
		op := e.Op
		out.BlkioStats.IoServiceBytesRecursive = append(
			out.BlkioStats.IoServiceBytesRecursive,
			container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: op, Value: e.Bytes},
		)
		out.BlkioStats.IoServicedRecursive = append(
			out.BlkioStats.IoServicedRecursive,
			container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: op, Value: e.Count},
		)
	}
	if len(now.Networks) > 0 {
		out.Networks = make(map[string]container.NetworkStats, len(now.Networks))
		for name, n := range now.Networks {
			out.Networks[name] = container.NetworkStats{
				RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors,
				RxDropped: n.RxDropped,
				TxBytes:   n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors,
				TxDropped: n.TxDropped,
			}
		}
	}
	return out
}

func cpuStats(c *engine.CPUStats) container.CPUStats {
	return container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage: c.TotalNanos, UsageInUsermode: c.UserNanos,
			UsageInKernelmode: c.KernelNanos,
		},
		SystemUsage: c.SystemNanos, OnlineCPUs: uint32(c.OnlineCPUs),
		ThrottlingData: container.ThrottlingData{
			Periods: c.Periods, ThrottledPeriods: c.ThrottledPeriods,
			ThrottledTime: c.ThrottledNanos,
		},
	}
}
