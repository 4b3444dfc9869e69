package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of a weight, for runtime-spec as for BFQ's files in version 1.
const (
	minWeight = 10
	maxWeight = 1000
)

// ioWeight is the weight for cgroup2's io.weight (1 to 10000) from OCI's (10 to 1000).
func ioWeight(w uint16) uint64 { return 1 + (uint64(w)-minWeight)*9999/(maxWeight-minWeight) }

// blockIO follows cgroup-v1/blkio-controller.rst and cgroup-v2.rst, "IO Interface Files".
func (p *planner) blockIO(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	p.weight("blockIO.weight", "", b.Weight)
	p.leafWeight("blockIO.leafWeight", "", b.LeafWeight)
	for i := range b.WeightDevice {
		d := &b.WeightDevice[i]
		name := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		dev := p.device(name, &d.LinuxBlockIODevice)
		p.weight(name+".weight", dev, d.Weight)
		p.leafWeight(name+".leafWeight", dev, d.LeafWeight)
	}
	p.throttles([]throttle{
		{
			"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps",
			b.ThrottleReadBpsDevice,
		},
		{
			"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps",
			b.ThrottleWriteBpsDevice,
		},
		{
			"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops",
			b.ThrottleReadIOPSDevice,
		},
		{
			"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops",
			b.ThrottleWriteIOPSDevice,
		},
	})
}

// device writes a device as control files want it.
func (p *planner) device(name string, d *specs.LinuxBlockIODevice) string {
	s := itoa(d.Major) + ":" + itoa(d.Minor)
	if d.Major < 0 || d.Minor < 0 {
		p.invalid(name, s, "a major and a minor number of a block device")
	}
	return s
}

// checkWeight reads a weight; 0 means not set.
func (p *planner) checkWeight(name string, w *uint16) (given string, set bool) {
	if w == nil || *w == 0 {
		return "", false
	}
	given = strconv.Itoa(int(*w))
	if *w < minWeight || *w > maxWeight {
		p.invalid(name, given, "10 to 1000")
	}
	return given, true
}

// weight sets the weight of a group, or with dev that for one device.
func (p *planner) weight(name, dev string, w *uint16) {
	given, set := p.checkWeight(name, w)
	if !set {
		return
	}
	v := p.need("blkio", name, given)
	out := write{value: given, field: field + name, given: given, entry: true}
	converted := strconv.FormatUint(ioWeight(*w), 10)
	suffix := ""
	if dev != "" {
		suffix, out.value, converted = "_device", dev+" "+given, dev+" "+converted
	}
	if v == 2 {
		// BFQ takes the weight as it is.
		out.file, out.altFile, out.altValue = "io.bfq.weight", "io.weight", converted
	} else {
		out.file, out.altFile = "blkio.weight"+suffix, "blkio.bfq.weight"+suffix
		out.altValue = out.value
	}
	p.put(v, "blkio", out)
}

func (p *planner) leafWeight(name, dev string, w *uint16) {
	given, set := p.checkWeight(name, w)
	if !set || !p.only1("blkio", name, given) {
		return
	}
	out := write{
		file: "blkio.leaf_weight", value: given, field: field + name, given: given, entry: true,
	}
	if dev != "" {
		out.file, out.value = "blkio.leaf_weight_device", dev+" "+given
	}
	p.put(1, "blkio", out)
}

type throttle struct {
	name, file, key string
	devices         []specs.LinuxThrottleDevice
}

// throttles limits devices. Version 1 has a file for each kind of limit, cgroup2 a line for each
// device.
func (p *planner) throttles(kinds []throttle) {
	var order []string
	lines := map[string]*write{}
	for _, k := range kinds {
		for i := range k.devices {
			d := &k.devices[i]
			name := fmt.Sprintf("blockIO.%s[%d]", k.name, i)
			dev, given := p.device(name, &d.LinuxBlockIODevice), strconv.FormatUint(d.Rate, 10)
			switch p.need("blkio", name, dev+" "+given) {
			case 1:
				p.put(
					1, "blkio",
					write{
						file: k.file, value: dev + " " + given, field: field + name,
						given: dev + " " + given, entry: true,
					},
				)
			case 2:
				rate := given
				if d.Rate == 0 {
					rate = "max" // 0 lifts the limit in version 1 and is an error here
				}
				w := lines[dev]
				if w == nil {
					w = &write{
						file: "io.max", value: dev, field: field + name, given: dev + " " + given,
						entry: true,
					}
					lines[dev], order = w, append(order, dev)
				} else {
					w.field += ", " + name
				}
				w.value += " " + k.key + "=" + rate
			}
		}
	}
	for _, dev := range order {
		p.put(2, "blkio", *lines[dev])
	}
}
