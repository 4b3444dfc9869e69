package sysmon

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestRelax(t *testing.T) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads: %v", len(threads), err)
	}
	file := "/proc/" + threads[1].Name() + "/timerslack_ns"
	if f, err := os.OpenFile(file, os.O_WRONLY, 0); err != nil {
		t.Skipf("needs %s: %v", file, err)
	} else if _, err := f.WriteString("50000"); err != nil {
		t.Skipf("needs CAP_SYS_NICE: %v", err)
	}
	Relax()
	if raw, err := os.ReadFile(file); strings.TrimSpace(string(raw)) != slack {
		t.Errorf("slack of the second thread: %q, want %s: %v", raw, slack, err)
	}
}

func TestSecond(t *testing.T) {
	entry := func(name string) []byte {
		b := make([]byte, 24+len(name)/8*8)
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
		want    string
	}{
		{nil, ""}, {join(".", "..", "10"), ""}, {join(".", "..", "10", "11", "12"), "11"}, {join("1", "2"), "2"},
		{make([]byte, 64), ""}, {append(join("1"), 1, 2, 3), ""}, {join("", "1", "2"), "2"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got := second(c.entries); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
