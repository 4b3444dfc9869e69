package early

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// seen is what testdata/threads prints: for each of its threads, and for its children.
type seen struct {
	Bound, Free []thread
	First       thread // a child of one thread that was given back
	Child       thread
	Procs       int // GOMAXPROCS in the end
}

type thread struct {
	Allowed string // processors
	Slack   string
}

func build(t *testing.T, flags string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "threads")
	cmd := exec.Command("go", "build", "-ldflags", flags, "-o", out, "./testdata/threads")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	return out
}

func run(t *testing.T, program string, args ...string) (s seen) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// TestEntry starts a program that is entered here with all processors, bound to one, and with a
// slack of its own.
func TestEntry(t *testing.T) {
	program := build(t, "-E strake/internal/early.entry")
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		t.Fatal(err)
	}
	if mine.Count() < 2 {
		t.Skip("needs two processors")
	}
	want := self(t)
	check := func(t *testing.T, want thread) {
		s := run(t, program)
		if len(s.Bound) < 2 || len(s.Free) < len(s.Bound) {
			t.Fatalf("%+v", s)
		}
		for i, th := range s.Bound {
			if strings.ContainsAny(th.Allowed, ",-") {
				t.Errorf("thread %d on processors %s at first", i, th.Allowed)
			}
			if th.Slack != fmt.Sprint(slack) {
				t.Errorf("thread %d with a slack of %s at first", i, th.Slack)
			}
		}
		for i, th := range s.Free {
			if i == monitor {
				th.Slack = want.Slack // it keeps the other
			}
			if th != want {
				t.Errorf("thread %d in the end: %+v, want %+v", i, th, want)
			}
		}
		if n := min(processors(want.Allowed), 64); s.Procs != n {
			t.Errorf("goroutines on %d processors, want %d", s.Procs, n)
		}
		if s.First != want || s.Child != want {
			t.Errorf("children: %+v, %+v, want %+v", s.First, s.Child, want)
		}
	}
	t.Run("all processors", func(t *testing.T) { check(t, want) })
	t.Run("one of them, and a slack", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // for good: children of this thread inherit from it
			last := 0
			for i := range len(mine) * 64 {
				if mine.IsSet(i) {
					last = i
				}
			}
			var one unix.CPUSet
			one.Set(last)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Error(err)
			}
			unix.Prctl(unix.PR_SET_TIMERSLACK, 70_000, 0, 0, 0)
			check(t, self(t))
		}()
		<-done
	})
}

// processors counts those of a list like "0-2,7".
func processors(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, _ := strconv.Atoi(first)
		to, _ := strconv.Atoi(last)
		n += to - from + 1
	}
	return n
}

// TestPlain starts a program that is entered by the runtime: nothing but the monitor's slack
// changes.
func TestPlain(t *testing.T) {
	want := self(t)
	s := run(t, build(t, ""))
	for i, th := range slices.Concat(s.Bound, s.Free) {
		if th.Allowed != want.Allowed {
			t.Errorf("%d: processors %s, want %s", i, th.Allowed, want.Allowed)
		}
	}
	if got := s.Bound[monitor].Slack; got != fmt.Sprint(slack) {
		t.Errorf("the monitor's slack: %s, want %d", got, slack)
	}
	if s.Child != want {
		t.Errorf("a child: %+v, want %+v", s.Child, want)
	}
}

// TestTend has the monitor start threads, which are late, and gives them back what the program was
// started with.
func TestTend(t *testing.T) {
	want := self(t)
	for _, flags := range []string{"", "-E strake/internal/early.entry"} {
		s := run(t, build(t, flags), "blocked")
		late := 0
		for i, th := range s.Bound {
			if i != monitor && th.Slack == fmt.Sprint(slack) {
				late++
			}
		}
		if late == 0 {
			t.Errorf("flags %q: the monitor has started no thread: %+v", flags, s.Bound)
		}
		for i, th := range s.Free {
			if i != monitor && th.Slack != want.Slack {
				t.Errorf("flags %q: thread %d with a slack of %s, want %s", flags, i, th.Slack, want.Slack)
			}
		}
	}
}

// self is what the calling thread has.
func self(t *testing.T) thread {
	t.Helper()
	raw, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "Cpus_allowed_list:")
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return thread{strings.Fields(rest)[0], fmt.Sprint(ns)}
}

func TestParse(t *testing.T) {
	entry := func(name string) []byte {
		b := make([]byte, (19+len(name)+8)/8*8)
		b[16] = byte(len(b))
		copy(b[19:], name)
		return b
	}
	join := func(names ...string) (b []byte) {
		for _, n := range names {
			b = append(b, entry(n)...)
		}
		return b
	}
	for i, c := range []struct {
		entries []byte
		want    []int
	}{
		{nil, nil}, {join(".", "..", "10"), []int{10}},
		{join(".", "..", "10", "11", "1200000"), []int{10, 11, 1200000}},
		{make([]byte, 64), nil}, {append(join("1"), 1, 2, 3), []int{1}},
		{join("", "1", "2"), []int{1, 2}},
	} {
		if got := parse(nil, c.entries); !slices.Equal(got, c.want) {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
}
