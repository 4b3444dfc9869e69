package docker

import (
	"strings"
	"testing"
	"time"

	"strake/engine"
)

// TestPsColumns: what columns show for processes of different ages.
func TestPsColumns(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 18, 30, 0, 0, time.Local)
	on := psHost{now: now, memoryBytes: 1000}
	for _, c := range []struct {
		start   time.Time
		columns string
		want    string
	}{
		{now.Add(-10 * time.Second), "pcpu,pmem,etime,etimes", "25.0 50.0 00:10 10"},
		{now.Add(-2 * time.Hour), "stime,start,bsdstart,etime", "16:30 16:30:00 16:30 02:00:00"},
		{now.Add(-20 * time.Hour), "stime,start,bsdstart", "Nov25 22:30:00 22:30"},
		{now.Add(-30 * time.Hour), "stime,start,bsdstart", "Nov25 Nov 25 Nov 25"},
		{
			time.Date(2025, 3, 2, 1, 0, 0, 0, time.Local), "stime,bsdstart,lstart",
			"2025 Mar  2 Sun Mar  2 01:00:00 2025",
		},
		// A clock that was set back is no reason for negative figures.
		{now.Add(time.Hour), "pcpu,etime,etimes", "0.0 00:00 0"},
	} {
		list, unknown := psList(c.columns)
		if unknown != "" {
			t.Fatalf("%s: unknown %q", c.columns, unknown)
		}
		p := engine.Process{StartedAt: c.start, CPUTime: 2500 * time.Millisecond}
		p.ResidentBytes = 500
		var got []string
		for _, column := range list {
			got = append(got, column.text(&p, &on))
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s, started %v: got %q, want %q", c.columns, c.start, text, c.want)
		}
	}
}

// TestHostNames: names come from the host, as ps(1) of the host has them.
func TestHostNames(t *testing.T) {
	t.Parallel()
	on := thisHost()
	if got := on.userName(0); got != "root" {
		t.Errorf("user 0: got %q, want root", got)
	}
	if user, group := on.userName(4000000001), on.groupName(4000000001); user != "" || group != "" {
		t.Errorf("got the names %q, %q for a number without one", user, group)
	}
	if on.memoryBytes < 1<<20 {
		t.Errorf("got %d bytes of memory", on.memoryBytes)
	}
}
