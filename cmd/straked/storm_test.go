package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// storm is a load of starting, writing and stopping containers on an instance whose engine and
// keeper are killed. A request that fails was not acknowledged; what was is checked.
type storm struct {
	*faultRig
	over   chan struct{} // closed when the killing has ended
	failed atomic.Bool
	unsure atomic.Int64 // starts that were not acknowledged
	done   atomic.Int64 // containers whose whole life was checked
}

func (s *storm) errorf(format string, args ...any) {
	s.failed.Store(true)
	s.t.Errorf(format, args...)
}

func (s *storm) ended() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// insist repeats a request until the engine answers it: while it is down, or has lost its keeper,
// that takes a moment.
func (s *storm) insist(method, path string, body any) ([]byte, error) {
	var raw []byte
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		raw, err = s.call(method, path, body)
		if err == nil || answered(err, 404, 409) {
			return raw, err
		}
		pause()
	}
	return raw, err
}

// pause lets other processes run for some milliseconds.
func pause() { unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 5000}) }

// life runs a container whose script ends with a status, checks what became of it, and removes it.
func (s *storm) life(name, script string, status int, output string, during func() error) {
	spec := map[string]any{
		"Image": "faulty", "Cmd": []string{"sh", "-c", script},
		"HostConfig": map[string]any{"Memory": 32 << 20},
	}
	if _, err := s.call("POST", "/containers/create?name="+name, spec); err != nil {
		s.insist("DELETE", "/containers/"+name+"?force=1", nil)
		return
	}
	started := true
	if _, err := s.call("POST", "/containers/"+name+"/start", nil); err != nil {
		started = false
		s.unsure.Add(1)
	}
	if started && during != nil {
		started = during() == nil
	}
	if started {
		s.check(name, status, output)
	}
	if _, err := s.insist("DELETE", "/containers/"+name+"?force=1", nil); err != nil &&
		!answered(err, 404) && !strings.Contains(err.Error(), "already in progress") {
		s.errorf("remove %s: %v", name, err)
	}
}

// check waits for the end of a container that was started and compares what is known of it.
func (s *storm) check(name string, status int, output string) {
	var in struct {
		State struct {
			Status   string
			ExitCode int
			Error    string
		}
	}
	for end := time.Now().Add(60 * time.Second); ; {
		raw, err := s.insist("GET", "/containers/"+name+"/json", nil)
		if err != nil {
			s.errorf("%s was started and is gone: %v", name, err)
			return
		}
		if err := json.Unmarshal(raw, &in); err != nil {
			s.errorf("%s: %v", name, err)
			return
		}
		if in.State.Status == "exited" {
			break
		}
		if time.Now().After(end) {
			s.errorf("%s does not end: %+v", name, in.State)
			return
		}
		pause()
	}
	if in.State.ExitCode != status {
		s.errorf("%s ended with %+v, want status %d", name, in.State, status)
	}
	raw, err := s.insist("GET", "/containers/"+name+"/logs?stdout=1", nil)
	if err != nil || strings.Count(string(raw), output) != 1 {
		s.errorf("log of %s: %q %v, want %q once", name, raw, err, output)
	}
	s.done.Add(1)
}

// starters run short containers until the end.
func (s *storm) starters(wait *sync.WaitGroup) {
	for w := range 3 {
		wait.Go(func() {
			for i := 0; !s.ended() && !s.failed.Load(); i++ {
				text := fmt.Sprintf("out of %d.%d", w, i)
				s.life(fmt.Sprintf("short-%d-%d", w, i), "echo "+text+"; exit 7", 7, text, nil)
			}
		})
	}
}

// stopper stops containers that end in their own way when they are told to.
func (s *storm) stopper(wait *sync.WaitGroup) {
	wait.Go(func() {
		script := "trap 'echo stopped; exit 9' TERM; while true; do busybox usleep 2000; done"
		for i := 0; !s.ended() && !s.failed.Load(); i++ {
			name := fmt.Sprintf("stopped-%d", i)
			s.life(name, script, 9, "stopped", func() error {
				// The trap is there a moment after the start.
				unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 100000})
				_, err := s.insist("POST", "/containers/"+name+"/stop?t=20", nil)
				return err
			})
		}
	})
}

const writers = 4

// write starts containers that write numbered lines, to pipes and to a terminal.
func (s *storm) write() {
	for i := range writers {
		script := "i=0; while true; do i=$((i+1)); echo line $i; busybox usleep 3000; done"
		s.must("POST", "/containers/create?name="+writer(i), map[string]any{
			"Image": "faulty", "Cmd": []string{"sh", "-c", script}, "Tty": i == 0,
		})
		s.must("POST", "/containers/"+writer(i)+"/start", nil)
	}
}

func writer(i int) string { return "writer-" + strconv.Itoa(i) }

// written checks that the writers run and that no line of theirs is missing or doubled.
func (s *storm) written() {
	s.t.Helper()
	for i := range writers {
		in := s.inspect(writer(i))
		if in == nil || in.State.Status != "running" {
			s.errorf("%s: %+v, want it running", writer(i), in)
			continue
		}
		s.must("POST", "/containers/"+writer(i)+"/kill", nil)
		path := filepath.Join(s.path("data/containers"), in.ID, in.ID+"-json.log")
		raw, err := os.ReadFile(path)
		if err != nil {
			s.errorf("%v", err)
			continue
		}
		last := 0
		for line := range bytes.Lines(raw) {
			var l struct{ Log string }
			if err := json.Unmarshal(line, &l); err != nil {
				s.errorf("%s: line %q of the log: %v", writer(i), line, err)
				break
			}
			n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(l.Log), "line "))
			if err != nil || n != last+1 {
				s.errorf("%s: %q comes after line %d", writer(i), l.Log, last)
				break
			}
			last = n
		}
		s.t.Logf("%s wrote %d lines", writer(i), last)
	}
}

// keeperPid is the process of the instance's keeper; 0 if it has none.
func (r *faultRig) keeperPid() int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		if bytes.Contains(raw, []byte(r.dir)) && bytes.Contains(raw, []byte("\x00keeper\x00")) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			return pid
		}
	}
	return 0
}

// TestKillStorm: engine, keeper, and both at once are killed again and again under a load of
// containers that start, write and stop. Nothing that was acknowledged is lost, no line, no exit
// status, and nothing is left on the host. STRAKE_TEST_KILLS is the number of kills.
func TestKillStorm(t *testing.T) {
	kills := 30
	if n, err := strconv.Atoi(os.Getenv("STRAKE_TEST_KILLS")); err == nil {
		kills = n
	}
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	request("POST", "/containers/create?name=warm", map[string]any{
		"Image": "faulty", "Cmd": []string{"true"},
	})(r)
	must(request("POST", "/containers/warm/start", nil), request("POST", "/containers/warm/wait", nil),
		request("DELETE", "/containers/warm", nil))(r)
	before := r.calm()
	s := &storm{faultRig: r, over: make(chan struct{})}
	s.write()
	var load sync.WaitGroup
	s.starters(&load)
	s.stopper(&load)
	for i := 0; i < kills && !s.failed.Load(); i++ {
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: int64(50000 + 37000*(i%9))})
		if i%3 != 0 {
			if pid := r.keeperPid(); pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if i%3 != 1 {
			r.kill()
			r.mustLaunch()
		}
	}
	close(s.over)
	load.Wait()
	s.written()
	for i := range writers {
		s.must("DELETE", "/containers/"+writer(i), nil)
	}
	// What is prepared ahead (the guard, pooled namespaces) may not be there again yet.
	left := slices.DeleteFunc(r.settles(before), func(x string) bool {
		return strings.HasPrefix(x, "missing")
	})
	if len(left) > 0 {
		t.Errorf("after the storm:\n%s", strings.Join(left, "\n"))
	}
	t.Logf(
		"%d kills, %d lives checked, %d starts not acknowledged", kills, s.done.Load(),
		s.unsure.Load(),
	)
	if s.done.Load() < int64(kills/2) {
		t.Errorf("only %d lives were checked: the load did not get through", s.done.Load())
	}
}
