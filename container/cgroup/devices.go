package cgroup

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultDevices are rules for the devices that every container has (runtime-spec config-linux.md,
// "Default Devices"), and for making nodes, which gives no access.
func DefaultDevices() (rules []specs.LinuxDeviceCgroup) {
	allow := func(kind string, major, minor int64, access string) {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major != anyNumber {
			rule.Major = &major
		}
		if minor != anyNumber {
			rule.Minor = &minor
		}
		rules = append(rules, rule)
	}
	allow("c", anyNumber, anyNumber, "m")
	allow("b", anyNumber, anyNumber, "m")
	for _, minor := range []int64{3, 5, 7, 8, 9} { // null, zero, full, random, urandom
		allow("c", 1, minor, "rwm")
	}
	for _, minor := range []int64{0, 1, 2} { // tty, console, ptmx
		allow("c", 5, minor, "rwm")
	}
	allow("c", 136, anyNumber, "rwm") // pts
	return rules
}

// Accesses to a device, as struct bpf_cgroup_dev_ctx has them (linux/bpf.h).
const (
	accessMknod = 1 << iota
	accessRead
	accessWrite
	accessAll = accessMknod | accessRead | accessWrite
)

const anyNumber = -1

// deviceMatch says which devices an exception is about. Numbers may be anyNumber.
type deviceMatch struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

// devicePolicy is what a list of rules comes to: what happens to every device, and the exceptions
// with the accesses they are about. Version 1 keeps exactly this (cgroup-v1/devices.rst), and the
// programs for cgroup2 are made from it, so that a configuration means the same on both.
type devicePolicy struct {
	allow      bool
	exceptions map[deviceMatch]int
}

// reduceDevices applies rules in their order, each changing what those before it came to: a rule
// for all devices starts anew; one that agrees with what happens to every device takes exceptions
// back; any other adds exceptions. No rules at all deny everything. It is pure.
//
// A rule that would take only part of an exception with a wildcard back is an error: version 1
// ignores such rules, which would leave a device open that a configuration closes.
func reduceDevices(rules []specs.LinuxDeviceCgroup) (devicePolicy, error) {
	p := devicePolicy{exceptions: map[deviceMatch]int{}}
	for i := range rules {
		r := &rules[i]
		m, access, err := parseDeviceRule(r)
		if err == nil && m.kind == 'a' {
			p = devicePolicy{allow: r.Allow, exceptions: map[deviceMatch]int{}}
			continue
		}
		if err == nil {
			if r.Allow == p.allow {
				err = p.takeBack(m, access)
			} else {
				p.exceptions[m] |= access
			}
		}
		if err != nil {
			return devicePolicy{}, fmt.Errorf("%sdevices[%d]: %w", field, i, err)
		}
	}
	return p, nil
}

func (p *devicePolicy) takeBack(m deviceMatch, access int) error {
	for _, wild := range [...]deviceMatch{
		{m.kind, anyNumber, m.minor}, {m.kind, m.major, anyNumber}, {m.kind, anyNumber, anyNumber},
	} {
		if wild != m && p.exceptions[wild]&access != 0 {
			return fmt.Errorf(
				"%q: it would take back part of the earlier rule %q, which the devices cgroup "+
					"cannot: %w",
				m.rule(access), wild.rule(p.exceptions[wild]), errdefs.ErrInvalidArgument,
			)
		}
	}
	if left := p.exceptions[m] &^ access; left != 0 {
		p.exceptions[m] = left
	} else {
		delete(p.exceptions, m)
	}
	return nil
}

// parseDeviceRule checks a rule. The kind 'a' stands for all devices.
func parseDeviceRule(r *specs.LinuxDeviceCgroup) (m deviceMatch, access int, err error) {
	bad := func(format string, args ...any) (deviceMatch, int, error) {
		return deviceMatch{}, 0, fmt.Errorf(
			format+": %w", append(args, errdefs.ErrInvalidArgument)...,
		)
	}
	for _, c := range r.Access {
		switch c {
		case 'r':
			access |= accessRead
		case 'w':
			access |= accessWrite
		case 'm':
			access |= accessMknod
		case 'a':
			// runc takes this letter and ignores it, and so do configurations.
		default:
			return bad("access %q: want letters of rwm", r.Access)
		}
	}
	if access == 0 {
		return bad("access %q: device access cannot be empty, want letters of rwm", r.Access)
	}
	numbers := [2]int64{anyNumber, anyNumber}
	for i, n := range [...]*int64{r.Major, r.Minor} {
		if n == nil {
			continue
		}
		if *n < anyNumber || *n > 1<<32-1 {
			return bad(
				"%s %d: want 0 to 4294967295, or -1 for all", [...]string{"major", "minor"}[i], *n,
			)
		}
		numbers[i] = *n
	}
	m = deviceMatch{major: numbers[0], minor: numbers[1]}
	switch r.Type {
	case "b", "c":
		m.kind = r.Type[0]
	case "a", "":
		// The kernel would apply such a rule to all devices and all accesses, whatever else it
		// says.
		if m.major != anyNumber || m.minor != anyNumber || access != accessAll {
			return bad(
				`type %q with numbers %s or access %q: a rule for all devices is for all numbers `+
					`and "rwm"; want type "b" or "c"`,
				r.Type, m.numbers(), r.Access,
			)
		}
		m.kind = 'a'
	default:
		return bad(`type %q: want "a", "b" or "c"`, r.Type)
	}
	return m, access, nil
}

func (m deviceMatch) numbers() string {
	s := func(n int64) string {
		if n == anyNumber {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return s(m.major) + ":" + s(m.minor)
}

// rule writes an exception as devices.allow and devices.deny want it.
func (m deviceMatch) rule(access int) string {
	s := string(m.kind) + " " + m.numbers() + " "
	for i, c := range "mrw" {
		if access&(1<<i) != 0 {
			s += string(c)
		}
	}
	return s
}

// sorted lists the exceptions in a fixed order.
func (p *devicePolicy) sorted() []deviceMatch {
	list := make([]deviceMatch, 0, len(p.exceptions))
	for m := range p.exceptions {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b deviceMatch) int {
		return cmp.Or(
			cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor),
			cmp.Compare(a.kind, b.kind),
		)
	})
	return list
}
