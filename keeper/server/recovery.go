package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// recovery goes on with what another keeper has left.
type recovery struct {
	s *server
	*custody
	taken map[int]bool // numbers of the guard that a process of the journal has
	named map[int]bool // pids that the journal names
}

// recoverProcesses takes processes over from the guard of a keeper that was killed. Those that
// cannot be are left to the engine's Adopt, as if there had been no guard. Only of one with an end
// command, for which there may be no engine, the end is watched also without a guard.
//
// Without a guard the server gets new memory for its output; its error is the only one.
func recoverProcesses(s *server) (err error) {
	r := &recovery{s: s, custody: &s.custody, taken: make(map[int]bool), named: make(map[int]bool)}
	if id := r.journal.guard; id.pid != 0 {
		g, err := findGuard(id)
		if err != nil {
			r.logf("processes of the last keeper: %v", err)
		}
		r.guard = g
		r.watch(r.guardDied)
	}
	if s.flight, err = r.flight(); err != nil {
		return err
	}
	r.output = s.flight.fd
	if err := r.processes(); err != nil {
		return err
	}
	if r.guard == nil {
		return nil
	}
	r.replay()
	r.clean()
	if r.guard.deaf != nil {
		r.giveUp(r.guard.deaf)
	}
	r.flush()
	return nil
}

// processes makes the processes of the journal.
func (r *recovery) processes() error {
	for id, rec := range r.journal.records {
		if rec.start != nil {
			r.named[rec.start.process.pid] = true
		}
		p, err := r.process(rec)
		if err != nil {
			r.logf("process %q of the last keeper: %v", id, err)
			delete(r.journal.records, id)
			r.journal.stale = true
			continue
		}
		r.s.procs[id] = p
		if rec.runs.pid != 0 {
			r.s.commands.recover(p, rec.runs)
		}
	}
	return r.s.commands.resume()
}

// flight takes the memory that output passes through from the guard, or makes it.
func (r *recovery) flight() (*flight, error) {
	if r.guard != nil {
		fd, err := r.guard.get(guardOutput)
		if err == nil {
			var f *flight
			if f, err = newFlight(fd); err == nil {
				return f, nil
			}
		}
		r.guard.deaf = err // the next guard gets new memory
	}
	return newFlight(-1)
}

// replay logs what the last keeper had read and not logged.
func (r *recovery) replay() {
	c, ok := r.s.flight.left()
	for _, p := range r.s.procs {
		if ok && p.log != nil && (identity{p.pid, p.ticks}) == c.process {
			p.log.Replay(logwriter.Stream(c.stream), c.text, c.mark, c.time)
		}
	}
	r.s.flight.landed(outputSize)
}

// process makes a process of a record. Its descriptors come from the guard.
func (r *recovery) process(rec *record) (*process, error) {
	p := r.s.newProcess(rec.id, rec.kind)
	p.owner = rec.owner
	if s := rec.start; s != nil {
		p.note, p.stdio, p.logCfg, p.adopted = s.note, s.stdio, s.log, true
		p.pid, p.ticks, p.started = s.process.pid, s.process.ticks, time.Unix(0, s.started)
		p.endCommand, p.ran = s.endCommand, rec.ran
	}
	if rec.exit != nil {
		p.state, p.exit = wire.Exited, *rec.exit
	} else {
		p.state = wire.Running
		if err := r.pidfd(p, rec.start); err != nil && !r.bare(p) {
			return nil, err
		}
	}
	if rec.start != nil && r.guard != nil {
		r.streams(p, rec.start)
		r.kept(p, rec.start)
	}
	p.closed = p.streamsClosed()
	if p.state == wire.Running {
		if err := p.watchExit(); err != nil {
			p.release()
			return nil, err
		}
	}
	return p, nil
}

// pidfd takes the process's descriptor out of the guard.
func (r *recovery) pidfd(p *process, s *startRecord) error {
	if r.guard == nil || s == nil || r.taken[s.held[0].number] {
		return fmt.Errorf("it is not in the guard: %w", errdefs.ErrNotFound)
	}
	fd, err := r.guard.get(s.held[0].number)
	if err != nil {
		return err
	}
	pid, err := pidOf(fd)
	// A process that was reaped has no number any more.
	if err == nil && pid != p.pid && pid != -1 {
		err = fmt.Errorf("the guard has process %d: %w", pid, errdefs.ErrNotFound)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	p.pidfd = fd
	r.claim(p, s, 0)
	return nil
}

// bare goes on with a process that has an end command and of which no guard has anything: it is
// found by its number, or it has ended. A client may hand over the rest (Adopt).
func (r *recovery) bare(p *process) bool {
	if r.guard != nil || len(p.endCommand) == 0 {
		return false
	}
	if p.pidfd, _ = openProcess(identity{p.pid, p.ticks}); p.pidfd >= 0 {
		p.bare = true
		r.missing[p] = struct{}{}
		return true
	}
	p.state, p.exit = wire.Exited, wire.Exit{Time: time.Now().UnixNano(), Unknown: true}
	r.exited(p)
	return true
}

func (r *recovery) claim(p *process, s *startRecord, i int) {
	p.held[i] = s.held[i]
	r.taken[s.held[i].number] = true
}

// streams takes over those of the process's pipes, or the terminal, that are not closed by now:
// what the guard has at their numbers is still the same file.
func (r *recovery) streams(p *process, s *startRecord) {
	tty := s.stdio.Mode == wire.StdioTTY
	for i := 1; i < len(s.held); i++ {
		at := s.held[i]
		if at.number == 0 || r.taken[at.number] || tty != (i == 4) ||
			i == 1 && p.state == wire.Exited { // the last keeper has closed it, or was about to
			continue
		}
		fd, err := r.guard.get(at.number)
		if err != nil {
			continue
		}
		if f, err := fileOf(fd, tty); err != nil || f != at.file {
			unix.Close(fd)
			continue
		}
		if i == 1 {
			p.stdin = fd
		} else if err := p.addStream((i-2)%2, fd); err != nil {
			r.logf("process %q: %v", p.id, err)
			continue
		}
		r.claim(p, s, i)
	}
	if s.log.Driver == wire.LogNone || p.streams[0] == nil && p.streams[1] == nil {
		return
	}
	var err error
	if p.log, err = logwriter.Open(logConfig(&s.log), &r.s.scratch); err != nil {
		// The output is read all the same, or the process would block.
		r.logf("process %q: its output is not logged any more: %v", p.id, err)
	}
}

// kept takes over what the process keeps.
func (r *recovery) kept(p *process, s *startRecord) {
	for _, k := range s.kept {
		if r.taken[k.at.number] {
			continue
		}
		fd, err := r.guard.get(k.at.number)
		if err == nil {
			var f file
			if f, err = keptFile(fd); err == nil && f != k.at.file {
				err = fmt.Errorf("the guard has another file: %w", errdefs.ErrNotFound)
			}
			if err != nil {
				unix.Close(fd)
			}
		}
		if err != nil {
			r.logf("process %q: %s is not kept any more: %v", p.id, k.name, err)
			continue
		}
		p.kept = append(p.kept, kept{name: k.name, fd: fd, at: k.at})
		r.taken[k.at.number] = true
	}
}

// clean ends what is in the guard and not in the journal: starts that no client was told of, and
// what the last keeper had no time to drop.
func (r *recovery) clean() {
	for _, n := range r.guard.used.list() {
		if n < guardFirst || r.taken[n] {
			continue
		}
		r.closing = append(r.closing, n)
		fd, err := r.guard.get(n)
		if err != nil {
			continue
		}
		if pid, err := pidOf(fd); err == nil && pid > 0 && !r.named[pid] {
			r.logf("process %d is ended: its start was never acknowledged", pid)
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// pidOf is the process of a pidfd: its number in the PID namespace of /proc, -1 if it was reaped
// (proc_pid_fdinfo(5)). It is an error for any other descriptor.
func pidOf(fd int) (int, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("no pidfd: %w", errdefs.ErrInvalidArgument)
}
