package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPS prints this process.
func TestPS(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := runPS(&b, []int{os.Getpid(), 1<<31 - 1}, nil); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %q", lines)
	}
	if want := "UID PID PPID C STIME TTY TIME CMD"; strings.Join(
		strings.Fields(lines[0]), " ",
	) != want {
		t.Errorf("got %q, want %q", lines[0], want)
	}
	want := regexp.MustCompile(`^\S+ +` + strconv.Itoa(os.Getpid()) + ` +` +
		strconv.Itoa(os.Getppid()) + ` +\d+ +(\d\d:\d\d|\w+) +(\?|pts/\d+|tty\w+) +00:\d\d:\d\d +\S+`)
	if !want.MatchString(lines[1]) {
		t.Errorf("got %q", lines[1])
	}
}

// TestPSFields reads a line of proc_pid_stat(5) with a name that looks like its fields.
func TestPSFields(t *testing.T) {
	t.Parallel()
	name, f, err := statFields("7 (a) S (b c) R 3 7 7 34817 0 0 0 0 0 0 61 39 0 0 20 0 1 0 500 1 2")
	if err != nil || name != "a) S (b c" || f[0] != "R" || f[1] != "3" || f[4] != "34817" ||
		f[11] != "61" || f[19] != "500" {
		t.Errorf("got %q, %q, %v", name, f, err)
	}
	if _, _, err := statFields("7 (a) S 1"); err == nil {
		t.Error("a short line is taken")
	}
	for device, want := range map[uint64]string{
		0: "?", 34817: "pts/1", 0x8900: "pts/256", 0x401: "tty1", 0x440: "ttyS0",
	} {
		if got := terminalName(device); got != want {
			t.Errorf("%#x: got %s, want %s", device, got, want)
		}
	}
	p := process{used: 30 * time.Second, start: 100 * time.Second}
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for up, want := range map[time.Duration]string{
		200 * time.Second: "11:58", 20 * time.Hour: "Mar01", 2000 * time.Hour: "2025",
	} {
		if got := p.started(up, now); got != want {
			t.Errorf("up %v: got %s, want %s", up, got, want)
		}
	}
	if got := p.share(200 * time.Second); got != 30 {
		t.Errorf("share: %d", got)
	}
	if got := clock(3723 * time.Second); got != "01:02:03" {
		t.Errorf("clock: %s", got)
	}
}
