package supervisor

import (
	"testing"
	"time"

	"strake/engine"
)

// TestParseProcess reads a process as the kernel describes it (proc_pid_stat(5)), with a name that
// looks like the end of one.
func TestParseProcess(t *testing.T) {
	t.Parallel()
	const stat = "42 (a) b) S 1 42 42 34817 42 4194560 99 0 0 0 250 50 0 0 20 5 3 0 1000 8192000 " +
		"300 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	const status = "Name:\ta) b\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nVmLck:\t       0 kB\n"
	boot := time.Unix(1000, 0)
	got, err := parseProcess(
		42, status, stat, []byte("sh\x00-c\x00x\x00"), boot, boot.Add(40*time.Second),
	)
	want := engine.Process{
		UID: 2, PID: 42, PPID: 1, CPUPercent: 10, StartedAt: boot.Add(10 * time.Second),
		TTY: "pts/1", Command: "sh -c x", CPUTime: 3 * time.Second,
		Name: "a) b", State: "SNsl+", RUID: 1, GID: 6, RGID: 5, PGID: 42, SID: 42, TPGID: 42,
		Nice: 5, Priority: 20, Threads: 3, Processor: 1, VirtualBytes: 8192000,
	}
	want.ResidentBytes = got.ResidentBytes // in pages of the host
	if err != nil || got != want || got.ResidentBytes%300 != 0 || got.ResidentBytes == 0 {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	got, err = parseProcess(
		42, "\nVmLck:\t       4 kB\n", stat, nil, boot, boot,
	)
	if err != nil || got.State != "SNLsl+" || got.Command != "[a) b]" {
		t.Errorf("got %q, %q, %v; want one that is locked, by name", got.State, got.Command, err)
	}
	for _, short := range []string{"", "42 (x", "42 (x) S 1 2 3"} {
		if _, err := parseProcess(42, status, short, nil, boot, boot); err == nil {
			t.Errorf("%q: got no error", short)
		}
	}
}
