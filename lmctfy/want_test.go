package lmctfy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"strake/lmctfy/spec"
)

// everything is a host whose kernel has all files of its version.
func everything(version int) features {
	return features{
		version: version, above: "0-7", has: func(string, string) bool { return true },
	}
}

// plain is a host whose kernel has none of the files that few have.
func plain(version int) features {
	return features{version: version, above: "0-7", has: func(controller, file string) bool {
		return file == "cpuset.cpus" || file == swapFile(version)
	}}
}

// TestWanted compares what specifications become, without a kernel: the writes by controllers, the
// files, and the fields that are not enforced.
func TestWanted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		at    features
		given string
		want  string
	}{
		{"cpu defaults", plain(1), "cpu {}",
			`cpu {"cpu":{"shares":1024,"quota":-1,"period":250000}}; cpuset.cpus=0-7`},
		{"cpu limits", plain(1), "cpu { limit: 1500 max_limit: 500 mask { data: 0x10d } }",
			`cpu {"cpu":{"shares":1536,"quota":125000,"period":250000}}; ` +
				`cpuset {"cpu":{"cpus":"0,2-3,8"}}`},
		{"least and most shares", plain(1), "cpu { limit: 1 }",
			`cpu {"cpu":{"shares":2,"quota":-1,"period":250000}}; cpuset.cpus=0-7`},
		{"best effort", everything(1), "cpu { scheduling_latency: BEST_EFFORT limit: 5 }",
			`cpu {"cpu":{"quota":-1,"period":250000,"idle":1}}; cpuset.cpus=0-7; !cpu.limit`},
		{"best effort without cpu.idle", plain(2), "cpu { scheduling_latency: BEST_EFFORT }",
			`cpu {"cpu":{"shares":2,"quota":-1,"period":250000}}; cpuset.cpus=0-7; ` +
				`!cpu.scheduling_latency`},
		{"normal on version 1", plain(1), "cpu { scheduling_latency: NORMAL limit: 2000 }",
			`cpu {"cpu":{"shares":2048,"quota":-1,"period":250000}}; cpuset.cpus=0-7`},
		{"normal on version 2", plain(2), "cpu { scheduling_latency: NORMAL limit: 2000 }",
			`cpu {"cpu":{"shares":2,"quota":-1,"period":250000}}; cpuset.cpus=0-7; !cpu.limit`},
		{"premier", everything(2), "cpu { scheduling_latency: PREMIER }",
			`cpu {"cpu":{"shares":1024,"quota":-1,"period":250000}}; cpu.uclamp.min=max; ` +
				`cpuset.cpus=0-7`},
		{"premier without a clamp", plain(2), "cpu { scheduling_latency: PREMIER }",
			`cpu {"cpu":{"shares":1024,"quota":-1,"period":250000}}; cpuset.cpus=0-7; ` +
				`!cpu.scheduling_latency`},
		{"memory defaults", plain(1), "memory {}",
			`memory {"memory":{"limit":-1,"swap":-1}}; memory.soft_limit_in_bytes=0`},
		{"memory on version 1", plain(1), "memory { limit: 9 swap_limit: 10 reservation: 5 }",
			`memory {"memory":{"limit":9,"swap":10}}; memory.soft_limit_in_bytes=5`},
		{"memory on version 2", plain(2), "memory { limit: 9 reservation: 5 }",
			`memory {"memory":{"limit":9,"swap":-1}}; memory.low=5`},
		{"max_limit on version 1", plain(1), "memory { limit: 9 max_limit: 20 }",
			`memory {"memory":{"limit":9,"swap":-1}}; memory.soft_limit_in_bytes=0; ` +
				`!memory.max_limit`},
		{"max_limit on version 2", plain(2), "memory { limit: 9 max_limit: 20 }",
			`memory {"memory":{"limit":20,"swap":-1}}; memory.high=9; memory.low=0`},
		{"swap that is not accounted for", features{version: 1, has: none},
			"memory { limit: 9 swap_limit: 10 }",
			`memory {"memory":{"limit":9}}; memory.soft_limit_in_bytes=0; !memory.swap_limit`},
		{"patches", plain(1), "memory { dirty { limit: 5 } kmem_charge_usage: true tmpfs {} " +
			"stale_page_age: 1 hugetlbfs_path: '/x' compression_sampling_ratio: 2 }",
			`memory {"memory":{"limit":-1,"swap":-1}}; memory.soft_limit_in_bytes=0; ` +
				`!memory.compression_sampling_ratio; !memory.dirty.limit; ` +
				`!memory.hugetlbfs_path; !memory.kmem_charge_usage; !memory.stale_page_age; ` +
				`!memory.tmpfs`},
		{"a patched kernel", everything(1), "memory { dirty { ratio: 5 background_ratio: 2 } }",
			`memory {"memory":{"limit":-1,"swap":-1}}; memory.dirty_background_ratio=2; ` +
				`memory.dirty_ratio=5; memory.soft_limit_in_bytes=0`},
		{"devices", plain(2), "device { restrictions_set { restrictions { permission: DENY " +
			"type: DEVICE_ALL } restrictions { permission: ALLOW type: DEVICE_BLOCK " +
			"access: MKNOD access: READ access: READ major: 8 } } }",
			`devices {"devices":[{"allow":true,"type":"a","access":"rwm"},` +
				`{"allow":false,"type":"a","access":"rwm"},` +
				`{"allow":true,"type":"b","major":8,"access":"rm"}]}`},
		{"blockio", everything(1), "blockio { device_limit_set { default_limit: 7 device_limits " +
			"{ device { major: 8 minor: 0 } limit: 100 } } max_device_limit_set { max_limits " +
			"{ op_type: WRITE limit_type: IO_PER_SECOND limits { device { major: 8 minor: 1 } " +
			"limit: 3 } } } }",
			`blkio {"blockIO":{"weight":70,"weightDevice":[{"major":8,"minor":0,"weight":1000}],` +
				`"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":3}]}}`},
		{"weights that no scheduler knows", plain(1),
			"blockio { device_limit_set { default_limit: 7 } }",
			`blkio {"blockIO":{}}; !blockio.device_limit_set`},
		{"others", plain(1), "network {} monitoring { enable_perf_counters: true } " +
			"filesystem { fd_limit: 5 }", `!filesystem.fd_limit; !monitoring.enable_perf_counters`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := spec.Parse([]byte(c.given))
			if err != nil {
				t.Fatal(err)
			}
			if err := spec.Validate(s); err != nil {
				t.Fatal(err)
			}
			if got := printed(wanted(s, nil, c.at)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func none(string, string) bool { return false }

// printed is what is wanted as one line.
func printed(w *want) string {
	var list []string
	for controller, res := range w.resources {
		raw, _ := json.Marshal(res)
		list = append(list, controller+" "+string(raw))
	}
	for _, f := range w.files {
		list = append(list, f.file+"="+f.value)
	}
	slices.Sort(list)
	var not []string
	for _, u := range w.unenforced {
		not = append(not, "!"+u.Field)
	}
	slices.Sort(not)
	return strings.Join(append(list, not...), "; ")
}

// TestRatesEnd checks that an update removes the rates that it does not name.
func TestRatesEnd(t *testing.T) {
	t.Parallel()
	old, err := spec.Parse([]byte("blockio { max_device_limit_set { max_limits { op_type: READ " +
		"limit_type: BYTES_PER_SECOND limits { device { major: 8 minor: 0 } limit: 3 } } } }"))
	if err != nil {
		t.Fatal(err)
	}
	got := printed(wanted(&spec.ContainerSpec{Blockio: new(spec.BlockIoSpec)}, old, plain(1)))
	const want = `blkio {"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]}}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestProcessors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mask []uint64
		want string
	}{
		{[]uint64{1}, "0"}, {[]uint64{3}, "0-1"}, {[]uint64{0x10d}, "0,2-3,8"},
		{[]uint64{1 << 63, 1}, "63-64"}, {[]uint64{0, 1 << 5}, "69"},
		{[]uint64{^uint64(0), ^uint64(0)}, "0-127"},
	} {
		got := processors(c.mask)
		if got != c.want {
			t.Errorf("%x: got %q, want %q", c.mask, got, c.want)
		}
		if back, err := maskOf(got); err != nil || fmt.Sprint(back) != fmt.Sprint(c.mask) {
			t.Errorf("%q: got %x, %v, want %x", got, back, err, c.mask)
		}
	}
	for _, list := range []string{"", "x", "3-1", "99999"} {
		if got, err := maskOf(list); err == nil {
			t.Errorf("%q: got %x", list, got)
		}
	}
}

func TestMilliOfWeight(t *testing.T) {
	t.Parallel()
	for weight, want := range map[uint64]uint64{1: 0, 100: 1000, 10000: 256000} {
		if got := milliOfWeight(weight); got > want+60 || got+60 < want ||
			weight == 100 && got != want {
			t.Errorf("weight %d: got %d, want about %d", weight, got, want)
		}
	}
}
