package server

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// record is what the journal says of a process.
type record struct {
	id, owner string
	kind      wire.Kind
	start     *startRecord // nil: nothing but the exit is known
	exit      *wire.Exit   // nil: it has not ended
	runs      identity     // the process that executes its end command; zero: none
	ran       bool         // its end command has ended
}

// continues takes over what an earlier record of the same process says of its end.
func (r *record) continues(known *record) {
	r.exit, r.runs, r.ran = known.exit, known.runs, known.ran
}

// startRecord is what another keeper needs to go on with a process.
type startRecord struct {
	note    string
	process identity
	started int64 // nanoseconds since 1970
	stdio   wire.Stdio
	log     wire.Log
	held    places
	// endCommand is empty if there is none.
	endCommand []string
	kept       []keptPlace
}

// keptPlace is where the guard holds a descriptor that a client has given to be kept.
type keptPlace struct {
	name string
	at   place
}

// identity is a process for good: a number is used again, but not within the same clock tick.
type identity struct {
	pid   int
	ticks uint64 // field starttime of proc_pid_stat(5)
}

// places are where the guard holds the descriptors of a process, in the order of wire.Descriptors.
type places [5]place

// place is a descriptor in the guard.
type place struct {
	number int // 0: none; the guard has its own below guardFirst
	file   file
}

// file identifies the open file of a pipe (its inode) or a terminal's master (the inode of the ptmx
// device and the terminal's number). A pidfd has the zero file: its process identifies it.
type file struct {
	dev, ino uint64
	tty      int
}

// fileOf identifies what a descriptor refers to.
func fileOf(fd int, tty bool) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, fmt.Errorf("fstat: %w", err)
	}
	f := file{dev: uint64(st.Dev), ino: st.Ino}
	if tty {
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			return file{}, fmt.Errorf("number of a terminal: %w", err)
		}
		f.tty = n
	}
	return f, nil
}

const (
	journalHeader    = "strake processes 2\n"
	oldJournalHeader = "strake exits 1\n"
	// maxPlace bounds the numbers of descriptors in the guard.
	maxPlace = 1 << 24
)

// parseJournal reads a journal of version 2:
//
//	strake processes 2
//	guard PID TICKS
//	start ID OWNER KIND PID TICKS STARTED STDIO LOG PLACES "PATH" "NOTE" REST
//	exit ID OWNER KIND STATUS NANOSECONDS UNKNOWN
//	running ID PID TICKS
//	ran ID
//	forget ID
//
// OWNER is "-" for none, STDIO is MODE STDIN WIDTH HEIGHT, LOG is DRIVER MAXBYTES MAXFILES. PLACES
// are five of NUMBER/DEV/INO/TTY, separated by commas, "-" for none. REST is what only some have:
//
//	"ATTRIBUTES"
//	end "WORD" ...
//	keep NAME=NUMBER/DEV/INO/TTY,...
//
// The words are the end command, which the process that running names executes, and which has ended
// after ran. A start and an exit replace an earlier one of the same ID. Version 1 begins with
// "strake exits 1" and has the lines exit, without an owner, and forget. A last line without an end
// was cut off by a crash and never acknowledged. Errors are of class errdefs.ErrInvalidArgument.
func parseJournal(text []byte) (map[string]*record, identity, error) {
	records := make(map[string]*record)
	var guard identity
	if len(text) == 0 {
		return records, guard, nil
	}
	rest, ok := strings.CutPrefix(string(text), journalHeader)
	old := false
	if !ok {
		rest, old = strings.CutPrefix(string(text), oldJournalHeader)
	}
	if !ok && !old {
		return nil, guard, invalid("first line is not %q", strings.TrimSpace(journalHeader))
	}
	for line := range strings.Lines(rest) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			break
		}
		f := &fields{rest: line}
		switch verb := f.word(); {
		case verb == "forget":
			delete(records, f.id())
		case verb == "exit":
			r := f.exit(old)
			if known := records[r.id]; known != nil {
				r.start = known.start
			}
			records[r.id] = r
		case verb == "start" && !old:
			r := f.start()
			if known := records[r.id]; known != nil {
				r.continues(known)
			}
			records[r.id] = r
		case verb == "running" && !old:
			id, by := f.id(), f.identity()
			if r := records[id]; r != nil {
				r.runs, r.ran = by, false
			}
		case verb == "ran" && !old:
			if r := records[f.id()]; r != nil {
				r.runs, r.ran = identity{}, true
			}
		case verb == "guard" && !old:
			guard = f.identity()
		default:
			f.fail("verb %q", verb)
		}
		if err := f.finish(); err != nil {
			return nil, identity{}, fmt.Errorf("line %.200q: %w", line, err)
		}
	}
	return records, guard, nil
}

// fields takes a line apart. After the first error it gives zero values.
type fields struct {
	rest string
	err  error
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	f.rest = ""
}

// finish returns the first error; text that is left over is one.
func (f *fields) finish() error {
	if f.rest != "" {
		f.fail("%.40q is left over", f.rest)
	}
	return f.err
}

func (f *fields) word() string {
	var w string
	w, f.rest, _ = strings.Cut(f.rest, " ")
	if w == "" {
		f.fail("a field is missing")
	}
	return w
}

// number takes a number from low to high.
func (f *fields) number(low, high int64) int64 {
	w := f.word()
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil || n < low || n > high {
		f.fail("number %.40q, want %d to %d", w, low, high)
		return low
	}
	return n
}

const (
	anyNumber = 1<<63 - 1
	maxPID    = 1 << 22 // PID_MAX_LIMIT, linux/threads.h
)

func (f *fields) truth() bool {
	w := f.word()
	if w != "true" && w != "false" {
		f.fail("%.40q, want true or false", w)
	}
	return w == "true"
}

func (f *fields) quoted(limit int) string {
	q, err := strconv.QuotedPrefix(f.rest)
	if err != nil {
		f.fail("a quoted text is missing")
		return ""
	}
	f.rest = strings.TrimPrefix(f.rest[len(q):], " ")
	s, err := strconv.Unquote(q)
	if err != nil || len(s) > limit {
		f.fail("quoted text %.40q", q)
		return ""
	}
	return s
}

func (f *fields) id() string {
	id := f.word()
	if err := validID(id); err != nil && f.err == nil {
		f.err = err
	}
	return id
}

func (f *fields) owner() string {
	owner := f.word()
	if owner == "-" {
		return ""
	}
	if err := validOwner(owner); err != nil && f.err == nil {
		f.err = err
	}
	return owner
}

func (f *fields) identity() identity {
	return identity{int(f.number(1, maxPID)), uint64(f.number(0, anyNumber))}
}

func (f *fields) exit(old bool) *record {
	r := &record{id: f.id()}
	if !old {
		r.owner = f.owner()
	}
	r.kind = wire.Kind(f.number(0, int64(wire.KindHold)))
	r.exit = &wire.Exit{
		Status: uint32(f.number(0, 1<<32-1)), Time: f.number(-anyNumber, anyNumber),
		Unknown: f.truth(),
	}
	return r
}

func (f *fields) start() *record {
	r := &record{
		id: f.id(), owner: f.owner(), kind: wire.Kind(f.number(0, int64(wire.KindHold))),
	}
	s := &startRecord{process: f.identity(), started: f.number(-anyNumber, anyNumber)}
	s.stdio = wire.Stdio{
		Mode: wire.StdioMode(f.number(0, int64(wire.StdioTTY))), Stdin: f.truth(),
		Width: uint16(f.number(0, 1<<16-1)), Height: uint16(f.number(0, 1<<16-1)),
	}
	s.log = wire.Log{
		Driver:   wire.LogDriver(f.number(0, int64(wire.LogJSONAttributes))),
		MaxBytes: f.number(0, anyNumber), MaxFiles: uint32(f.number(0, 1<<32-1)),
	}
	s.held = f.places()
	s.log.Path, s.note = f.quoted(4096), f.quoted(1024)
	if s.log.Driver == wire.LogJSONAttributes {
		s.log.Attributes = f.quoted(wire.MaxAttributes)
	}
	f.tail(s)
	if s.log.Driver != wire.LogNone && f.err == nil {
		cfg := logConfig(&s.log)
		f.err = cfg.Validate()
	}
	r.start = s
	return r
}

// tail takes what only some records have.
func (f *fields) tail(s *startRecord) {
	for f.err == nil && f.rest != "" {
		switch w := f.word(); {
		case w == "end" && s.endCommand == nil:
			s.endCommand = f.command()
		case w == "keep" && s.kept == nil:
			s.kept = f.kept()
		default:
			f.fail("%.40q is left over", w)
		}
	}
}

// command takes the words of an end command.
func (f *fields) command() (argv []string) {
	for strings.HasPrefix(f.rest, `"`) {
		argv = append(argv, f.quoted(wire.MaxCommandBytes))
	}
	if len(argv) == 0 {
		f.fail("an end command without words")
	} else if err := validCommand(argv); err != nil && f.err == nil {
		f.err = err
	}
	return argv
}

// kept takes the places of kept descriptors.
func (f *fields) kept() (list []keptPlace) {
	var names []string
	for w := range strings.SplitSeq(f.word(), ",") {
		name, at, _ := strings.Cut(w, "=")
		names, list = append(names, name), append(list, keptPlace{name, f.place(at)})
	}
	if err := validKept(names); err != nil && f.err == nil {
		f.err = err
	}
	return list
}

func (f *fields) places() (list places) {
	words := strings.Split(f.word(), ",")
	if len(words) != len(list) {
		f.fail("%d places, want %d", len(words), len(list))
		return list
	}
	for i, w := range words {
		if w == "-" {
			continue
		}
		list[i] = f.place(w)
	}
	return list
}

// place reads NUMBER/DEV/INO/TTY.
func (f *fields) place(w string) place {
	part := &fields{rest: strings.ReplaceAll(w, "/", " ")}
	p := place{number: int(part.number(guardFirst, maxPlace))}
	for _, to := range []*uint64{&p.file.dev, &p.file.ino} {
		n, err := strconv.ParseUint(part.word(), 10, 64)
		if err != nil {
			part.fail("inode")
		}
		*to = n
	}
	p.file.tty = int(part.number(0, 1<<31-1))
	if err := part.finish(); err != nil {
		f.fail("place %.60q: %v", w, err)
		return place{}
	}
	return p
}

// appendPlace writes NUMBER/DEV/INO/TTY.
func appendPlace(b []byte, p place) []byte {
	b = strconv.AppendInt(b, int64(p.number), 10)
	for _, n := range []uint64{p.file.dev, p.file.ino, uint64(p.file.tty)} {
		b = strconv.AppendUint(append(b, '/'), n, 10)
	}
	return b
}

func ownerWord(owner string) string {
	if owner == "" {
		return "-"
	}
	return owner
}

func guardLine(g identity) []byte { return fmt.Appendf(nil, "guard %d %d\n", g.pid, g.ticks) }

func (r *record) exitLine() []byte {
	return fmt.Appendf(
		nil, "exit %s %s %d %d %d %t\n", r.id, ownerWord(r.owner), r.kind, r.exit.Status,
		r.exit.Time, r.exit.Unknown,
	)
}

// commandLine says how far the end command is; it is empty if it has not begun.
func (r *record) commandLine() []byte {
	switch {
	case r.ran:
		return fmt.Appendf(nil, "ran %s\n", r.id)
	case r.runs.pid != 0:
		return fmt.Appendf(nil, "running %s %d %d\n", r.id, r.runs.pid, r.runs.ticks)
	}
	return nil
}

func (r *record) startLine() []byte {
	s := r.start
	b := fmt.Appendf(
		make([]byte, 0, 512), "start %s %s %d %d %d %d %d %t %d %d %d %d %d ", r.id,
		ownerWord(r.owner), r.kind, s.process.pid, s.process.ticks, s.started, s.stdio.Mode,
		s.stdio.Stdin, s.stdio.Width, s.stdio.Height, s.log.Driver, s.log.MaxBytes, s.log.MaxFiles,
	)
	for i, p := range s.held {
		if i > 0 {
			b = append(b, ',')
		}
		if p.number == 0 {
			b = append(b, '-')
			continue
		}
		b = appendPlace(b, p)
	}
	b = strconv.AppendQuote(append(b, ' '), s.log.Path)
	b = strconv.AppendQuote(append(b, ' '), s.note)
	if s.log.Driver == wire.LogJSONAttributes {
		b = strconv.AppendQuote(append(b, ' '), s.log.Attributes)
	}
	if len(s.endCommand) > 0 {
		b = append(b, " end"...)
		for _, w := range s.endCommand {
			b = strconv.AppendQuote(append(b, ' '), w)
		}
	}
	separator := " keep "
	for _, k := range s.kept {
		b = append(append(b, separator...), k.name...)
		b = appendPlace(append(b, '='), k.at)
		separator = ","
	}
	return append(b, '\n')
}
