package container

import (
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"strake/cli/api"
	"strake/cli/command"
)

func TestPortList(t *testing.T) {
	t.Parallel()
	for want, ports := range map[string][]api.Port{
		"":             nil,
		"443/tcp":      {{PrivatePort: 443, Type: "tcp"}},
		"8080->80/tcp": {{PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
		"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp": {
			{IP: "::", PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
			{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		},
		"0.0.0.0:80-82->80-82/tcp": {
			{IP: "0.0.0.0", PrivatePort: 82, PublicPort: 82, Type: "tcp"},
			{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 80, Type: "tcp"},
			{IP: "0.0.0.0", PrivatePort: 81, PublicPort: 81, Type: "tcp"},
		},
		"0.0.0.0:80->80/tcp, 0.0.0.0:90->81/tcp": { // neighbours inside, not outside
			{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 80, Type: "tcp"},
			{IP: "0.0.0.0", PrivatePort: 81, PublicPort: 90, Type: "tcp"},
		},
		"53/tcp, 53/udp": {{PrivatePort: 53, Type: "udp"}, {PrivatePort: 53, Type: "tcp"}},
		"80-81/tcp":      {{PrivatePort: 80, Type: "tcp"}, {PrivatePort: 81, Type: "tcp"}},
		"80/tcp, 82/tcp": {{PrivatePort: 80, Type: "tcp"}, {PrivatePort: 82, Type: "tcp"}},
		"80/tcp, 0.0.0.0:81->81/tcp": {
			{PrivatePort: 80, Type: "tcp"},
			{IP: "0.0.0.0", PrivatePort: 81, PublicPort: 81, Type: "tcp"},
		},
	} {
		if got := portList(ports); got != want {
			t.Errorf("%+v:\ngot  %s\nwant %s", ports, got, want)
		}
	}
}

func TestContainerRow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_767_323_045, 0)
	c := api.Container{
		ID: strings.Repeat("ab", 32), Names: []string{"/web", "/other/alias"},
		Image:   "sha256:0123456789abcdef",
		Command: "sleep a very long time", Created: now.Unix() - 300, State: "running",
		Status: "Up 5 minutes", SizeRw: 2000, SizeRootFs: 3_000_000,
		Labels: map[string]string{"b": "2", "a": "1"},
	}
	c.NetworkSettings.Networks = map[string]api.Endpoint{"z": {}, "a": {}}
	type mount = struct{ Type, Name, Source, Destination string }
	c.Mounts = append(
		c.Mounts, mount{Type: "volume", Name: "a-volume-with-a-long-name"},
		mount{Type: "bind", Source: "/src"},
	)
	want := row{
		ID: "abababababab", Names: "web", Image: "0123456789ab",
		Command: `"sleep a very long t…"`, RunningFor: "5 minutes ago", State: "running",
		Status: "Up 5 minutes", Size: "2kB (virtual 3MB)", Labels: "a=1,b=2", Networks: "a,z",
		Mounts: "a-volume-with-…,/src", LocalVolumes: "1",
		CreatedAt: time.Unix(now.Unix()-300, 0).String(),
	}
	got := containerRow(&c, &command.Listing{}, now)
	if got.Label("a") != "1" || got.Label("none") != "" {
		t.Errorf("labels %q, %q", got.Label("a"), got.Label("none"))
	}
	if head := got.Heading().(row); head.Label("com.example/my-tier_1") != "MY TIER 1" {
		t.Errorf("heading of a label: %q", head.Label("com.example/my-tier_1"))
	}
	got.labels = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	long := containerRow(&c, &command.Listing{NoTrunc: true}, now)
	if long.ID != c.ID || long.Names != "web,other/alias" || long.Image != c.Image ||
		long.Command != `"sleep a very long time"` ||
		long.Mounts != "a-volume-with-a-long-name,/src" {
		t.Errorf("with --no-trunc: %+v", long)
	}
	if r := containerRow(&api.Container{}, &command.Listing{}, now); r.Image != "<no image>" {
		t.Errorf("without an image: %q", r.Image)
	}
}

func TestCPUPercent(t *testing.T) {
	t.Parallel()
	stats := func(used, before, system, systemBefore uint64, online uint32, perCPU int) *api.Stats {
		var st api.Stats
		st.CPU.Usage.Total, st.PreCPU.Usage.Total = used, before
		st.CPU.System, st.PreCPU.System = system, systemBefore
		st.CPU.Online, st.CPU.Usage.PerCPU = online, make([]uint64, perCPU)
		return &st
	}
	for name, c := range map[string]struct {
		st   *api.Stats
		want float64
	}{
		"half of one of four":           {stats(150, 100, 1400, 1000, 4, 0), 50},
		"by the list of processors":     {stats(150, 100, 1400, 1000, 0, 2), 25},
		"idle":                          {stats(100, 100, 1400, 1000, 4, 0), 0},
		"the first measurement":         {stats(100, 100, 1000, 1000, 4, 0), 0},
		"the counters were set to zero": {stats(10, 100, 1400, 1000, 4, 0), 0},
	} {
		if got := cpuPercent(c.st); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestStatsRow(t *testing.T) {
	t.Parallel()
	var st api.Stats
	st.ID, st.Name, st.Pids.Current = strings.Repeat("ab", 32), "/web", 7
	st.Memory = api.Memory{
		Usage: 3 << 20, Limit: 64 << 20,
		Stats: map[string]uint64{"total_inactive_file": 1 << 20, "inactive_file": 2 << 20},
	}
	type traffic = struct {
		RxBytes uint64 `json:"rx_bytes"`
		TxBytes uint64 `json:"tx_bytes"`
	}
	st.Networks = map[string]traffic{"eth0": {1000, 2}, "eth1": {500, 3}}
	type blocks = struct {
		Op    string `json:"op"`
		Value uint64 `json:"value"`
	}
	st.Blkio.Bytes = []blocks{{"Read", 1000}, {"write", 2000}, {"read", 5}, {"Sync", 9}}
	f := &statsFlags{Listing: &command.Listing{}}
	want := statsRow{
		Container: "web", ID: "abababababab", Name: "web", CPUPerc: "0.00%",
		MemUsage: "2MiB / 64MiB", MemPerc: "3.12%", NetIO: "1.5kB / 5B", BlockIO: "1kB / 2kB",
		PIDs: "7",
	}
	if got := f.row("web", &st); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	st.Memory = api.Memory{Usage: 1 << 20, Stats: map[string]uint64{"inactive_file": 2 << 20}}
	if got := f.row("web", &st); got.MemUsage != "1MiB / 0B" || got.MemPerc != "0.00%" {
		t.Errorf("more cache than use, and no limit: %s, %s", got.MemUsage, got.MemPerc)
	}
}

func TestOlderThan(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"1.40": true, "1.41": false, "1.42": false, "": true, "2.0": true, "nonsense": true,
	} {
		if got := olderThan(version, 41); got != want {
			t.Errorf("olderThan(%q, 41): got %v, want %v", version, got, want)
		}
	}
}

func TestWithTag(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]string{
		"bb": "bb:latest", "bb:1": "bb:1", "r:5000/bb": "r:5000/bb:latest",
		"bb@sha256:1": "bb@sha256:1",
	} {
		if got := withTag(ref); got != want {
			t.Errorf("%q: got %q, want %q", ref, got, want)
		}
	}
}

func TestStatusOfFailures(t *testing.T) {
	t.Parallel()
	code := func(err error) int {
		var status *command.StatusError
		if errors.As(err, &status) {
			return status.Code
		}
		return 1
	}
	for message, want := range map[string]struct{ start, exec int }{
		"exec: nonesuch: no such file or directory": {127, 127},
		"exec: /etc/passwd: permission denied":      {126, 126},
		"the engine is unwell":                      {125, 1},
	} {
		err := errors.New(message)
		if got := code(startFailed(err)); got != want.start {
			t.Errorf("start: %s: got %d, want %d", message, got, want.start)
		}
		if got := code(execFailed(err)); got != want.exec {
			t.Errorf("exec: %s: got %d, want %d", message, got, want.exec)
		}
	}
}

func TestSignalNames(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]string{
		syscall.SIGTERM: "SIGTERM", syscall.SIGKILL: "SIGKILL", 34: "34", 64: "64",
	} {
		if got := signalName(sig); got != want {
			t.Errorf("signal %d: got %q, want %q", sig, got, want)
		}
	}
	names := strings.Join(signalNames(), " ")
	for _, want := range []string{"SIGHUP ", "SIGKILL ", "SIGTERM ", "SIGUSR1 "} {
		if !strings.Contains(names+" ", want) {
			t.Errorf("%s is not in %s", want, names)
		}
	}
	for _, sig := range forwarded() {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGWINCH:
			t.Errorf("%v is forwarded", sig)
		}
	}
}
