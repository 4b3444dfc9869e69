package cgroup

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// evaluate runs a device program as the kernel does.
func evaluate(t *testing.T, prog bpfProgram, kind, access, major, minor uint32) bool {
	t.Helper()
	ctx := [3]uint32{kind | access<<16, major, minor}
	var reg [11]uint64
	for pc := 0; pc < len(prog)/bpfOpSize; pc++ {
		op := prog[pc*bpfOpSize:]
		dst, src := op[1]&15, op[1]>>4
		off, imm := int(
			int16(binary.NativeEndian.Uint16(op[2:])),
		), binary.NativeEndian.Uint32(op[4:])
		switch op[0] {
		case opLoad32:
			if src != regArg {
				t.Fatal("a load from elsewhere")
			}
			reg[dst] = uint64(ctx[off/4])
		case opMov64:
			reg[dst] = reg[src]
		case opMovImm:
			reg[dst] = uint64(imm)
		case opAndImm:
			reg[dst] &= uint64(int64(int32(imm)))
		case opShrImm:
			reg[dst] >>= imm
		case opJneImm:
			if uint32(reg[dst]) != imm {
				pc += off
			}
		case opJeqImm:
			if uint32(reg[dst]) == imm {
				pc += off
			}
		case opExit:
			return reg[regAnswer] == 1
		default:
			t.Fatalf("instruction %#x", op[0])
		}
	}
	t.Fatal("no exit")
	return false
}

// decide is what the rules mean, straight from cgroup-v1/devices.rst.
func decide(p *devicePolicy, kind byte, access int, major, minor int64) bool {
	for m, a := range p.exceptions {
		if m.kind != kind || m.major != anyNumber && m.major != major || m.minor != anyNumber &&
			m.minor != minor {
			continue
		}
		if p.allow && access&a != 0 {
			return false
		}
		if !p.allow && access&^a == 0 {
			return true
		}
	}
	return p.allow
}

// TestDeviceProgram compares programs of random policies with their meaning.
func TestDeviceProgram(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	number := func() int64 {
		return []int64{anyNumber, 0, 1, 5, 4095, 1 << 31, 1<<32 - 1}[r.IntN(7)]
	}
	for range 300 {
		p := devicePolicy{allow: r.IntN(2) == 0, exceptions: map[deviceMatch]int{}}
		for range r.IntN(6) {
			p.exceptions[deviceMatch{"bc"[r.IntN(2)], number(), number()}] = 1 + r.IntN(accessAll)
		}
		prog := deviceProgram(&p)
		for range 60 {
			kind, access, major, minor := byte(
				"bc"[r.IntN(2)],
			), 1+r.IntN(accessAll), max(number(), 0), max(number(), 0)
			k := uint32(2)
			if kind == 'b' {
				k = 1
			}
			if got, want := evaluate(
				t, prog, k, uint32(access), uint32(major), uint32(minor),
			), decide(&p, kind, access, major, minor); got != want {
				t.Fatalf(
					"%+v: %c %d:%d access %d: %v, want %v", p, kind, major, minor, access, got,
					want,
				)
			}
		}
	}
}

// TestDevicesInForce attaches programs to a group of the version 2 tree, which needs no controller
// for that, and looks from inside.
func TestDevicesInForce(t *testing.T) {
	h, name := host(t)
	mount := h.unified()
	if mount == "" {
		t.Skip("needs a version 2 tree")
	}
	dir := mount + name
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g, err := h.At(name)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove(context.Background())
	look := func() string {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		node := t.TempDir() + "/node"
		cmd := exec.Command(
			"/bin/sh", "-c",
			"for d in null zero; do head -c1 /dev/$d >/tmp/null.out 2>&1 && echo $d; done; "+
				"mknod "+node+" c 1 3 2>/dev/null && echo made; rm -f /tmp/null.out",
		)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			out = []byte(err.Error())
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	rules := func(list ...specs.LinuxDeviceCgroup) *devicePolicy {
		p, err := reduceDevices(list)
		if err != nil {
			t.Fatal(err)
		}
		return &p
	}
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	null := specs.LinuxDeviceCgroup{
		Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm",
	}
	zero := specs.LinuxDeviceCgroup{
		Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(5)), Access: "r",
	}
	for i, c := range []struct {
		policy *devicePolicy
		want   string
	}{
		{rules(deny, null), "null made"},
		{rules(deny, null, zero), "null zero made"},
		{
			rules(
				specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"},
				specs.LinuxDeviceCgroup{Type: "c", Major: ptr(int64(1)), Access: "m"},
			),
			"null zero",
		},
	} {
		if err := attachDevices(dir, c.policy); err != nil {
			t.Fatal(err)
		}
		if got := look(); got != c.want {
			t.Errorf("policy %d: %q, want %q", i, got, c.want)
		}
		fd, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := attached(int(fd.Fd()))
		fd.Close()
		for _, fd := range fds {
			syscall.Close(fd)
		}
		if err != nil || len(fds) != 1 {
			t.Errorf("policy %d: %d programs, %v, want 1", i, len(fds), err)
		}
	}
}

func TestReduceDevices(t *testing.T) {
	t.Parallel()
	rule := func(allow bool, kind, access string, numbers ...int64) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		if len(numbers) > 0 {
			r.Major = &numbers[0]
		}
		if len(numbers) > 1 {
			r.Minor = &numbers[1]
		}
		return r
	}
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string // "allow|deny kind major:minor access, ..." or an error
	}{
		{"nothing is allowed", nil, "deny"},
		{
			"exceptions add up",
			[]specs.LinuxDeviceCgroup{
				rule(false, "a", "rwm"), rule(true, "c", "r", 1, 3), rule(true, "c", "w", 1, 3),
			},
			"deny c 1:3 rw",
		},
		{
			"the last rule for all wins",
			[]specs.LinuxDeviceCgroup{rule(true, "c", "r", 1, 3), rule(true, "", "rwm")}, "allow",
		},
		{
			"taken back",
			[]specs.LinuxDeviceCgroup{rule(true, "c", "rwm", 1, 3), rule(false, "c", "w", 1, 3)},
			"deny c 1:3 mr",
		},
		{
			"part of a wildcard",
			[]specs.LinuxDeviceCgroup{rule(true, "c", "rwm", 1), rule(false, "c", "w", 1, 3)},
			`error: linux.resources.devices[1]: "c 1:3 w": it would take back part`,
		},
		{
			"bad access", []specs.LinuxDeviceCgroup{rule(true, "c", "x")},
			`error: linux.resources.devices[0]: access "x"`,
		},
		{
			"no access", []specs.LinuxDeviceCgroup{rule(true, "c", "")},
			`error: linux.resources.devices[0]: access ""`,
		},
		{
			"bad type", []specs.LinuxDeviceCgroup{rule(true, "p", "r")},
			`error: linux.resources.devices[0]: type "p"`,
		},
		{
			"bad number", []specs.LinuxDeviceCgroup{rule(true, "c", "r", -2)},
			"error: linux.resources.devices[0]: major -2",
		},
		{
			"all devices but not all accesses", []specs.LinuxDeviceCgroup{rule(true, "a", "r")},
			"error: linux.resources.devices[0]: type",
		},
	} {
		p, err := reduceDevices(c.rules)
		got := "deny"
		if p.allow {
			got = "allow"
		}
		for _, m := range p.sorted() {
			got += " " + m.rule(p.exceptions[m])
		}
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want && !(err != nil && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
