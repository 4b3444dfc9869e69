package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/lmctfy/policy"
	"strake/lmctfy/policy/driver"
	"strake/lmctfy/policy/simulate"
)

// do runs the command with a time limit.
func do(t *testing.T, c Command, args ...string) (status int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	status = c.MainContext(ctx, args, &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const have = `{"name":"/web","class":"PREMIER","cpu_limit_milli":3000}

{"name":"/batch","class":"NORMAL","cpu_limit_milli":1000,"measured":true}
`

func TestAdmit(t *testing.T) {
	t.Parallel()
	list := file(t, have)
	base := []string{"admit", "--cpu-milli", "4000", "--memory", "1GiB", "--containers", list}
	for _, tt := range []struct {
		name   string
		args   []string
		stdin  string
		status int
		out    string
	}{
		{
			"what fits is admitted",
			[]string{`{"name":"/db","class":"PREMIER","cpu_limit_milli":1000}`}, "", OK,
			"admit /db (PREMIER): cpu 1000m, memory 0B\n",
		},
		{
			"what does not fit is RESOURCE_EXHAUSTED",
			[]string{"--reserve-cpu-milli=500", `{"name":"/db","cpu_limit_milli":1000}`}, "",
			ResourceExhausted, "refuse /db (PRIORITY): cpu: asked 1000m, free 500m of 3500m; " +
				"held by /web 3000m\n",
		},
		{
			"the overcommit is a flag",
			[]string{"--overcommit", "100", `{"name":"/b","class":"NORMAL","cpu_limit_milli":500}`},
			"", ResourceExhausted, "refuse /b (NORMAL): cpu: asked 500m, free 0m of 4000m with " +
				"overcommit; held by /web 3000m, /batch 1000m\n",
		},
		{
			"a request from standard input, the decision as JSON", []string{"--json", "-c", "-"},
			`{"name":"/db","memory_limit_bytes":2147483648}`, ResourceExhausted,
			`{"admitted":false,"name":"/db","class":"PRIORITY",` +
				`"asked":{"memory_bytes":2147483648},` +
				`"shortages":[{"resource":"memory","rule":"reserved","where":"/",` +
				`"asked":2147483648,"free":1073741824,"total":1073741824,"holders":null}]}` + "\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := Command{Stdin: strings.NewReader(tt.stdin)}
			args := append(append([]string(nil), base...), tt.args...)
			status, out, errs := do(t, c, args...)
			if status != tt.status || out != tt.out || errs != "" {
				t.Errorf("got %d %q %q\nwant %d %q", status, out, errs, tt.status, tt.out)
			}
		})
	}
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	args := []string{"simulate", "--generate", "calm", "--seed", "3"}
	status, trace, errs := do(t, Command{}, append(args, "--write")...)
	if status != OK || errs != "" || !strings.HasPrefix(trace, `{"at_ms":0,"machine":{"cpu_`) {
		t.Fatalf("got %d %.100s %s", status, trace, errs)
	}
	_, want, _ := do(t, Command{}, args...)
	status, got, errs := do(t, Command{Stdin: strings.NewReader(trace)}, "simulate", "-")
	if status != OK || got != want || errs != "" || !strings.Contains(got, "admit /web (PREMIER)") {
		t.Errorf("got %d %s %s\nwant %s", status, got, errs, want)
	}
	status, got, errs = do(t, Command{}, "simulate", "--json", file(t, trace))
	if status != OK || errs != "" || strings.Count(got, "\n") != 3 ||
		!strings.HasPrefix(got, `{"run":"policy","admitted":6,"refused":1,`) {
		t.Errorf("got %d %s %s", status, got, errs)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"help"}, {"-h"}, {"run", "-h"}, {"simulate", "--help"}, {"admit", "help"},
	} {
		status, out, errs := do(t, Command{}, args...)
		if status != OK || !strings.HasPrefix(out, "Usage: lmctfy policy ") || errs != "" {
			t.Errorf("%s: got %d %q %q", args, status, out, errs)
		}
	}
}

// TestWrongCommands: one error that names what is wrong, the exit status, and no output.
func TestWrongCommands(t *testing.T) {
	t.Parallel()
	request := `{"name":"/a"}`
	broken := Command{Open: func(context.Context) (driver.Source, driver.Actuator, error) {
		return nil, nil, errdefs.ErrNotFound
	}}
	for _, tt := range []struct {
		args   string // separated by |
		status int
		want   string
	}{
		{"", InvalidArgument, "a verb is missing: one of run, simulate, admit"},
		{"simulat", InvalidArgument, `verb "simulat": one of run, simulate, admit is allowed (did`},
		{"evict", InvalidArgument, `verb "evict": one of`},
		{"run|extra", InvalidArgument, `run: argument "extra": at most 0`},
		{"run|--no-such", InvalidArgument, "run: flag provided but not defined: -no-such"},
		{"run|--cpu-high|x", InvalidArgument, `invalid value "x" for flag -cpu-high`},
		{"run|--cpu-high|101", InvalidArgument, "cpu.high 101: more than 0, at most 100"},
		{"run|--memory-low|10", InvalidArgument, "memory.low 10: 0 to less than memory.high, 10"},
		{"run|--io-high|0", InvalidArgument, "flag -io-high 0: more than 0"},
		{"run|--critical|-1", InvalidArgument, "critical_percent -1"},
		{"run|--raise-after|5", InvalidArgument, `invalid value "5" for flag -raise-after`},
		{"run|--raise-after|0s", InvalidArgument, "flag -raise-after 0: more than 0"},
		{"run|--raise-after|25h", InvalidArgument, "raise_after 25h0m0s: 0 to 24h"},
		{"run|--give-back-after|1h", InvalidArgument, "give_back_most 32m0s: at least give_"},
		{"run|--cool-down|-1s", InvalidArgument, "cool_down -1s"},
		{"run|--least-cpu-milli|-1", InvalidArgument, "least_cpu_milli -1"},
		{"run|--least-memory|lots", InvalidArgument, `invalid value "lots" for flag -least-memory`},
		{"run|--poll|-1s", InvalidArgument, "poll -1s: 0 to 24h"},
		{"run|--overcommit|50", InvalidArgument, "overcommit_percent 50"},
		{"run|--plenty|101", InvalidArgument, "plenty_percent 101"},
		{"run|--memory-group|/nonexistent", NotFound, "memory.limit_in_bytes"},
		{"run|--pressure|load", FailedPrecondition, "this program has no access to containers"},
		{"simulate", InvalidArgument, "exactly one of TRACE and --generate"},
		{"simulate|--generate|calm|file", InvalidArgument, "exactly one of TRACE and --generate"},
		{"simulate|--generate|storm", InvalidArgument, `trace "storm": one of calm, surge, `},
		{"simulate|--seed|-1|x", InvalidArgument, `invalid value "-1" for flag -seed`},
		{"simulate|/nonexistent", NotFound, "open /nonexistent: no such file"},
		{"simulate|-", InvalidArgument, "trace line 1: the trace is empty"},
		{"simulate|a|b", InvalidArgument, `argument "b": at most 1`},
		{"admit", InvalidArgument, "exactly one of REQUEST and -c FILE"},
		{"admit|-c|/nonexistent", NotFound, "request: open /nonexistent"},
		{"admit|-c|-|--containers|-", InvalidArgument, `containers "-": the request is read`},
		{"admit|{}", InvalidArgument, `request line 1: name "": an absolute name`},
		{"admit|{", InvalidArgument, "request line 1: unexpected end"},
		{`admit|{"name":"/a","cpu":1}`, InvalidArgument, `unknown field "cpu"`},
		{`admit|{"name":"/a","eviction_priority":-1}`, InvalidArgument, "eviction_priority -1"},
		{"admit|" + request + "\n" + request, InvalidArgument, `line 2: name "/a": it is there`},
		{"admit|-c|-", InvalidArgument, "request: 0 containers, exactly 1"},
		{"admit|--cpu-milli|-1|" + request, InvalidArgument, "cpu_milli -1: 1 to"},
		{"admit|--reserve-memory|1PiB|" + request, InvalidArgument, "reserve.memory_bytes"},
		{"admit|" + request, FailedPrecondition, "no access to containers; --containers"},
		{"admit|--containers|/nonexistent|" + request, NotFound, "containers: open /nonexistent"},
	} {
		var args []string
		if tt.args != "" {
			args = strings.Split(tt.args, "|")
		}
		status, out, errs := do(t, Command{}, args...)
		if status != tt.status || out != "" || !strings.Contains(errs, tt.want) ||
			strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "lmctfy policy: ") {
			t.Errorf("%s: got %d %q %q\nwant %d %q", args, status, out, errs, tt.status, tt.want)
		}
	}
	for _, verb := range [][]string{{"run"}, {"admit", request}} {
		if status, _, errs := do(t, broken, verb...); status != NotFound {
			t.Errorf("%s: got %d %s", verb, status, errs)
		}
	}
}

// machine is a machine with two containers; its Source shows CPU time that grows.
type machine struct {
	driver.DryRun
	begun time.Time
	acted *atomic.Int32
}

func (m machine) Unthrottle(context.Context, string) error {
	m.acted.Add(1)
	return nil
}

func (machine) List(context.Context) ([]policy.Container, error) {
	return []policy.Container{
		{Name: "/web", Class: policy.Premier, CPULimitMilli: 1000},
		{Name: "/batch", Class: policy.Normal},
	}, nil
}

func (m machine) Observe(_ context.Context, name string) (driver.Sample, error) {
	return driver.Sample{CPU: time.Since(m.begun), MemoryBytes: 1 << 20}, nil
}

func withMachine() Command { return on(machine{begun: time.Now(), acted: new(atomic.Int32)}) }

func on(m machine) Command {
	return Command{Open: func(context.Context) (driver.Source, driver.Actuator, error) {
		return m, m, nil
	}}
}

func TestAdmitMeasuresTheMachine(t *testing.T) {
	t.Parallel()
	status, out, errs := do(t, withMachine(), "admit", "--cpu-milli", "2000", "--memory", "1GiB",
		`{"name":"/b","class":"BEST_EFFORT","cpu_limit_milli":1200}`)
	// Both use one CPU of the two.
	if status != ResourceExhausted || !strings.Contains(out, "of 2000m by usage; held by ") {
		t.Errorf("got %d %s %s", status, out, errs)
	}
}

// TestRun: it logs to standard output and ends in order with the context; the record is a trace.
func TestRun(t *testing.T) {
	t.Parallel()
	if _, err := driver.ReadPSI(driver.ProcPressure); err != nil {
		t.Skipf("the kernel keeps no pressure stall information: %v", err)
	}
	record := filepath.Join(t.TempDir(), "trace")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var errs bytes.Buffer
	out := firstLine{end: cancel}
	m := machine{begun: time.Now(), acted: new(atomic.Int32)}
	status := on(m).MainContext(
		ctx, []string{"run", "--record", record, "--dry-run", "--pressure", "psi"}, &out, &errs,
	)
	if status != OK || !strings.Contains(out.String(), " nothing (") || errs.Len() > 0 {
		t.Errorf("got %d %s %s", status, &out, &errs)
	}
	if n := m.acted.Load(); n != 0 {
		t.Errorf("%d actions of a dry run", n)
	}
	f, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if trace, err := simulate.Read(f); err != nil || len(trace.Lines) < 2 {
		t.Errorf("got %+v %v", trace, err)
	}
}

// firstLine is an output that ends the command with the first line.
type firstLine struct {
	bytes.Buffer
	end func()
}

func (f *firstLine) Write(b []byte) (int, error) {
	f.end()
	return f.Buffer.Write(b)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestRunEndsWhenItCannotLog(t *testing.T) {
	t.Parallel()
	if _, err := driver.ReadPSI(driver.ProcPressure); err != nil {
		t.Skipf("the kernel keeps no pressure stall information: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var errs bytes.Buffer
	status := withMachine().MainContext(ctx, []string{"run"}, full{}, &errs)
	if status != Unknown || errs.String() != "lmctfy policy: run: log: full\n" {
		t.Errorf("got %d %s", status, &errs)
	}
}

func TestRunWithoutPressureIsFailedPrecondition(t *testing.T) {
	t.Parallel()
	status, _, errs := do(t, withMachine(), "run", "--pressure", "v1", "--v1-group", t.TempDir())
	if status != FailedPrecondition ||
		!strings.Contains(errs, `pressure "v1": the kernel shows none`) {
		t.Errorf("got %d %s", status, errs)
	}
	status, _, errs = do(t, withMachine(), "run", "--pressure", "load")
	if status != InvalidArgument ||
		!strings.Contains(errs, `pressure "load": one of auto, psi, v1`) {
		t.Errorf("got %d %s", status, errs)
	}
}

func TestStatusOfErrors(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		InvalidArgument: errdefs.ErrInvalidArgument, NotFound: errdefs.ErrNotFound,
		ResourceExhausted: errdefs.ErrResourceExhausted, Unknown: errors.New("x"),
		FailedPrecondition: errdefs.ErrFailedPrecondition,
	} {
		if got := code(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}
