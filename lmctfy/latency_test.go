package lmctfy

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLatencyClasses lets a container of class PRIORITY and one of a batch class compete for one
// processor. The batch container gets next to nothing, whatever its limit.
func TestLatencyClasses(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"NORMAL", "BEST_EFFORT"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			m, _ := machine(t, "")
			const burn, one = "while :; do :; done", " mask { data: 1 } }"
			high := create(t, m, "/high", "cpu { limit: 200"+one)
			low := create(t, m, "/low", "cpu { limit: 8000 scheduling_latency: "+class+one)
			for _, c := range []*Container{low, high} {
				pid, err := c.Run([]string{"sh", "-c", burn}, os.Environ())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					unix.Kill(pid, unix.SIGKILL)
					var ws unix.WaitStatus
					unix.Wait4(pid, &ws, 0, nil)
				})
			}
			used := func(c *Container) time.Duration {
				s, err := c.Stats(Summary)
				if err != nil {
					t.Fatal(err)
				}
				return time.Duration(s.Cpu.Usage.GetTotal())
			}
			// The batch container was alone for a moment.
			begin, before := used(high), used(low)
			for end := time.Now().Add(30 * time.Second); used(high)-begin < 300*time.Millisecond; {
				if time.Now().After(end) {
					t.Fatalf("the container of class PRIORITY got %v", used(high)-begin)
				}
				unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 20000})
			}
			if got := used(low) - before; got > 60*time.Millisecond {
				t.Errorf("%s got %v while PRIORITY got %v", class, got, used(high)-begin)
			}
		})
	}
}
