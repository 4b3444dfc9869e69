package simulate

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden: what the policy makes of each kind of trace, beside no policy and no batch.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, kind := range Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			trace, err := Generate(kind, 1)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := Report(trace, &got); err != nil {
				t.Fatal(err)
			}
			name := "testdata/" + kind + ".txt"
			if *update {
				if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("got\n%s", &got)
			}
		})
	}
}

func report(t *testing.T, trace *Trace) string {
	t.Helper()
	var b bytes.Buffer
	if err := Report(trace, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSameTraceSameOutput, also after it was written and read.
func TestSameTraceSameOutput(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		for _, kind := range Kinds[:2] {
			first, err := Generate(kind, seed)
			if err != nil {
				t.Fatal(err)
			}
			second, err := Generate(kind, seed)
			if err != nil {
				t.Fatal(err)
			}
			var written bytes.Buffer
			if err := second.Write(&written); err != nil {
				t.Fatal(err)
			}
			if second, err = Read(&written); err != nil {
				t.Fatal(err)
			}
			if a, b := report(t, first), report(t, second); a != b {
				t.Errorf("%s, seed %d: got\n%s\nthen\n%s", kind, seed, a, b)
			}
		}
	}
}

// TestSurge: with the policy the kernel kills fewer, and servers wait less, whatever the seed and
// whatever pressure the kernel shows. With the pressure of each container, their 99th percentile
// stays within 1.2 times that without batch containers, in the mean of the seeds.
func TestSurge(t *testing.T) {
	t.Parallel()
	mean, servers := 0.0, 0.0
	for seed := range uint64(6) {
		for _, pressure := range []string{"group", "machine", "v1"} {
			trace, err := Generate("surge", seed)
			if err != nil {
				t.Fatal(err)
			}
			trace.Lines[0].Pressure = pressure
			protected := map[string]bool{"/web": true, "/db": true}
			with := Run(trace, WithPolicy, func(e Event) {
				if protected[e.Killed] ||
					protected[e.Action.Container] && e.Action.Decision == nil {
					t.Errorf("%s, seed %d: %s", pressure, seed, e)
				}
				// Levels have no percentages between.
				if p := e.Action.Pressure; pressure == "v1" && p != 0 && p != 10 && p != 100 {
					t.Errorf("%s, seed %d: %s", pressure, seed, e)
				}
			})
			without := Run(trace, WithoutPolicy, nil)
			if with.Killed >= without.Killed || with.Throttles == 0 || with.Refused == 0 {
				t.Errorf("%s, seed %d: got %+v, without policy %+v", pressure, seed, with, without)
			}
			for i, s := range with.Servers {
				if p := without.Servers[i]; s.P99Micros > p.P99Micros {
					t.Errorf("%s, seed %d: p99 %+v, without policy %+v", pressure, seed, s, p)
				}
			}
			if pressure != "group" {
				continue
			}
			for i, alone := range Run(trace, Alone, nil).Servers {
				mean += float64(with.Servers[i].P99Micros) / float64(alone.P99Micros)
				servers++
			}
		}
	}
	if mean /= servers; mean > 1.2 {
		t.Errorf("p99 is %.2f times that without batch containers", mean)
	}
}

// TestRecordedObservationsAreReplayed without the model, and an eviction is told once.
func TestRecordedObservationsAreReplayed(t *testing.T) {
	t.Parallel()
	lines := `{"at_ms":0,"machine":{"cpu_milli":4000,"memory_bytes":1073741824}}` + "\n"
	for i := range 40 {
		at := time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC).Format(time.RFC3339)
		lines += fmt.Sprintf(`{"at_ms":%d,"observe":{"at":%q,"containers":[`+
			`{"name":"/web","class":"PREMIER"},{"name":"/job","class":"NORMAL","measured":true,`+
			`"usage":{"cpu_milli":900,"memory_bytes":536870912}}],`+
			`"machine":{"memory":{"some":{"avg10":50}}}}}`, i*1000, at) + "\n"
	}
	trace, err := Read(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	want := `    1.000s throttle /job cpu=112m: memory pressure 50.0% >= 10% for 1s in /, level 3
    2.000s evict /job (priority 5000, 512MiB over its reservation): ` +
		`memory pressure 50.0% >= 10% for 2s in /, level 3

                                 policy
admitted                              0
refused                               0
throttled                             1
unthrottled                           0
weights set                           0
evicted                               1
killed by the kernel                  0
held at the end                       1
memory peak                      512MiB
`
	if got := report(t, trace); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReadNamesLineAndField(t *testing.T) {
	t.Parallel()
	head := `{"at_ms":5,"machine":{"cpu_milli":4000,"memory_bytes":1073741824}}` + "\n"
	for _, tt := range []struct{ text, want string }{
		{"", "trace line 1: the trace is empty"},
		{"{", "trace line 1: unexpected EOF"},
		{`{"at_ms":0,"end":true}`, "line 1: machine: the first line has it"},
		{`{"machine":{"cpu_milli":0}}`, "line 1: machine: cpu_milli 0"},
		{`{"machine":{"cpu_milli":1,"memory_bytes":1},"interval_ms":-1}`, "interval_ms -1"},
		{`{"machine":{"cpu_milli":1,"memory_bytes":1},"pressure":"x"}`, `pressure "x": one of`},
		{
			`{"machine":{"cpu_milli":1,"memory_bytes":1},"config":{"memory":{"high":200}}}`,
			"memory.high 200",
		},
		{`{"at_ms":-1,"machine":{"cpu_milli":1,"memory_bytes":1}}`, "at_ms -1"},
		{head + head, "line 2: machine: the first line has it"},
		{head + `{"at_ms":4,"end":true}`, "line 2: at_ms 4: at least 5"},
		{head + `{"at_ms":5}`, "line 2: 0 of machine, request"},
		{head + `{"at_ms":5,"exit":"/a","end":true}`, "line 2: 2 of machine, request"},
		{head + `{"at_ms":5,"stop":1}`, `line 2: json: unknown field "stop"`},
		{head + `{"at_ms":5,"end":true} {}`, "line 2: more than one value"},
		{head + `{"at_ms":5,"end":true,"interval_ms":5}`, "line 2: config, interval_ms and"},
		{head + `{"at_ms":5,"exit":"/a"}`, "line 2: the last line has to be"},
		{head + `{"at_ms":5,"end":true}` + "\n" + `{"at_ms":6,"exit":"/a"}`, "line 3: a line"},
		{head + `{"at_ms":5,"request":{"name":"a"}}`, `line 2: name "a"`},
		{head + `{"at_ms":5,"request":{"name":"/a","cpu":1}}`, `unknown field "cpu"`},
		{head + `{"at_ms":5,"request":{"name":"/a","class":"GOLD"}}`, `class "GOLD"`},
		{head + `{"at_ms":5,"load":{"name":"/a","cache_percent":101}}`, "cache_percent 101"},
		{head + `{"at_ms":5,"load":{"name":"/a","service_us":-1}}`, "service_us -1"},
		{head + `{"at_ms":5,"load":{"name":"/a","cpu_milli":-1}}`, "cpu_milli -1"},
		{head + `{"at_ms":5,"observe":{"containers":[{"name":"a"}]}}`, `line 2: name "a"`},
		{head + `{"at_ms":9999999999999,"end":true}`, "9999999999 observations, at most"},
		{head + strings.Repeat(" ", maxLine+1), "line 2: longer than"},
	} {
		_, err := Read(strings.NewReader(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) ||
			!errdefs.IsInvalidArgument(err) {
			t.Errorf("%.80s: got %v, want %s", tt.text, err, tt.want)
		}
	}
	if _, err := Generate("storm", 1); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), `trace "storm": one of calm, surge, flapping`) {
		t.Error(err)
	}
}

// FuzzRead: a trace that is read can be run.
func FuzzRead(f *testing.F) {
	for _, kind := range Kinds {
		trace, err := Generate(kind, 2)
		if err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		trace.Lines = append(trace.Lines[:12:12], Line{AtMillis: 90_000, End: true})
		if err := trace.Write(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		last := trace.Lines[len(trace.Lines)-1]
		if (last.AtMillis-trace.Lines[0].AtMillis)/trace.interval() > 1000 {
			return
		}
		for _, mode := range []Mode{WithPolicy, WithoutPolicy, Alone} {
			Run(trace, mode, func(e Event) { _ = e.String() })
		}
	})
}
