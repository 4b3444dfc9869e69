package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"strake/lmctfy/policy"
	"strake/lmctfy/policy/simulate"
)

// fakeMachine is a Source, an Actuator and a Watch. In it a server suffers as long as a batch
// container uses memory.
type fakeMachine struct {
	mu       sync.Mutex
	begun    time.Time
	all      map[string]policy.Container
	dirs     map[string]string
	memory   map[string]int64
	pressure float64 // of memory on the machine, in percent
	since    time.Time
	total    time.Duration
	// available is the percentage of memory that is.
	available int64
	wake      chan struct{}
	waits     [][]string
	observed  int
	did       []string
	fail      map[string]error // by "verb name"
	listing   error
}

func newFakeMachine() *fakeMachine {
	return &fakeMachine{
		begun: time.Now(), since: time.Now(), wake: make(chan struct{}, 1),
		all: map[string]policy.Container{
			"/web":   {Name: "/web", Class: policy.Premier},
			"/batch": {Name: "/batch", Class: policy.Normal, EvictionPriority: 100},
		},
		memory: map[string]int64{"/web": 100 << 20, "/batch": 900 << 20},
		dirs:   map[string]string{}, fail: map[string]error{},
	}
}

func (f *fakeMachine) List(context.Context) (all []policy.Container, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observed++
	for _, name := range slices.Sorted(maps.Keys(f.all)) {
		all = append(all, f.all[name])
	}
	return all, f.listing
}

func (f *fakeMachine) observations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.observed
}

func (f *fakeMachine) Observe(_ context.Context, name string) (Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.all[name]; !ok {
		return Sample{}, errdefs.ErrNotFound
	}
	// Each uses two CPUs.
	return Sample{2 * time.Since(f.begun), f.memory[name], f.dirs[name]}, f.fail["observe "+name]
}

func (f *fakeMachine) act(verb, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, verb+" "+name)
	return f.fail[verb+" "+name]
}

func (f *fakeMachine) Throttle(_ context.Context, name string, _ policy.Hold) error {
	return f.act("throttle", name)
}

func (f *fakeMachine) Unthrottle(_ context.Context, name string) error {
	return f.act("unthrottle", name)
}

func (f *fakeMachine) SetWeight(_ context.Context, name string, _ policy.Hold) error {
	return f.act("weight", name)
}

func (f *fakeMachine) Evict(ctx context.Context, name string) error {
	err := f.act("evict", name)
	if err == nil {
		f.mu.Lock()
		delete(f.all, name)
		f.mu.Unlock()
		f.press(0)
	}
	return err
}

// press sets the pressure, and fires the trigger if it is high.
func (f *fakeMachine) press(percent float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	if f.pressure = percent; percent >= 10 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (f *fakeMachine) settle() {
	f.total += time.Duration(float64(time.Since(f.since)) * f.pressure / 100)
	f.since = time.Now()
}

func (f *fakeMachine) Read() (p policy.Pressure, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	p.Memory.Some = policy.Averages{Avg10: f.pressure, Total: f.total + time.Second}
	return p, f.fail["read"]
}

func (f *fakeMachine) left() (available, total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.available, 100, f.fail["memory"]
}

func (f *fakeMachine) Wait(ctx context.Context, dirs []string, d time.Duration) (bool, error) {
	f.mu.Lock()
	f.waits = append(f.waits, dirs)
	err := f.fail["wait"]
	f.mu.Unlock()
	if err != nil {
		return false, err
	}
	select {
	case <-f.wake:
		return true, nil
	case <-ctx.Done():
	case <-time.After(d):
	}
	return false, nil
}

// start runs the driver on the machine until stop, and returns what it logged.
func start(t *testing.T, f *fakeMachine, c Config) (stop func() string) {
	t.Helper()
	var log strings.Builder
	begun := time.Now()
	c.Source, c.Actuator, c.Watch, c.Memory = f, f, f, f.left
	c.Log = func(at time.Time, line string) {
		fmt.Fprintf(&log, "%.1fs %s\n", at.Sub(begun).Seconds(), line)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	return func() string {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return log.String()
	}
}

func TestSleepsWhileNothingHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		stop := start(t, f, Config{})
		time.Sleep(10*time.Minute + time.Second)
		log := stop()
		// One for reset, and one each ten seconds.
		if f.observed > 63 {
			t.Errorf("%d observations in ten minutes", f.observed)
		}
		if log != "0.0s nothing (calm)\n" {
			t.Errorf("got log\n%s", log)
		}
	})
}

func TestPressureIsAnsweredWithinSecondsAndGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		stop := start(t, f, Config{})
		time.Sleep(90 * time.Second)
		f.press(15)
		time.Sleep(10 * time.Minute)
		before := f.observations()
		time.Sleep(10 * time.Minute)
		if n := f.observations() - before; n > 61 {
			t.Errorf("%d observations after the pressure had ended", n)
		}
		want := `0.0s nothing (calm)
90.0s nothing (waiting): memory pressure 15.0% >= 10% for 0s in /, level 0
91.0s throttle /batch cpu=1000m: memory pressure 15.0% >= 10% for 1s in /, level 1
91.5s nothing (waiting): memory pressure 15.0% >= 10% for 1.5s in /, level 1
92.0s throttle /batch cpu=500m: memory pressure 15.0% >= 10% for 2s in /, level 2
92.5s nothing (waiting): memory pressure 15.0% >= 10% for 2.5s in /, level 2
93.0s throttle /batch cpu=250m: memory pressure 15.0% >= 10% for 3s in /, level 3
93.5s nothing (waiting): memory pressure 15.0% >= 10% for 3.5s in /, level 3
94.0s evict /batch (priority 100, 900MiB over its reservation): ` +
			`memory pressure 15.0% >= 10% for 4s in /, level 3
94.5s nothing (holding): memory pressure 0.0% <= 1% for 0s in /, level 3
274.5s nothing (calm)
`
		if got := stop(); got != want {
			t.Errorf("got log\n%s", got)
		}
	})
}

func TestNothingIsHeldAfterTheEndOrBeforeTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		stop := start(t, f, Config{Policy: policy.Config{CoolDown: time.Hour}})
		synctest.Wait()
		if want := []string{"unthrottle /batch", "weight /batch"}; !slices.Equal(f.did, want) {
			t.Errorf("at the start: got %v, want %v", f.did, want)
		}
		f.did = nil
		f.press(20)
		time.Sleep(1600 * time.Millisecond)
		stop()
		if want := []string{"throttle /batch", "unthrottle /batch"}; !slices.Equal(f.did, want) {
			t.Errorf("got %v, want %v", f.did, want)
		}
	})
}

func TestFailuresAreLoggedAndTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		f.fail["throttle /batch"] = errors.New("busy")
		f.fail["weight /batch"] = errors.New("no weights")
		stop := start(t, f, Config{Policy: policy.Config{
			GiveBackAfter: time.Hour, GiveBackMost: time.Hour,
		}})
		time.Sleep(time.Second)
		f.press(15)
		time.Sleep(1600 * time.Millisecond)
		f.press(5)
		time.Sleep(1500 * time.Millisecond)
		f.mu.Lock()
		f.fail = map[string]error{"unthrottle /batch": errdefs.ErrNotFound} // as good as done
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		want := `0.0s reset /batch; error: no weights
0.0s nothing (calm)
1.5s nothing (waiting): memory pressure 15.0% >= 10% for 0s in /, level 0
2.5s throttle /batch cpu=1000m: memory pressure 15.0% >= 10% for 1s in /, level 1; error: busy
3.0s nothing (holding): memory pressure 7.0% < 10% for 0s in /, level 1
3.5s throttle /batch cpu=1000m: memory pressure 5.0% < 10% for 0s in /, level 1; error: busy
3.5s weight /batch cpu=own io=own: memory pressure 5.0% < 10% for 0s in /, level 1` +
			`; error: no weights
4.0s nothing (holding): memory pressure 5.0% < 10% for 0s in /, level 1
4.5s throttle /batch cpu=1000m: memory pressure 5.0% < 10% for 0s in /, level 1
4.5s weight /batch cpu=own io=own: memory pressure 5.0% < 10% for 0s in /, level 1
5.0s nothing (holding): memory pressure 5.0% < 10% for 0s in /, level 1
14.1s unthrottle /batch
`
		if got := stop(); got != want {
			t.Errorf("got log\n%s", got)
		}
	})
}

func TestWhatCannotBeObservedIsLoggedOnce(t *testing.T) {
	t.Parallel()
	type setter func(f *fakeMachine, err error)
	fails := func(what string) setter {
		return func(f *fakeMachine, err error) { f.fail[what] = err }
	}
	for what, set := range map[string]setter{
		"list containers: ":             func(f *fakeMachine, err error) { f.listing = err },
		"memory: ":                      fails("memory"),
		"observe \"/web\": ":            fails("observe /web"),
		"pressure of the machine: ":     fails("read"),
		"no notification of pressure: ": fails("wait"),
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeMachine()
			set(f, errors.New("broken"))
			stop := start(t, f, Config{})
			time.Sleep(time.Minute)
			f.mu.Lock()
			set(f, nil)
			f.mu.Unlock()
			f.press(50)
			time.Sleep(time.Minute)
			log := stop()
			if n := strings.Count(log, "error: "+what+"broken\n"); n != 1 ||
				!strings.Contains(log, "evict /batch") {
				t.Errorf("%s: got log\n%s", what, log)
			}
		})
	}
}

func TestContainerThatEndsWhileItIsObservedIsLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		f.fail["observe /batch"] = errdefs.ErrNotFound
		stop := start(t, f, Config{})
		f.press(50)
		time.Sleep(time.Minute)
		if log := stop(); strings.Contains(log, "/batch") || strings.Contains(log, "error") {
			t.Errorf("got log\n%s", log)
		}
	})
}

func TestPressureIsLeftAloneWhileMemoryIsPlenty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		f.available = 60
		stop := start(t, f, Config{})
		f.press(50)
		time.Sleep(time.Minute)
		if log := stop(); log != "0.0s nothing (calm)\n" {
			t.Errorf("got log\n%s", log)
		}
	})
}

// TestGroupsOfTheProtectedAreWaitedFor, and those of others are not read.
func TestGroupsOfTheProtectedAreWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"cpu", "memory", "io"} {
		text := "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
		if name == "memory" {
			text = "some avg10=90.00 avg60=0.00 avg300=0.00 total=0\n"
		}
		err := os.WriteFile(filepath.Join(dir, name+".pressure"), []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		f.dirs["/web"], f.dirs["/batch"] = dir, "/nonexistent"
		stop := start(t, f, Config{})
		time.Sleep(3 * time.Minute)
		log := stop()
		if !strings.Contains(log, "memory.high=225MiB: memory pressure 90.0% >= 10% for 1s in /w") {
			t.Errorf("got log\n%s", log)
		}
		f = newFakeMachine()
		f.dirs["/web"] = dir
		f.all["/db"] = policy.Container{Name: "/db"}
		stop = start(t, f, Config{Policy: policy.Config{Memory: policy.Marks{High: 95, Low: 91}}})
		time.Sleep(time.Second)
		stop()
		if want := []string{"", dir}; len(f.waits) == 0 || !slices.Equal(f.waits[0], want) {
			t.Errorf("waited for %q, want %q", f.waits, want)
		}
	})
}

// TestRecordIsReplayed: the simulator decides what the driver decided.
func TestRecordIsReplayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		f.all["/second"] = policy.Container{Name: "/second", Class: policy.BestEffort}
		f.memory["/second"] = 100 << 20
		var record bytes.Buffer
		machine := policy.Machine{
			Amount: policy.Amount{CPUMilli: 4000, MemoryBytes: 1 << 30},
		}
		stop := start(t, f, Config{Record: &record, Machine: machine})
		for range 3 {
			time.Sleep(time.Minute)
			f.press(15)
		}
		time.Sleep(10 * time.Minute)
		var want []string
		for line := range strings.Lines(stop()) {
			if !strings.Contains(line, " nothing (") {
				_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
				want = append(want, line)
			}
		}
		trace, err := simulate.Read(&record)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		simulate.Run(trace, simulate.WithPolicy, func(e simulate.Event) {
			if e.Action.Do != policy.DoNothing {
				got = append(got, e.Action.String())
			}
		})
		if len(got) < 5 || !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestInvalidConfigurationsAreRefused(t *testing.T) {
	t.Parallel()
	machine := policy.Machine{Amount: policy.Amount{CPUMilli: 1, MemoryBytes: 1}}
	for want, c := range map[string]Config{
		"policy: poll -1ns: 0 to 24h":  {Poll: -1},
		"policy: idle 25h0m0s: 0 to":   {Idle: 25 * time.Hour},
		"policy: timeout -1ns":         {Timeout: -1},
		"policy: critical_percent 101": {Policy: policy.Config{CriticalPercent: 101}},
		"machine: cpu_milli 0":         {Record: brokenWriter{}},
		"record: full":                 {Record: brokenWriter{}, Machine: machine},
	} {
		if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestMeasureKnowsUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		all, err := Measure(t.Context(), f, time.Second)
		if err != nil || len(all) != 2 || !all[0].Measured ||
			all[0].Usage != (policy.Amount{CPUMilli: 2000, MemoryBytes: 900 << 20}) {
			t.Errorf("got %+v %v", all, err)
		}
		f.listing = errors.New("broken")
		if _, err := Measure(t.Context(), f, time.Second); err == nil {
			t.Error("no error")
		}
		f.listing = nil
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := Measure(ctx, f, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDryRunDoesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeMachine()
		var log strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		f.press(90)
		err := Run(ctx, Config{
			Source: f, Actuator: DryRun{}, Watch: f,
			Log: func(_ time.Time, line string) { log.WriteString(line + "\n") },
		})
		if err != nil || len(f.did) > 0 || !strings.Contains(log.String(), "evict /batch") {
			t.Errorf("got %v %v\n%s", err, f.did, &log)
		}
	})
}

func TestGroupsBelowOthersNeedNoTriggers(t *testing.T) {
	t.Parallel()
	got := topmost([]string{"/g/web/a", "/g/web", "/g/web-2", "", "/g/web/a/b", "/g/web"})
	if want := []string{"", "/g/web", "/g/web-2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
