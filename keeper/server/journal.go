package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// journal is the file of exits that nobody has acknowledged: a line for each exit and each Forget,
// written before anybody is told. It survives the keeper, not the host: processes do not either.
//
//	strake exits 1
//	exit ID KIND STATUS NANOSECONDS UNKNOWN
//	forget ID
type journal struct {
	path string
	fd   int
	open map[string]exitRecord // exits that are not forgotten
	size int64
}

type exitRecord struct {
	id   string
	kind wire.Kind
	exit wire.Exit
}

const (
	journalHeader = "strake exits 1\n"
	// journalLimit is the size at which the file is rewritten, if most of it is forgotten.
	journalLimit = 64 << 10
)

func openJournal(dir string) (*journal, []exitRecord, error) {
	j := &journal{path: filepath.Join(dir, "exits.log"), fd: -1}
	text, err := os.ReadFile(j.path)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, fmt.Errorf("exits: %w", err)
	}
	list, err := parseJournal(text)
	if err != nil {
		return nil, nil, fmt.Errorf("exits in %q: %w", j.path, err)
	}
	j.open = make(map[string]exitRecord)
	for _, e := range list {
		j.open[e.id] = e
	}
	if err := j.rewrite(); err != nil {
		return nil, nil, err
	}
	return j, list, nil
}

// parseJournal returns the exits that are not forgotten. A last line without an end was cut off by
// a crash and never acknowledged.
func parseJournal(text []byte) ([]exitRecord, error) {
	if len(text) == 0 {
		return nil, nil
	}
	rest, ok := strings.CutPrefix(string(text), journalHeader)
	if !ok {
		return nil, fmt.Errorf(
			"first line is not %q: %w", strings.TrimSpace(journalHeader),
			errdefs.ErrInvalidArgument,
		)
	}
	var list []exitRecord
	open := make(map[string]int)
	for line := range strings.Lines(rest) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "forget":
			delete(open, f[1])
		case len(f) == 6 && f[0] == "exit" && validID(f[1]) == nil:
			kind, err1 := strconv.ParseUint(f[2], 10, 8)
			status, err2 := strconv.ParseUint(f[3], 10, 32)
			nanos, err3 := strconv.ParseInt(f[4], 10, 64)
			unknown, err4 := strconv.ParseBool(f[5])
			if err1 != nil || err2 != nil || err3 != nil || err4 != nil ||
				kind > uint64(wire.KindExec) {
				return nil, fmt.Errorf("line %q: %w", line, errdefs.ErrInvalidArgument)
			}
			open[f[1]] = len(list)
			list = append(
				list,
				exitRecord{
					f[1], wire.Kind(kind),
					wire.Exit{Status: uint32(status), Time: nanos, Unknown: unknown},
				},
			)
		default:
			return nil, fmt.Errorf("line %q: %w", line, errdefs.ErrInvalidArgument)
		}
	}
	var left []exitRecord
	for i, e := range list {
		if at, ok := open[e.id]; ok && at == i {
			left = append(left, e)
		}
	}
	return left, nil
}

func (e *exitRecord) line() []byte {
	return fmt.Appendf(
		nil, "exit %s %d %d %d %t\n", e.id, e.kind, e.exit.Status, e.exit.Time, e.exit.Unknown,
	)
}

// rewrite replaces the file by one that has only what is not forgotten.
func (j *journal) rewrite() error {
	var b bytes.Buffer
	b.WriteString(journalHeader)
	for _, e := range j.open {
		b.Write(e.line())
	}
	fresh := j.path + ".new"
	fd, err := unix.Open(
		fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o600,
	)
	if err != nil {
		return fmt.Errorf("exits: open %q: %w", fresh, err)
	}
	if err = writeAll(fd, b.Bytes()); err == nil {
		err = unix.Rename(fresh, j.path)
	}
	if err != nil {
		unix.Close(fd)
		unix.Unlink(fresh)
		return fmt.Errorf("exits: write %q: %w", fresh, err)
	}
	j.close()
	j.fd, j.size = fd, int64(b.Len())
	return nil
}

func (j *journal) add(e exitRecord) error {
	j.open[e.id] = e
	return j.append(e.line())
}

func (j *journal) forget(id string) error {
	if _, ok := j.open[id]; !ok {
		return nil
	}
	delete(j.open, id)
	if j.size > journalLimit && j.size > 256*int64(len(j.open)) {
		return j.rewrite()
	}
	return j.append([]byte("forget " + id + "\n"))
}

func (j *journal) append(line []byte) error {
	if err := writeAll(j.fd, line); err != nil {
		unix.Ftruncate(j.fd, j.size) // no half line in the middle
		return fmt.Errorf("exits: write %q: %w", j.path, err)
	}
	j.size += int64(len(line))
	return nil
}

func (j *journal) close() {
	if j.fd >= 0 {
		unix.Close(j.fd)
		j.fd = -1
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// lockDir makes sure that a state directory has one keeper. The lock belongs to the process
// (fcntl(2), F_SETLK): children do not inherit it, and it outlives an upgrade as long as no
// descriptor of the file is closed.
func lockDir(dir string) (int, error) {
	path := filepath.Join(dir, "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", path, err)
	}
	err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if err == unix.EAGAIN || err == unix.EACCES {
		return -1, fmt.Errorf("lock %q: another keeper has it: %w", path, errdefs.ErrAlreadyExists)
	}
	return -1, fmt.Errorf("lock %q: %w", path, err)
}
