package server

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// aStart is a record with every field set to something.
func aStart(id string) *record {
	return &record{id: id, owner: "cri", kind: wire.KindHold, start: &startRecord{
		note: "a \"note\"\n\xff", process: identity{4194304, 1 << 40}, started: -5,
		stdio: wire.Stdio{Mode: wire.StdioPipes, Stdin: true, Width: 80, Height: 65535},
		log: wire.Log{
			Driver: wire.LogCRI, Path: "/var/log/a b/'c'", MaxBytes: 1 << 50, MaxFiles: 3,
		},
		held: places{
			{number: 4}, {number: 17, file: file{dev: 1<<64 - 1, ino: 1 << 63}}, {},
			{number: maxPlace, file: file{ino: 7, tty: 12}}, {},
		},
	}}
}

// withAttributes is a record whose log has attributes.
func withAttributes() *record {
	r := aStart("attributes")
	r.start.log.Driver, r.start.log.Attributes = wire.LogJSONAttributes, `{"a b":"\u003c"}`
	return r
}

// withCommand is a record with an end command.
func withCommand(id string) *record {
	r := aStart(id)
	r.start.endCommand = []string{"/bin/a \"b\"", "", "c\xff\n"}
	return r
}

// withKept is a record with kept descriptors, and all else that only some have.
func withKept(id string) *record {
	r := withCommand(id)
	r.start.log.Driver, r.start.log.Attributes = wire.LogJSONAttributes, "{}"
	r.start.kept = []keptPlace{
		{"tty1", place{number: 5, file: file{dev: 1, ino: 2, tty: 3}}},
		{"a.b-c", place{number: 99}},
	}
	return r
}

func TestJournalRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	j.guard = identity{77, 88}
	both, exited := aStart("both"), aStart("exited")
	exit := &wire.Exit{Status: 256, Time: -3, Unknown: true}
	for _, err := range []error{
		j.rewrite(), // with the guard
		j.started(aStart("running")), j.started(both), j.started(exited),
		j.exited(&record{id: "both", owner: "cri", kind: wire.KindHold, exit: exit}),
		j.exited(&record{id: "short", exit: &wire.Exit{Status: 9}}),
		// No guard could be had, so the start is written with the exit.
		j.exited(&record{id: "late", start: withCommand("late").start, exit: exit}),
		j.started(withCommand("waits")), j.started(withKept("keeps")),
		j.started(withCommand("runs")), j.exited(&record{id: "runs", exit: exit}),
		j.commandRuns("runs", identity{5, 6}),
		j.started(withCommand("ran")), j.exited(&record{id: "ran", exit: exit}),
		j.commandRuns("ran", identity{5, 6}), j.commandRan("ran"),
		j.commandRuns("unknown", identity{5, 6}), j.commandRan("unknown"),
		j.started(withAttributes()), j.started(aStart("gone")), j.forget("gone"), j.forget("unknown"),
		// Its output goes on and is handed over to another guard.
		j.exited(&record{id: "exited", owner: "cri", kind: wire.KindHold, exit: exit}),
		j.started(aStart("exited")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]*record{
		"running": aStart("running"), "both": aStart("both"), "exited": aStart("exited"),
		"attributes": withAttributes(),
		"short":      {id: "short", exit: &wire.Exit{Status: 9}},
		"waits":      withCommand("waits"),
		"keeps":      withKept("keeps"),
		"late":       {id: "late", start: withCommand("late").start, exit: exit},
		"runs": {
			id: "runs", start: withCommand("runs").start, exit: exit, runs: identity{5, 6},
		},
		"ran": {id: "ran", start: withCommand("ran").start, exit: exit, ran: true},
	}
	want["both"].exit, want["exited"].exit = exit, exit
	if !reflect.DeepEqual(j.records, want) {
		t.Errorf("in memory: %v", j.records)
	}
	for _, how := range []string{"appended", "rewritten"} {
		j.close()
		if j, err = openJournal(dir); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(j.records, want) || j.guard != (identity{77, 88}) {
			t.Errorf("%s: got %v, guard %+v", how, j.records, j.guard)
		}
	}
	j.close()
}

// manyKept is a list of places.
func manyKept(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("tty%d=%d/0/0/0", i, guardFirst+i)
	}
	return strings.Join(list, ",")
}

// What is wrong is refused with its line, and never half believed.
func TestParseJournal(t *testing.T) {
	t.Parallel()
	const head = journalHeader
	const old = oldJournalHeader
	good := strings.TrimSuffix(string(aStart("a").startLine()), "\n")
	replaced := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("no %q in %q", from, good)
		}
		return head + strings.Replace(good, from, to, 1) + "\n"
	}
	for _, tc := range []struct {
		name, text string
		want       []string
		bad        bool
	}{
		{name: "empty"},
		{name: "only the header", text: head},
		{
			name: "version 1",
			text: old + "exit a 0 256 1 false\nexit b 1 9 2 true\nforget b\n",
			want: []string{"a"},
		},
		{
			name: "two",
			text: head + "exit a - 0 256 1 false\nexit b cri 1 9 2 true\n",
			want: []string{"a", "b"},
		},
		{
			name: "forgotten",
			text: head + "exit a - 0 0 1 false\nexit b - 0 0 2 false\nforget a\n",
			want: []string{"b"},
		},
		{
			name: "again",
			text: head + "exit a - 0 0 1 false\nforget a\nexit a - 0 0 2 false\n",
			want: []string{"a"},
		},
		{name: "cut off", text: head + "exit a - 0 0 1 false\nexit b - 0 0", want: []string{"a"}},
		{name: "cut off start", text: head + good, want: nil},
		{name: "start", text: head + good + "\n", want: []string{"a"}},
		{name: "the kind that holds", text: head + "exit a - 2 0 1 false\n", want: []string{"a"}},
		{name: "end command", text: head + good + ` end "/a" "b"` + "\n", want: []string{"a"}},
		{
			name: "a command that runs", want: []string{"a"},
			text: head + good + ` end "/a"` + "\nexit a - 0 0 1 false\nrunning a 5 6\nran a\n",
		},
		{name: "kept", text: head + good + " keep a=4/0/0/0,b=5/1/2/3\n", want: []string{"a"}},
		{name: "nothing kept", text: head + good + " keep\n", bad: true},
		{name: "kept twice", text: head + good + " keep a=4/0/0/0,a=5/1/2/3\n", bad: true},
		{name: "kept without a name", text: head + good + " keep =4/0/0/0\n", bad: true},
		{name: "kept nowhere", text: head + good + " keep a=-\n", bad: true},
		{name: "kept without a place", text: head + good + " keep a\n", bad: true},
		{name: "kept by the guard itself", text: head + good + " keep a=3/0/0/0\n", bad: true},
		{name: "two lists", text: head + good + " keep a=4/0/0/0 keep b=5/0/0/0\n", bad: true},
		{
			name: "as many kept as may be", want: []string{"a"},
			text: head + good + " keep " + manyKept(wire.MaxKept) + "\n",
		},
		{
			name: "too many kept", bad: true,
			text: head + good + " keep " + manyKept(wire.MaxKept+1) + "\n",
		},
		{name: "running of nothing", text: head + "running a 5 6\nran a\n"},
		{name: "no end command", text: head + good + " end\n", bad: true},
		{name: "two end commands", text: head + good + ` end "/a" end "/a"` + "\n", bad: true},
		{name: "relative end command", text: head + good + ` end "a"` + "\n", bad: true},
		{name: "end command without quotes", text: head + good + " end /a\n", bad: true},
		{name: "running without ticks", text: head + "running a 5\n", bad: true},
		{name: "ran too much", text: head + "ran a 5\n", bad: true},
		{name: "other version", text: "strake processes 3\n", bad: true},
		{name: "start in version 1", text: old + good + "\n", bad: true},
		{name: "owner in version 1", text: old + "exit a cri 0 0 1 false\n", bad: true},
		{name: "number", text: head + "exit a - 0 x 1 false\n", bad: true},
		{name: "kind", text: head + "exit a - 3 0 1 false\n", bad: true},
		{name: "status", text: head + "exit a - 0 4294967296 1 false\n", bad: true},
		{name: "verb", text: head + "enter a\n", bad: true},
		{name: "no verb", text: head + "\n", bad: true},
		{name: "id", text: head + "exit a/b - 0 0 1 false\n", bad: true},
		{name: "id to forget", text: head + "forget ../x\n", bad: true},
		{name: "owner", text: head + "exit a CRI 0 0 1 false\n", bad: true},
		{name: "too few", text: head + "exit a - 0 0 1\n", bad: true},
		{name: "too many", text: head + "exit a - 0 0 1 false false\n", bad: true},
		{name: "guard 0", text: head + "guard 0 1\n", bad: true},
		{name: "guard that is a group", text: head + "guard -1 1\n", bad: true},
		{name: "guard without ticks", text: head + "guard 5\n", bad: true},
		{name: "pid 0", text: replaced(" 4194304 ", " 0 "), bad: true},
		{name: "pid -1", text: replaced(" 4194304 ", " -1 "), bad: true},
		{name: "mode", text: replaced(" 1 true ", " 3 true "), bad: true},
		{name: "width", text: replaced(" 80 ", " 65536 "), bad: true},
		{name: "driver", text: replaced(" 65535 2 ", " 65535 3 "), bad: true},
		{name: "size of a log", text: replaced(" 1125899906842624 ", " -1 "), bad: true},
		{name: "path", text: replaced(`"/var`, `"var`), bad: true},
		{name: "path without quotes", text: replaced(`"/var/log/a b/'c'"`, "/var"), bad: true},
		{name: "long path", text: replaced(`"/var`, `"/`+strings.Repeat("x", 5000)), bad: true},
		{name: "no note", text: replaced(` "a \"note\"\n\xff"`, ""), bad: true},
		{name: "more than a note", text: head + good + " x\n", bad: true},
		{name: "the guard's own end", text: replaced("4/0/0/0", "3/0/0/0"), bad: true},
		{name: "place without a file", text: replaced("4/0/0/0", "4"), bad: true},
		{name: "negative inode", text: replaced("4/0/0/0", "4/0/-1/0"), bad: true},
		{name: "big place", text: replaced("16777216/", "16777217/"), bad: true},
		{name: "four places", text: replaced("4/0/0/0,", ""), bad: true},
		{name: "six places", text: replaced("4/0/0/0,", "4/0/0/0,-,"), bad: true},
	} {
		records, _, err := parseJournal([]byte(tc.text))
		got := slices.Sorted(maps.Keys(records))
		if tc.bad != errdefs.IsInvalidArgument(err) || !tc.bad && err != nil ||
			!slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, %v", tc.name, got, err)
		}
	}
}

// What is read is written as it was read.
func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(oldJournalHeader + "exit a 0 256 1 false\nforget b\n"))
	f.Add(append(
		[]byte(journalHeader+"guard 5 6\nexit b cri 2 9 2 true\n"), aStart("a").startLine()...,
	))
	f.Add(append(
		append([]byte(journalHeader), withKept("a").startLine()...),
		"exit a - 0 0 1 false\nrunning a 5 6\n"...,
	))
	f.Add([]byte(journalHeader + "exit a - 0 0 1 false\nran a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, guard, err := parseJournal(text)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		again := []byte(journalHeader)
		if guard.pid != 0 {
			again = append(again, guardLine(guard)...)
		}
		for _, r := range records {
			if r.start != nil {
				again = append(again, r.startLine()...)
			}
			if r.exit != nil {
				again = append(again, r.exitLine()...)
			}
			again = append(again, r.commandLine()...)
		}
		records2, guard2, err := parseJournal(again)
		if err != nil || guard2 != guard || !reflect.DeepEqual(records, records2) {
			t.Errorf("%q became %q: %v", text, again, err)
		}
	})
}

// The file does not grow with what is forgotten.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	const last = 1999
	for i := range last + 1 {
		r := aStart("process-with-a-long-name")
		if err := j.started(r); err != nil {
			t.Fatal(err)
		}
		if err := j.exited(&record{id: r.id, exit: &wire.Exit{Status: uint32(i)}}); err != nil {
			t.Fatal(err)
		}
		if i < last {
			if err := j.forget(r.id); err != nil {
				t.Fatal(err)
			}
		}
	}
	j.close()
	st, err := os.Stat(filepath.Join(dir, journalName))
	if err != nil || st.Size() > 2*journalLimit {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	j, err = openJournal(dir)
	if err != nil || len(j.records) != 1 ||
		j.records["process-with-a-long-name"].exit.Status != last {
		t.Errorf("got %v, %v", j.records, err)
	}
	j.close()
}

// A journal of version 1 is taken over once and for all.
func TestOldJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := filepath.Join(dir, oldJournalName)
	text := []byte(oldJournalHeader + "exit a 1 256 5 false\n")
	if err := os.WriteFile(old, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		j, err := openJournal(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := &record{id: "a", kind: wire.KindExec, exit: &wire.Exit{Status: 256, Time: 5}}
		if len(j.records) != 1 || !reflect.DeepEqual(j.records["a"], want) {
			t.Errorf("got %v", j.records)
		}
		j.close()
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Errorf("the old file is left: %v", err)
		}
	}
}

// On a full disk nothing that was written before is lost, a start is refused, and an exit is
// written as soon as there is room.
func TestJournalOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("strake-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	first := j.started(aStart("first"))
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	for i := 0; err == nil; i++ { // to the end of the file's last page
		err = j.started(aStart(fmt.Sprint("p", i)))
	}
	lost := len(j.records)
	err = j.exited(&record{id: "first", exit: &wire.Exit{Status: 7}})
	if err == nil || first != nil {
		t.Errorf("an exit on a full disk: %v; the first start: %v", err, first)
	}
	full, err := openJournal(dir)
	if err != nil || len(full.records) != lost || full.records["first"].exit != nil {
		t.Errorf("opened on the full disk: %d records of %d, %v", len(full.records), lost, err)
	}
	full.close()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := j.forget("p0"); err != nil {
		t.Error(err)
	}
	j.close()
	if j, err = openJournal(dir); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if e := j.records["first"].exit; len(j.records) != lost-1 || e == nil || e.Status != 7 {
		t.Errorf("%d records, want %d; exit %+v", len(j.records), lost-1, e)
	}
}

// TestLockOfAnEndingKeeper takes the lock of a state directory that another keeper still has: one
// that gives it up meanwhile is waited for, one that goes on is not.
func TestLockOfAnEndingKeeper(t *testing.T) {
	t.Parallel()
	for name, held := range map[string]time.Duration{
		"ends": lockPatience / 2, "goes on": 2 * lockPatience,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				// A lock of the open file conflicts with the keeper's, which is of the process.
				other, err := os.Create(filepath.Join(dir, "lock"))
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.FcntlFlock(
					other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK},
				); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(held, func() { other.Close() })
				started := time.Now()
				fd, err := lockDir(dir)
				took := time.Since(started)
				if held < lockPatience {
					if err != nil || took < held {
						t.Fatalf("after %v: %v, want the lock once it is free", took, err)
					}
					unix.Close(fd)
				} else if !errdefs.IsAlreadyExists(err) {
					t.Errorf("after %v: %v, want %v", took, err, errdefs.ErrAlreadyExists)
				}
			})
		})
	}
}
