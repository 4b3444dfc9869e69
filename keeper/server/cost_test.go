package server

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"strake/container/program"
	"strake/keeper"
)

// memory returns Pss and Rss of a process in KiB.
func memory(t testing.TB, pid int) (pss, rss int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) int {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in %s", name, text)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return get("Pss"), get("Rss")
}

// What 200 idle processes with a log each cost the keeper. The bound is the design's target.
func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector multiplies memory")
	}
	const n, perProcess = 200, 20 // KiB
	r := newRig(t)
	start := func(id string) {
		req := r.request(id, "read x")
		req.Stdio.Stdin = true
		r.start(req)
	}
	start("first")
	pss0, rss0 := memory(t, r.Pid())
	for i := range n {
		start(fmt.Sprint("p", i))
	}
	pss, rss := memory(t, r.Pid())
	t.Logf(
		"Pss %d KiB, Rss %d KiB; with %d more processes Pss %d KiB, Rss %d KiB: %.1f KiB each",
		pss0, rss0, n, pss, rss, float64(pss-pss0)/n,
	)
	if pss-pss0 > n*perProcess {
		t.Errorf("%d KiB for %d processes, want at most %d each", pss-pss0, n, perProcess)
	}
}

// BenchmarkStart is a request to the keeper for /bin/true with pipes and no namespaces until it has
// executed.
func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	img := image(b, func(b *program.Builder) { execute(b, "/bin/true", "true") })
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		id := strconv.Itoa(i)
		begin := time.Now()
		p := r.start(
			&keeper.StartRequest{ID: id, Image: img, Stdio: keeper.Stdio{Mode: keeper.StdioPipes}},
		)
		took = append(took, time.Since(begin))
		p.Close()
		r.exit(id)
		if err := r.Forget(r.ctx(), id); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median-start")
	runtime.KeepAlive(img)
}
