package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const gib, mib = 1 << 30, 1 << 20

// premier, batch and others make the containers of tables.
func premier(name string, cpu, memory int64) Container {
	return Container{
		Name: name, Class: Premier, CPULimitMilli: cpu, MemoryReservationBytes: memory,
		EvictionPriority: DefaultEvictionPriority,
	}
}

func batch(name string, cpu, memory int64) Container {
	c := premier(name, cpu, memory)
	c.Class = BestEffort
	return c
}

func (c Container) using(cpu, memory int64) Container {
	c.Usage, c.Measured = Amount{cpu, memory}, true
	return c
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	machine := Machine{
		Amount: Amount{4000, 8 * gib}, Reserve: Amount{500, gib}, OvercommitPercent: 150,
	}
	limited := premier("/web", 1000, 0)
	limited.MemoryLimitBytes = 2 * gib
	for _, tt := range []struct {
		name    string
		have    []Container
		request Container
		want    string
	}{
		{
			"a reservation that fits is admitted", nil, premier("/web", 3500, 7*gib),
			"admit /web (PREMIER): cpu 3500m, memory 7GiB",
		},
		{
			"the reserve of the machine is not given away", nil, premier("/web", 3501, 7*gib),
			"refuse /web (PREMIER): cpu: asked 3501m, free 3500m of 3500m",
		},
		{
			"a refusal says who holds how much, the largest first",
			[]Container{
				premier("/a", 500, 2*gib), premier("/b", 2500, 3*gib), batch("/c", 9000, gib),
			},
			premier("/web", 1000, 3*gib),
			"refuse /web (PREMIER): cpu: asked 1000m, free 500m of 3500m; " +
				"held by /b 2500m, /a 500m | " +
				"memory: asked 3GiB, free 2GiB of 7GiB; held by /b 3GiB, /a 2GiB",
		},
		{
			"what a specification does not name is not asked for",
			[]Container{premier("/a", 3500, 7*gib)}, premier("/web", 0, 0),
			"admit /web (PREMIER): cpu 0m, memory 0B",
		},
		{
			"a memory limit without a reservation is reserved",
			[]Container{limited}, premier("/b", 0, 6*gib),
			"refuse /b (PREMIER): memory: asked 6GiB, free 5GiB of 7GiB; held by /web 2GiB",
		},
		{
			"reservations are not lent to others that reserve, used or not",
			[]Container{premier("/a", 3000, gib).using(10, mib)}, premier("/web", 1000, gib),
			"refuse /web (PREMIER): cpu: asked 1000m, free 500m of 3500m; held by /a 3000m",
		},
		{
			"reservations that are not used are lent to batch containers",
			[]Container{premier("/a", 3000, 6*gib).using(500, gib)}, batch("/b", 2000, 4*gib),
			"admit /b (BEST_EFFORT): cpu 2000m, memory 4GiB",
		},
		{
			"batch containers find no room beside what is used",
			[]Container{premier("/a", 1000, gib).using(3000, 5*gib)}, batch("/b", 1000, gib),
			"refuse /b (BEST_EFFORT): cpu: asked 1000m, free 500m of 3500m by usage; " +
				"held by /a 3000m",
		},
		{
			"a container that was not measured yet counts with what it asks for",
			[]Container{batch("/a", 3000, 0)}, batch("/b", 1000, 0),
			"refuse /b (BEST_EFFORT): cpu: asked 1000m, free 500m of 3500m by usage; " +
				"held by /a 3000m",
		},
		{
			"overcommit is bounded",
			[]Container{
				premier("/a", 3000, 0).using(0, 0), batch("/b", 2000, 0).using(0, 0),
			},
			batch("/c", 251, 0),
			"refuse /c (BEST_EFFORT): cpu: asked 251m, free 250m of 5250m with overcommit; " +
				"held by /a 3000m, /b 2000m",
		},
		{
			"batch containers do not stand in the way of a reservation",
			[]Container{batch("/b", 3500, 7*gib).using(3500, 7*gib)}, premier("/web", 3500, 7*gib),
			"admit /web (PREMIER): cpu 3500m, memory 7GiB",
		},
		{
			"a child shares the reservation of its parent",
			[]Container{premier("/a", 3500, 0), premier("/a/x", 2000, 0)}, premier("/a/y", 1500, 0),
			"admit /a/y (PREMIER): cpu 1500m, memory 0B",
		},
		{
			"a child does not exceed the reservation of its parent",
			[]Container{premier("/a", 2500, 0), premier("/a/x", 2000, 0)}, premier("/a/y", 501, 0),
			"refuse /a/y (PREMIER): cpu: asked 501m, free 500m of 2500m in /a; held by /a/x 2000m",
		},
		{
			"a parent without a reservation passes its children's on to the machine",
			[]Container{premier("/a", 0, 0), premier("/a/x", 2000, 0), premier("/b", 1000, 0)},
			premier("/a/y", 501, 0),
			"refuse /a/y (PREMIER): cpu: asked 501m, free 500m of 3500m; " +
				"held by /a 2000m, /b 1000m",
		},
		{
			"a reservation under a batch container counts on the machine",
			[]Container{batch("/a", 1000, 0), premier("/a/x", 2000, 0)}, premier("/b", 1501, 0),
			"refuse /b (PREMIER): cpu: asked 1501m, free 1500m of 3500m; held by /a 2000m",
		},
		{
			"an update replaces what the container held",
			[]Container{premier("/a", 3000, 0)}, premier("/a", 3500, 0),
			"admit /a (PREMIER): cpu 3500m, memory 0B",
		},
		{
			"an update may not reserve less than the children hold",
			[]Container{premier("/a", 3000, 0), premier("/a/x", 2000, 0)}, premier("/a", 1999, 0),
			"refuse /a (PREMIER): cpu: asked 2000m, free 1999m of 1999m in /a; held by /a/x 2000m",
		},
		{
			"a parent that comes after its child takes it in",
			[]Container{premier("/a/x", 2000, 0), premier("/b", 1500, 0)}, premier("/a", 2000, 0),
			"admit /a (PREMIER): cpu 2000m, memory 0B",
		},
		{
			"a container of no class is reserved like PRIORITY",
			[]Container{{Name: "/a", CPULimitMilli: 3500}}, Container{Name: "/b", CPULimitMilli: 1},
			"refuse /b (PRIORITY): cpu: asked 1m, free 0m of 3500m; held by /a 3500m",
		},
		{
			"usage of a parent includes that of its children",
			[]Container{
				batch("/a", 0, 0).using(2000, 0), batch("/a/x", 0, 0).using(1500, 0),
				batch("/a/new", 500, 0),
			},
			batch("/b", 1001, 0),
			"refuse /b (BEST_EFFORT): cpu: asked 1001m, free 1000m of 3500m by usage; " +
				"held by /a 2500m",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range append(tt.have, tt.request) {
				if err := c.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			d := Admit(machine, tt.have, tt.request)
			if got := d.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if d.Admitted != strings.HasPrefix(tt.want, "admit") {
				t.Errorf("admitted %v", d.Admitted)
			}
		})
	}
}

func TestManyHoldersAreCounted(t *testing.T) {
	t.Parallel()
	var have []Container
	for _, name := range []string{"/a", "/b", "/c", "/d", "/e", "/f", "/g"} {
		have = append(have, premier(name, 100, 0))
	}
	got := Admit(Machine{Amount: Amount{700, gib}}, have, premier("/h", 1, 0)).String()
	want := "refuse /h (PREMIER): cpu: asked 1m, free 0m of 700m; held by /a 100m, /b 100m, " +
		"/c 100m, /d 100m, /e 100m, 2 more"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAdmissionUnderPressureIsRefusedForBatchAlone(t *testing.T) {
	t.Parallel()
	web := premier("/web", 1000, 0).using(1000, 0)
	web.Pressure = &Pressure{CPU: Stall{Some: Averages{Avg10: 50}}}
	s, o := New(Config{}), Observation{At: start, Containers: []Container{web}}
	for range 4 {
		s, _ = Step(s, o)
		o.At = o.At.Add(s.config.RaiseAfter)
	}
	m := Machine{Amount: Amount{8000, 8 * gib}}
	got := s.Admit(m, o.Containers, batch("/b", 100, 0)).String()
	want := "refuse /b (BEST_EFFORT): cpu: batch containers are held back for want of it (level 3)"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d := s.Admit(m, o.Containers, premier("/c", 100, 0)); !d.Admitted {
		t.Error(d)
	}
}

func TestInvalidFieldsAreNamed(t *testing.T) {
	t.Parallel()
	machine := Machine{Amount: Amount{4000, gib}}
	for _, tt := range []struct {
		got  error
		want string
	}{
		{Container{Name: "a"}.Validate(), `name "a": an absolute name`},
		{Container{Name: "/"}.Validate(), `name "/": an absolute name`},
		{Container{Name: "/a/../b"}.Validate(), `name "/a/../b"`},
		{Container{Name: "/a b"}.Validate(), `name "/a b"`},
		{Container{Name: "/a", Class: 5}.Validate(), `container "/a": class 5: 1 to 4`},
		{
			Container{Name: "/a", EvictionPriority: 10001}.Validate(),
			`container "/a": eviction_priority 10001: 0 to 10000`,
		},
		{Container{Name: "/a", CPULimitMilli: -1}.Validate(), `cpu_limit_milli -1: 0 to`},
		{Container{Name: "/a", CPULimitMilli: 2, CPUMaxMilli: 1}.Validate(), `cpu_max_milli 1: at`},
		{
			Container{Name: "/a", MemoryLimitBytes: 1, MemoryReservationBytes: 2}.Validate(),
			`memory_limit_bytes 1: at least memory_reservation_bytes, 2`,
		},
		{Machine{}.Validate(), "machine: cpu_milli 0: 1 to"},
		{Machine{Amount: Amount{CPUMilli: 1}}.Validate(), "machine: memory_bytes 0: 1 to"},
		{
			Machine{Amount: machine.Amount, Reserve: Amount{CPUMilli: 4000}}.Validate(),
			"machine: reserve.cpu_milli 4000: 0 to less than cpu_milli, 4000",
		},
		{
			Machine{Amount: machine.Amount, Reserve: Amount{MemoryBytes: -1}}.Validate(),
			"machine: reserve.memory_bytes -1",
		},
		{
			Machine{Amount: machine.Amount, OvercommitPercent: 99}.Validate(),
			"machine: overcommit_percent 99: 100 to 10000",
		},
		{Config{Memory: Marks{High: 101}}.Validate(), "policy: memory.high 101: more than 0"},
		{
			Config{CPU: Marks{High: 5, Low: 5}}.Validate(),
			"policy: cpu.low 5: 0 to less than cpu.high, 5",
		},
		{Config{IO: Marks{Low: 1}}.Validate(), "policy: io.high 0"},
		{Config{CriticalPercent: -1}.Validate(), "policy: critical_percent -1"},
		{Config{PlentyPercent: 101}.Validate(), "policy: plenty_percent 101"},
		{Config{RaiseAfter: -1}.Validate(), "policy: raise_after -1ns: 0 to 24h"},
		{
			Config{GiveBackAfter: 2, GiveBackMost: 1}.Validate(),
			"policy: give_back_most 1ns: at least give_back_after, 2ns",
		},
		{Config{LeastCPUMilli: -1}.Validate(), "policy: least_cpu_milli -1"},
		{Config{LeastMemoryBytes: -1}.Validate(), "policy: least_memory_bytes -1"},
		{second(ParseClass("GOLD")), `class "GOLD": one of BEST_EFFORT, NORMAL, PRIORITY, PREMIER`},
		{new(Level).UnmarshalText([]byte("high")), `level "high": one of low, medium, critical`},
	} {
		if tt.got == nil || !strings.Contains(tt.got.Error(), tt.want) ||
			!errdefs.IsInvalidArgument(tt.got) {
			t.Errorf("got %v, want %s", tt.got, tt.want)
		}
	}
	if err := machine.Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestJSONNamesClassesAndLevels(t *testing.T) {
	t.Parallel()
	c := Container{Name: "/a", Class: Normal, Pressure: &Pressure{Level: Critical}}
	b, err := json.Marshal(c)
	want := `{"name":"/a","class":"NORMAL","eviction_priority":0,"pressure":{"level":"critical"}}`
	if err != nil || string(b) != want {
		t.Errorf("got %s %v, want %s", b, err, want)
	}
	var back Container
	if err := json.Unmarshal(b, &back); err != nil || back.Class != Normal ||
		back.Pressure.Level != Critical {
		t.Errorf("got %+v %v", back, err)
	}
	b, err = json.Marshal(Admit(Machine{Amount: Amount{1, 1}}, nil, premier("/a", 2, 0)).Action())
	if err != nil || !strings.Contains(string(b), `"do":"refuse"`) ||
		!strings.Contains(string(b), `"rule":"reserved","where":"/","asked":2,"free":1,"total":1`) {
		t.Errorf("got %s %v", b, err)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"-5m": CPU.Format(-5), "0B": Memory.Format(0), "1023B": Memory.Format(1023),
		"1KiB": Memory.Format(1024), "1.5GiB": Memory.Format(3 << 29),
		"-2MiB": Memory.Format(-2 * mib),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestContainerFromJSONHasDefaultsAndNoUnknownFields(t *testing.T) {
	t.Parallel()
	var c Container
	err := json.Unmarshal([]byte(`{"name":"/a"}`), &c)
	if err != nil || c.EvictionPriority != DefaultEvictionPriority {
		t.Errorf("got %+v %v", c, err)
	}
	err = json.Unmarshal([]byte(`{"name":"/a","eviction_priority":0}`), &c)
	if err != nil || c.EvictionPriority != 0 {
		t.Errorf("got %+v %v", c, err)
	}
	err = json.Unmarshal([]byte(`{"name":"/a","memory":1}`), &c)
	if err == nil || !strings.Contains(err.Error(), `unknown field "memory"`) {
		t.Errorf("got %v", err)
	}
}
