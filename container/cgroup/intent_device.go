package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// hugepages follows cgroup-v1/hugetlb.rst and cgroup-v2.rst, "HugeTLB Interface Files". Where the
// kernel limits reservations as well (since 5.7), these get the same limit: what exceeds them fails
// on mmap(2) instead of by SIGBUS.
func (p *planner) hugepages(limits []specs.LinuxHugepageLimit) {
	for i, l := range limits {
		name := fmt.Sprintf("hugepageLimits[%d]", i)
		if !validPageSize(l.Pagesize) {
			p.invalid(name+".pageSize", strconv.Quote(l.Pagesize), "a size such as 64KB, 2MB, 1GB")
			return
		}
		s := strconv.FormatUint(l.Limit, 10)
		v := p.need("hugetlb", name+".limit", s)
		suffix := ".limit_in_bytes"
		if v == 2 {
			suffix = ".max"
		}
		w := write{
			file: "hugetlb." + l.Pagesize + suffix, value: s, field: field + name + ".limit",
			given: s + " of pages of " + l.Pagesize,
		}
		p.put(v, "hugetlb", w)
		w.file, w.optional = "hugetlb."+l.Pagesize+".rsvd"+suffix, true
		p.put(v, "hugetlb", w)
	}
}

func validPageSize(s string) bool {
	for _, unit := range [...]string{"KB", "MB", "GB"} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			_, err := strconv.ParseUint(n, 10, 32)
			return err == nil && n[0] != '+'
		}
	}
	return false
}

// network follows cgroup-v1/net_cls.rst and net_prio.rst. On cgroup2 packet filters match the group
// itself instead.
func (p *planner) network(n *specs.LinuxNetwork) {
	if n == nil {
		return
	}
	if id := value(n.ClassID); id != 0 {
		s := strconv.FormatUint(uint64(id), 10)
		if p.only1("net_cls", "network.classID", s) {
			p.put(
				1, "net_cls",
				write{
					file: "net_cls.classid", value: s, field: field + "network.classID", given: s,
				},
			)
		}
	}
	for i, prio := range n.Priorities {
		name := fmt.Sprintf("network.priorities[%d]", i)
		s := prio.Name + " " + strconv.FormatUint(uint64(prio.Priority), 10)
		if prio.Name == "" || len(prio.Name) > 15 || strings.ContainsAny(prio.Name, "/ :") ||
			!printable(prio.Name) {
			p.invalid(name+".name", strconv.Quote(prio.Name), "the name of a network interface")
			return
		}
		if p.only1("net_prio", name, s) {
			p.put(
				1, "net_prio",
				write{
					file: "net_prio.ifpriomap", value: s, field: field + name, given: s,
					entry: true,
				},
			)
		}
	}
}

// rdma follows cgroup-v1/rdma.rst; cgroup2 has the same file.
func (p *planner) rdma(devices map[string]specs.LinuxRdma) {
	for _, dev := range slices.Sorted(maps.Keys(devices)) {
		l, name := devices[dev], "rdma["+strconv.Quote(dev)+"]"
		if dev == "" || strings.ContainsAny(dev, " /=") || !printable(dev) {
			p.invalid(name, strconv.Quote(dev), "the name of an RDMA device")
			return
		}
		s := dev
		if l.HcaHandles != nil {
			s += " hca_handle=" + strconv.FormatUint(uint64(*l.HcaHandles), 10)
		}
		if l.HcaObjects != nil {
			s += " hca_object=" + strconv.FormatUint(uint64(*l.HcaObjects), 10)
		}
		if s == dev {
			continue
		}
		p.put(
			p.need("rdma", name, s), "rdma",
			write{file: "rdma.max", value: s, field: field + name, given: s, entry: true},
		)
	}
}
