package spec

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func parsed(t *testing.T, text string) *ContainerSpec {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestText(t *testing.T) {
	t.Parallel()
	const given = `filesystem { mounts: { mount { source:'/a"\n' read_only: true } mount {} } }
		memory:{limit:100000000} owner: 7 cpu { limit: 500, mask { data: [1, 2] }
		scheduling_latency: BEST_EFFORT }`
	const want = `owner: 7
cpu {
  scheduling_latency: BEST_EFFORT
  limit: 500
  mask {
    data: 1
    data: 2
  }
}
memory {
  limit: 100000000
}
filesystem {
  mounts {
    mount {
      source: "/a\"\n"
      read_only: true
    }
    mount {
    }
  }
}
`
	s := parsed(t, given)
	if got := Text(s); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if again := parsed(t, want); !proto.Equal(again, s) {
		t.Errorf("read back as %v", again)
	}
}

// TestBinary uses bytes that were written by hand from the numbers of the original's fields: cpu is
// 2, its limit 2; memory is 3, its limit 2 and its swap_limit 7.
func TestBinary(t *testing.T) {
	t.Parallel()
	raw := "\x12\x03\x10\xe8\x07\x1a\x0e\x10\x80\x08\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	s := parsed(t, raw)
	want := parsed(t, "cpu { limit: 1000 } memory { limit: 1024 swap_limit: -1 }")
	if !proto.Equal(s, want) {
		t.Errorf("got %v, want %v", s, want)
	}
	if got, err := Binary(want); err != nil || string(got) != raw {
		t.Errorf("got %q, %v, want %q", got, err, raw)
	}
	// children_limit 65 in binary form is the letters "HA", which are no text.
	if s := parsed(t, "HA"); s.GetChildrenLimit() != 65 {
		t.Errorf("got %v", s)
	}
	if s := parsed(t, ""); len(Resources(s)) != 0 {
		t.Errorf("got %v", s)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, want string }{
		{"cpu { limitt: 1 }", `line 1:7: there is no field "limitt"; did you mean "limit"?`},
		{"xyzzy", `line 1:1: there is no field "xyzzy"`},
		{
			"cpu {\n  scheduling_latency: FAST }", "line 2:23: scheduling_latency: FAST: " +
				"want BEST_EFFORT, NORMAL, PRIORITY, PREMIER",
		},
		{"memory { limit: 1.5 }", "line 1:17: limit: 1.5: want a whole number of at most 64 bits"},
		{"owner: 1x", "line 1:8: owner: 1x: want a whole number of at most 64 bits"},
		{
			"memory { kmem_charge_usage: 7 }",
			"line 1:29: kmem_charge_usage: 7: want true or false",
		},
		{
			"memory { hugetlbfs_path: x }",
			"line 1:26: hugetlbfs_path: x: want a string in quotes",
		},
		{"memory {", "unexpected EOF"},
		{"memory{limit:1 limit:2}", `line 1:16: non-repeated field "limit" is repeated`},
		{"\x12\x03\x10", "it is no text, and no message in binary form either"},
		{"\xa2\x06\x01\x00", `the binary message has a field at "/" that is not known`},
		{
			"\x12\x03\x50\xe8\x07",
			`the binary message has a field at "/cpu" that is not known`,
		},
	} {
		_, err := Parse([]byte(c.given))
		if want := "ContainerSpec: " + c.want + ": invalid argument"; err == nil ||
			err.Error() != want || !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: got %v\nwant %s", c.given, err, want)
		}
	}
}

func TestParseInit(t *testing.T) {
	t.Parallel()
	s, err := ParseInit([]byte(`cgroup_mount:{ mount_path:'/sys/fs/cgroup/cpu'
		hierarchy:CGROUP_CPU hierarchy:CGROUP_CPUACCT }`))
	if err != nil || len(s.CgroupMount) != 1 || len(s.CgroupMount[0].Hierarchy) != 2 {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := ParseInit([]byte("cgroup_mount { hierarchy: CGROUP_CPUS }")); err == nil ||
		!strings.Contains(err.Error(), "CGROUP_CPUS: want CGROUP_UNKNOWN, CGROUP_CPU, ") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, want string }{
		{"owner: -1", "owner: -1: want a number of 0 to 4294967294"},
		{"children_limit: -1", "children_limit: -1: want 0 or more containers"},
		{"cpu { max_limit: 3 }", "cpu.max_limit: 3: want 4 to 1073741824 milliseconds a second"},
		{"cpu { mask {} }", "cpu.mask.data: no processor: want one bit set or more"},
		{
			"memory { eviction_priority: 10001 }",
			"memory.eviction_priority: 10001: want 0 to 10000",
		},
		{"memory { limit: -2 }", "memory.limit: -2: want a number of bytes, or -1 for no limit"},
		{"memory { limit: 0 }", "memory.limit: 0: want a number of bytes, or -1 for no limit"},
		{
			"memory { limit: 100 reservation: 101 }",
			"memory.reservation: 101: want at most memory.limit, 100",
		},
		{
			"memory { limit: 100 swap_limit: 99 }",
			"memory.swap_limit: 99: want the sum of memory and swap: at least memory.limit, 100",
		},
		{
			"memory { limit: 100 max_limit: 99 }",
			"memory.max_limit: 99: want at least memory.limit, 100",
		},
		{
			"memory { dirty { ratio: 1 limit: 1 } }",
			"memory.dirty: ratio and limit: want the ratios or the limits, not both",
		},
		{"memory { dirty { ratio: 101 } }", "memory.dirty.ratio: 101: want 0 to 100 percent"},
		{
			"device { restrictions_set { restrictions { type: DEVICE_ALL } } }",
			"device.restrictions_set.restrictions[0].permission: not set: want ALLOW or DENY",
		},
		{
			"device { restrictions_set { restrictions { permission: DENY type: DEVICE_ALL " +
				"major: 1 } } }",
			"device.restrictions_set.restrictions[0].type: DEVICE_ALL with a number: want " +
				"DEVICE_CHAR or DEVICE_BLOCK beside major and minor",
		},
		{
			"device { restrictions_set { restrictions { permission: DENY type: DEVICE_CHAR } } }",
			"device.restrictions_set.restrictions[0].access: not set: want READ, WRITE and " +
				"MKNOD, one or more of them",
		},
		{
			"blockio { device_limit_set { default_limit: 101 } }",
			"blockio.device_limit_set.default_limit: 101: want 1 to 100",
		},
		{
			"blockio { max_device_limit_set { max_limits { op_type: READ " +
				"limit_type: IO_PER_SECOND limits { limit: 5 } } } }",
			"blockio.max_device_limit_set.max_limits[0].limits[0].device: not set: want the " +
				"major and the minor number of a device",
		},
	} {
		err := Validate(parsed(t, c.given))
		if err == nil || err.Error() != c.want+": invalid argument" ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: got %v\nwant %s", c.given, err, c.want)
		}
	}
	for _, given := range []string{
		"virtual_host {}", "security_spec {}", "filesystem { rootfs: '/x' }",
		"filesystem { mounts {} }",
	} {
		field, _, _ := strings.Cut(strings.ReplaceAll(given, " { ", "."), ":")
		field = strings.TrimSuffix(strings.TrimSuffix(field, " }"), " {}")
		err := Validate(parsed(t, given))
		if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.HasPrefix(
			err.Error(), field+": ",
		) {
			t.Errorf("%s: got %v", given, err)
		}
	}
	for _, given := range []string{
		"", "cpu {}", "memory { limit: -1 }", "memory { limit: 5 max_limit: 5 swap_limit: 5 }",
		"device { restrictions_set { restrictions { permission: DENY type: DEVICE_ALL } } }",
	} {
		if err := Validate(parsed(t, given)); err != nil {
			t.Errorf("%s: %v", given, err)
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	const old = "owner: 3 cpu { limit: 1 max_limit: 9 mask { data: [1, 2] } } " +
		"memory { limit: 5 }"
	for _, c := range []struct {
		policy       Policy
		change, want string
	}{
		{Diff, "cpu { limit: 2 }", "owner: 3 cpu { limit: 2 max_limit: 9 mask { data: [1, 2] } } " +
			"memory { limit: 5 }"},
		{Diff, "cpu { mask { data: 7 } }", "owner: 3 cpu { limit: 1 max_limit: 9 " +
			"mask { data: 7 } } memory { limit: 5 }"},
		{Diff, "cpu { mask {} }", "owner: 3 cpu { limit: 1 max_limit: 9 mask {} } " +
			"memory { limit: 5 }"},
		{Diff, "children_limit: 4", old + " children_limit: 4"},
		{Replace, "cpu { limit: 2 } memory {}", "owner: 3 cpu { limit: 2 } memory {}"},
	} {
		before := parsed(t, old)
		got := Merge(before, parsed(t, c.change), c.policy)
		if !proto.Equal(got, parsed(t, c.want)) {
			t.Errorf("%s %s: got %v, want %s", c.policy, c.change, got, c.want)
		}
		if !proto.Equal(before, parsed(t, old)) {
			t.Errorf("%s %s changed its argument to %v", c.policy, c.change, before)
		}
	}
}

func TestCheckUpdate(t *testing.T) {
	t.Parallel()
	old := parsed(t, "owner: 3 cpu { scheduling_latency: NORMAL } memory {}")
	isolated := Resources(old)
	for _, c := range []struct {
		policy       Policy
		change, want string
	}{
		{Diff, "cpu {}", ""},
		{Diff, "cpu { scheduling_latency: NORMAL }", ""},
		{Replace, "cpu { scheduling_latency: NORMAL } memory {}", ""},
		{Replace, "cpu { scheduling_latency: NORMAL }", "memory: update replace has to name all " +
			"resources that the container isolates: cpu, memory"},
		{Diff, "blockio {}", "blockio: the container does not isolate it, and an update cannot " +
			"add it; it isolates cpu, memory"},
		{Diff, "cpu { scheduling_latency: PREMIER }", "cpu.scheduling_latency: it is NORMAL " +
			"since the container was created, and cannot become PREMIER"},
		{Replace, "cpu {} memory {}", "cpu.scheduling_latency: it is NORMAL since the container " +
			"was created, and cannot become PRIORITY"},
		{Diff, "owner: 4", "owner: it is set when the container is created"},
	} {
		err := CheckUpdate(isolated, old, parsed(t, c.change), c.policy)
		got := ""
		if err != nil {
			got = strings.TrimSuffix(err.Error(), ": invalid argument")
		}
		if got != c.want {
			t.Errorf("%s %s: got %s\nwant %s", c.policy, c.change, got, c.want)
		}
	}
}

// TestNumbers compares the fields with a checkout of the original's .proto, which is not part of
// this tree: its directory is in STRAKE_LMCTFY_SOURCE. Without one it compares the numbers that
// lmctfy 0.5.0 gave the fields of ContainerSpec.
func TestNumbers(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"owner": 1, "cpu": 2, "memory": 3, "network": 5, "monitoring": 6, "filesystem": 7,
		"owner_group": 8, "children_limit": 9, "virtual_host": 10, "device": 11, "blockio": 12,
		"security_spec": 13,
	}
	fields := new(ContainerSpec).ProtoReflect().Descriptor().Fields()
	for name, number := range want {
		f := fields.ByName(protoreflect.Name(name))
		if f == nil || int(f.Number()) != number {
			t.Errorf("%s: got %v, want number %d", name, f, number)
		}
	}
	dir := os.Getenv("STRAKE_LMCTFY_SOURCE")
	if dir == "" {
		return
	}
	ours, err := os.ReadFile("lmctfy.proto")
	if err != nil {
		t.Fatal(err)
	}
	have := declarations(string(ours))
	for _, file := range []string{"lmctfy.proto", "virtual_host.proto", "config.proto"} {
		theirs, err := os.ReadFile(dir + "/include/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for d := range declarations(string(theirs)) {
			if !have[d] && !strings.HasPrefix(d, "MachineSpec") && !strings.HasPrefix(d, "DiskIo") {
				t.Errorf("%s: we lack %s", file, d)
			}
		}
	}
}

// declarations are the fields and values of a .proto file, each with the messages that it is in.
func declarations(text string) map[string]bool {
	found := map[string]bool{}
	var in []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		line = strings.Join(strings.Fields(line), " ")
		switch {
		case strings.HasSuffix(line, "{}"):
		case strings.HasSuffix(line, "{"):
			in = append(in, strings.Fields(line)[1])
		case strings.HasPrefix(line, "}"):
			in = in[:len(in)-1]
		case strings.Contains(line, "=") && len(in) > 0:
			found[strings.Join(in, ".")+" "+line] = true
		}
	}
	return found
}

// FuzzParse checks that whatever is understood is written in both forms so that it is understood
// again, and that validation and updates of it end.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"cpu { limit: 1 mask { data: [1, 2] } }", "\x12\x03\x10\xe8\x07", "memory:{limit:-1}", "HA",
		"device{restrictions_set{restrictions{permission:DENY type:DEVICE_ALL}}} owner: 3",
		"filesystem { mounts { mount { source: '/a\\n\\377' } } } network {}",
		"blockio { max_device_limit_set { max_limits { limits {} } } }",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("class of %v", err)
			}
			return
		}
		raw, err := Binary(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{Text(s), string(raw)} {
			again, err := Parse([]byte(form))
			if err != nil || !proto.Equal(again, s) {
				t.Errorf("%q became %q, which is read as %v, %v", data, form, again, err)
			}
		}
		if Validate(s) == nil {
			_ = CheckUpdate(Resources(s), s, s, Replace)
			if merged := Merge(s, s, Diff); !proto.Equal(merged, s) {
				t.Errorf("%q merged with itself is %q", data, Text(merged))
			}
		}
	})
}
