package server

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/keeper/logwriter"
)

func TestFlight(t *testing.T) {
	t.Parallel()
	f, err := newFlight(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if c, ok := f.left(); ok {
		t.Errorf("new: %+v", c)
	}
	who, mark := identity{12, 34}, logwriter.Mark{File: 5, Size: 6, Pending: 7}
	now := time.Unix(0, 1e18)
	for _, tc := range []struct {
		name, text, want string
		logging          bool
	}{
		{"reading nothing", "", "", false},
		{"reading", "text\n", "text\n", false},
		{"reading zeros", "a\x00b\x00\x00", "a\x00b", false},
		{"logging", "text\x00\x00", "text\x00\x00", true},
		{"a full buffer", string(bytes.Repeat([]byte("x"), outputSize)), "", true},
	} {
		if tc.name == "a full buffer" {
			tc.want = tc.text
		}
		f.reading(who, 1)
		n := copy(f.buffer()[headroom:], tc.text)
		if tc.logging {
			f.logging(n, mark, now)
		}
		c, ok := f.left()
		if ok != (tc.want != "") || ok && (string(c.text) != tc.want || c.process != who ||
			c.stream != 1 || (c.mark != nil) != tc.logging) {
			t.Errorf("%s: %+v, %t", tc.name, c, ok)
		}
		if tc.logging && (*c.mark != mark || !c.time.Equal(now)) {
			t.Errorf("%s: mark %+v, time %v", tc.name, c.mark, c.time)
		}
		f.landed(n)
		if c, ok := f.left(); ok || len(bytes.Trim(f.text(), "\x00")) > 0 {
			t.Errorf("%s: afterwards %+v", tc.name, c)
		}
	}
	// Memory that makes no sense is not believed.
	f.reading(who, 1)
	f.logging(outputSize+1, mark, now)
	if c, ok := f.left(); ok {
		t.Errorf("too much: %+v", c)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newFlight(null); err == nil {
		t.Error("a device is accepted")
	}
}

// A keeper that is killed between reading and logging loses nothing, whether it had begun to log or
// not.
func TestKilledInFlight(t *testing.T) {
	for _, begun := range []bool{false, true} {
		t.Run(fmt.Sprintf("logging %t", begun), func(t *testing.T) {
			r := newRig(t)
			req := r.request("a", "echo before; read x; echo after; exit 3")
			req.Stdio.Stdin = true
			p := r.start(req)
			waitForLog(t, r.logPath("a"), "before\n")
			r.turn() // when it answers, the keeper is done with that line
			st, err := readStat(p.Pid)
			if err != nil {
				t.Fatal(err)
			}
			r.kill(p)
			// What the keeper had read, as if it had been killed a moment later.
			file := fmt.Sprintf("/proc/%d/fd/%d", r.guardPID(), guardOutput)
			fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			f, err := newFlight(fd)
			if err != nil {
				t.Fatal(err)
			}
			if c, ok := f.left(); ok {
				t.Errorf("an idle keeper has left %+v", c)
			}
			f.reading(identity{p.Pid, st.ticks}, 0)
			n := copy(f.buffer()[headroom:], "one\ntwo\nthr")
			if begun {
				info, err := os.Stat(r.logPath("a"))
				if err != nil {
					t.Fatal(err)
				}
				var s unix.Stat_t
				if err := unix.Stat(r.logPath("a"), &s); err != nil {
					t.Fatal(err)
				}
				f.logging(n, logwriter.Mark{File: s.Ino, Size: info.Size()}, time.Now())
				log, err := os.OpenFile(r.logPath("a"), os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				line := logwriter.JSON{}.AppendRecord(
					nil, []byte("one"), logwriter.Newline, logwriter.Stdout, time.Now(),
				)
				if _, err := log.Write(line); err != nil {
					t.Fatal(err)
				}
				log.Close()
			}
			f.close()
			r.begin()
			list, err := r.List(r.ctx())
			if err != nil || len(list) != 1 || list[0].State != keeper.Running {
				t.Fatalf("list %v, %v", list, err)
			}
			list[0].Close()
			if err := r.CloseStdin(r.ctx(), "a"); err != nil {
				t.Fatal(err)
			}
			r.exit("a")
			r.streamsClosed("a")
			want := "before\none\ntwo\nthrafter\n"
			if got := logged(t, r.logPath("a"), "stdout"); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		})
	}
}

// spy is a format that looks at what is on its way while a record is made.
type spy struct {
	logwriter.JSON
	flight *flight
	seen   []string
}

func (s *spy) AppendRecord(
	b, line []byte, end logwriter.LineEnd, stream logwriter.Stream, now time.Time,
) []byte {
	c, ok := s.flight.left()
	s.seen = append(s.seen, fmt.Sprintf(
		"%t %d.%d/%d %q at %d+%d", ok, c.process.pid, c.process.ticks, c.stream, c.text,
		c.mark.Size, c.mark.Pending,
	))
	return s.JSON.AppendRecord(b, line, end, stream, now)
}

// Output is in the memory while it is logged, and not before and after.
func TestReadPassesThroughFlight(t *testing.T) {
	t.Parallel()
	f, err := newFlight(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	format := &spy{flight: f}
	log, err := logwriter.Open(
		logwriter.Config{Format: format, Path: t.TempDir() + "/log"}, &logwriter.Scratch{},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := &server{flight: f}
	p := s.newProcess("a", 0)
	p.pid, p.ticks, p.log = 12, 34, log
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer closeAll(ends[:])
	st := &stream{p: p, index: 1, fd: ends[0]}
	for _, text := range []string{"begun, ", "ended\n"} {
		if _, err := unix.Write(ends[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
		if !st.read() {
			t.Fatal("nothing is read")
		}
		if c, ok := f.left(); ok {
			t.Errorf("afterwards there is %+v", c)
		}
	}
	if st.read() {
		t.Error("an empty pipe has more")
	}
	want := []string{`true 12.34/1 "ended\n" at 0+7`}
	if !slices.Equal(format.seen, want) {
		t.Errorf("seen %q, want %q", format.seen, want)
	}
}
