package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// journal is the file that says which processes there are: a line for each start, exit and Forget,
// and for each guard, written before a client is told. It survives the keeper, not the host:
// processes do not either. The format is described at parseJournal.
type journal struct {
	path    string
	fd      int
	records map[string]*record // by ID; what is not forgotten
	guard   identity           // of the guard whose descriptors the records name
	size    int64
	base    int64 // size after the last rewrite
	// stale says that a line is missing in the file. The next write replaces the whole file.
	stale bool
}

const (
	journalName = "processes.log"
	// oldJournalName is the name of a journal of version 1.
	oldJournalName = "exits.log"
	// journalLimit is by how much more than its double the file grows before it is rewritten.
	journalLimit = 64 << 10
)

// openJournal reads the journal in a directory and begins a new file with what is not forgotten. If
// that fails because the disk is full, the old file goes on.
func openJournal(dir string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalName), fd: -1}
	old := filepath.Join(dir, oldJournalName)
	from := j.path
	text, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		from = old
		text, err = os.ReadFile(from)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if j.records, j.guard, err = parseJournal(text); err != nil {
		return nil, fmt.Errorf("journal %q: %w", from, err)
	}
	err = j.rewrite()
	if errors.Is(err, unix.ENOSPC) && from == j.path {
		j.stale = true
		j.fd, err = unix.Open(j.path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	if from == old {
		unix.Unlink(old)
	}
	return j, nil
}

// rewrite replaces the file by one that has only what is not forgotten.
func (j *journal) rewrite() error {
	j.stale = true
	var b bytes.Buffer
	b.WriteString(journalHeader)
	if j.guard.pid != 0 {
		b.Write(guardLine(j.guard))
	}
	for _, r := range j.records {
		if r.start != nil {
			b.Write(r.startLine())
		}
		if r.exit != nil {
			b.Write(r.exitLine())
		}
		b.Write(r.commandLine())
	}
	fresh := j.path + ".new"
	fd, err := unix.Open(
		fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o600,
	)
	if err != nil {
		return fmt.Errorf("journal: open %q: %w", fresh, err)
	}
	if err = writeAll(fd, b.Bytes()); err == nil {
		err = unix.Rename(fresh, j.path)
	}
	if err != nil {
		unix.Close(fd)
		unix.Unlink(fresh)
		return fmt.Errorf("journal: write %q: %w", fresh, err)
	}
	j.close()
	j.fd, j.size, j.base, j.stale = fd, int64(b.Len()), int64(b.Len()), false
	return nil
}

// started adds the record of a process that runs. On failure there is none.
func (j *journal) started(r *record) error {
	known := j.records[r.id]
	if known != nil {
		r.continues(known)
	}
	j.records[r.id] = r
	err := j.append(r.startLine())
	if err != nil {
		delete(j.records, r.id)
		if known != nil {
			j.records[r.id] = known
		}
	}
	return err
}

// exited adds an exit, and the start if the record has one that is not in the journal. On failure
// it is in memory alone, until the next write succeeds.
func (j *journal) exited(r *record) error {
	var line []byte
	if known := j.records[r.id]; known != nil && known.start != nil {
		r.start = known.start
	} else if r.start != nil {
		line = r.startLine()
	}
	j.records[r.id] = r
	return j.append(append(line, r.exitLine()...))
}

// commandRuns says which process executes the end command of a process.
func (j *journal) commandRuns(id string, by identity) error {
	r := j.records[id]
	if r == nil {
		return nil
	}
	r.runs = by
	return j.append(r.commandLine())
}

// commandRan says that the end command of a process has ended.
func (j *journal) commandRan(id string) error {
	r := j.records[id]
	if r == nil {
		return nil
	}
	r.runs, r.ran = identity{}, true
	return j.append(r.commandLine())
}

// forget removes a process. An unknown ID is no error.
func (j *journal) forget(id string) error {
	if _, ok := j.records[id]; !ok {
		return nil
	}
	delete(j.records, id)
	if j.size > 2*j.base+journalLimit {
		return j.rewrite()
	}
	return j.append([]byte("forget " + id + "\n"))
}

// append writes a line, whose meaning is in memory already.
func (j *journal) append(line []byte) error {
	if j.stale {
		return j.rewrite()
	}
	if err := writeAll(j.fd, line); err != nil {
		unix.Ftruncate(j.fd, j.size) // no half line in the middle
		j.stale = true
		return fmt.Errorf("journal: write %q: %w", j.path, err)
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

// lockPatience is how long a keeper waits for the lock of one that is ending, and refuses clients
// by then.
const lockPatience = 2 * time.Second

// lockDir makes sure that a state directory has one keeper. The lock belongs to the process
// (fcntl(2), F_SETLK): children do not inherit it, and it outlives an upgrade as long as no
// descriptor of the file is closed.
func lockDir(dir string) (int, error) {
	path := filepath.Join(dir, "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", path, err)
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EACCES || time.Now().After(end) {
			break
		}
	}
	unix.Close(fd)
	if err == unix.EAGAIN || err == unix.EACCES {
		return -1, fmt.Errorf("lock %q: another keeper has it: %w", path, errdefs.ErrAlreadyExists)
	}
	return -1, fmt.Errorf("lock %q: %w", path, err)
}
