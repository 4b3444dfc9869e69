package docker

import (
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
)

// update answers POST /containers/{id}/update. The front is updated too, so that inspect shows the
// new limits.
func (a *lifecycleAPI) update(w http.ResponseWriter, r *request) error {
	var req container.UpdateConfig
	if err := decode(r, &req); err != nil {
		return err
	}
	if r.version < 40 {
		req.PidsLimit = nil
	}
	if r.version < 55 { // those versions ignored these fields
		req.BlkioWeightDevice = nil
		req.BlkioDeviceReadBps, req.BlkioDeviceWriteBps = nil, nil
		req.BlkioDeviceReadIOps, req.BlkioDeviceWriteIOps = nil, nil
	}
	var spec engine.Spec
	if err := resourcesOf(&spec, &req.Resources, a.host); err != nil {
		return err
	}
	if p := req.PidsLimit; p != nil && *p <= 0 {
		spec.Resources.Pids = pids(-1)
		req.PidsLimit = new(int64) // as inspect shows an update to no limit
	}
	var restart *engine.RestartPolicy
	if req.RestartPolicy.Name != "" {
		if err := container.ValidateRestartPolicy(req.RestartPolicy); err != nil {
			return invalid("%v", err)
		}
		restart = &engine.RestartPolicy{
			Name: string(req.RestartPolicy.Name), MaxRetries: req.RestartPolicy.MaximumRetryCount,
		}
	}
	warnings, err := a.engine.Update(
		r.Context(), r.PathValue("name"), spec.Resources, restart,
		func(old json.RawMessage) (json.RawMessage, error) { return updateFront(old, &req) },
	)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string][]string{"Warnings": orEmpty(warnings)})
}

// updateFront applies an update to the front of a container. An empty front, of a container that
// the API did not create, stays empty.
func updateFront(old json.RawMessage, req *container.UpdateConfig) (json.RawMessage, error) {
	if len(old) == 0 {
		return old, nil
	}
	var f front
	if err := json.Unmarshal(old, &f); err != nil {
		return nil, err
	}
	if f.HostConfig == nil {
		f.HostConfig = &container.HostConfig{}
	}
	h := f.HostConfig
	to, from := &h.Resources, &req.Resources
	quota := from.CPUPeriod > 0 || from.CPUQuota > 0
	switch {
	case from.NanoCPUs > 0 && (to.CPUPeriod > 0 || to.CPUQuota > 0):
		return nil, conflict(
			"Conflicting options: Nano CPUs cannot be updated as " +
				"CPU Period or CPU Quota has already been set",
		)
	case quota && to.NanoCPUs > 0:
		return nil, conflict(
			"Conflicting options: CPU Period and CPU Quota cannot be updated as " +
				"NanoCPUs has already been set",
		)
	case h.AutoRemove && req.RestartPolicy.Name != "" && !req.RestartPolicy.IsNone():
		return nil, conflict(
			"Restart policy cannot be updated because AutoRemove is enabled for the container",
		)
	}
	put(&to.Memory, from.Memory)
	put(&to.MemorySwap, swapOf(from))
	put(&to.MemoryReservation, from.MemoryReservation)
	put(&to.CPUShares, from.CPUShares)
	put(&to.NanoCPUs, from.NanoCPUs)
	put(&to.CPUPeriod, from.CPUPeriod)
	put(&to.CPUQuota, from.CPUQuota)
	put(&to.CPURealtimePeriod, from.CPURealtimePeriod)
	put(&to.CPURealtimeRuntime, from.CPURealtimeRuntime)
	put(&to.CpusetCpus, from.CpusetCpus)
	put(&to.CpusetMems, from.CpusetMems)
	put(&to.BlkioWeight, from.BlkioWeight)
	put(&to.PidsLimit, from.PidsLimit)
	put(&to.MemorySwappiness, from.MemorySwappiness)
	put(&to.OomKillDisable, from.OomKillDisable)
	// An empty list, unlike a missing one, removes the limits.
	if from.BlkioWeightDevice != nil {
		to.BlkioWeightDevice = from.BlkioWeightDevice
	}
	for _, list := range []struct{ to, from *[]*blkiodev.ThrottleDevice }{
		{&to.BlkioDeviceReadBps, &from.BlkioDeviceReadBps},
		{&to.BlkioDeviceWriteBps, &from.BlkioDeviceWriteBps},
		{&to.BlkioDeviceReadIOps, &from.BlkioDeviceReadIOps},
		{&to.BlkioDeviceWriteIOps, &from.BlkioDeviceWriteIOps},
	} {
		if *list.from != nil {
			*list.to = *list.from
		}
	}
	if req.RestartPolicy.Name != "" {
		h.RestartPolicy = req.RestartPolicy
	}
	return json.Marshal(f)
}

// put assigns from unless it is the zero value.
func put[T comparable](to *T, from T) {
	var unset T
	if from != unset {
		*to = from
	}
}

func pids(limit int64) *specs.LinuxPids { return &specs.LinuxPids{Limit: &limit} }
