package server

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/spawn"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// validID accepts what can be part of a file name and of a line of the journal.
func validID(id string) error {
	ok := len(id) > 0 && len(id) <= 128
	for i := range len(id) {
		c := id[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return invalid("id %.140q: want 1 to 128 letters, digits, '_', '.' or '-'", id)
	}
	return nil
}

// validOwner accepts the name of a front end, or none.
func validOwner(owner string) error {
	ok := len(owner) <= 32
	for i := range len(owner) {
		c := owner[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return invalid("owner %.40q: want at most 32 lower-case letters, digits or '-'", owner)
	}
	return nil
}

// job is a clone that is being made. Its descriptors are the job's.
type job struct {
	p       *process
	memory  []byte // what image is in
	image   *program.Image
	cgroup  int
	inputs  map[string]int
	request *wire.Start
}

func (j *job) close() {
	if j.memory != nil {
		unix.Munmap(j.memory)
	}
	closeAll([]int{j.cgroup})
	for _, fd := range j.inputs {
		unix.Close(fd)
	}
}

// admission is what Start and Adopt have in common. others is the number of descriptors that come
// before those of keep and attach.
type admission struct {
	id, owner  string
	log        *wire.Log
	endCommand []string
	keep       []string
	attach     []wire.Attachment
	others     int
}

// admit checks what is common to Start and Adopt.
func (s *server) admit(a *admission, fds *descriptors) error {
	if err := errors.Join(validID(a.id), validOwner(a.owner)); err != nil {
		return err
	}
	if len(a.endCommand) > 0 {
		if err := validCommand(a.endCommand); err != nil {
			return err
		}
	}
	if err := validKept(a.keep); err != nil {
		return err
	}
	if p := s.procs[a.id]; p != nil {
		return fmt.Errorf("process %q: %w", a.id, errdefs.ErrAlreadyExists)
	}
	if s.stopping || s.upgrade != nil {
		return fmt.Errorf("the keeper is going down or being replaced: %w", errdefs.ErrUnavailable)
	}
	want := a.others + len(a.keep)
	for i := range a.attach {
		at := &a.attach[i]
		if !at.Stdout && !at.Stderr || at.Same && !(at.Stdout && at.Stderr) {
			return invalid(
				"attach[%d]: stdout %t, stderr %t, same %t", i, at.Stdout, at.Stderr, at.Same,
			)
		}
		want += at.FDs()
	}
	if len(*fds) != want {
		return invalid(
			"%d descriptors came with the request, want %d, %d of them for keep", len(*fds), want,
			len(a.keep),
		)
	}
	if a.log.Driver == wire.LogNone {
		return nil
	}
	cfg := logConfig(a.log)
	return cfg.Validate()
}

func logConfig(l *wire.Log) logwriter.Config {
	cfg := logwriter.Config{
		Format: logwriter.JSON{Attributes: l.Attributes}, Path: l.Path, MaxBytes: l.MaxBytes, MaxFiles: int(l.MaxFiles),
	}
	if l.Driver == wire.LogCRI {
		cfg.Format = logwriter.CRI{}
	}
	return cfg
}

// start begins a start; it is answered when the program has ended.
func (s *server) start(t ticket, m *wire.Start, fds *descriptors) error {
	others := 1 + len(m.Inputs)
	if m.Cgroup {
		others++
	}
	if err := s.admit(
		&admission{m.ID, m.Owner, &m.Log, m.EndCommand, m.Keep, m.Attach, others}, fds,
	); err != nil {
		return err
	}
	p := s.newProcess(m.ID, m.Kind)
	p.owner, p.endCommand = m.Owner, m.EndCommand
	p.note, p.hold, p.stdio, p.logCfg, p.waiter = m.Note, m.Hold, m.Stdio, m.Log, t
	j := &job{p: p, cgroup: -1, inputs: make(map[string]int, len(m.Inputs)+3), request: m}
	image := fds.take()
	err := j.takeInputs(fds)
	if err == nil {
		err = j.load(image)
	}
	unix.Close(image)
	if err == nil {
		p.kept, err = takeKept(m.Keep, fds)
	}
	if err == nil && m.Log.Driver != wire.LogNone {
		p.log, err = logwriter.Open(logConfig(&m.Log), &s.scratch)
	}
	if err == nil {
		err = j.makeStdio()
	}
	if err == nil {
		err = p.subscribeAll(
			m.Attach, fds, [2]bool{m.Stdio.Mode != wire.StdioNull, m.Stdio.Mode == wire.StdioPipes},
		)
	}
	if err != nil {
		j.close()
		p.release()
		return err
	}
	if s.cloning == 0 {
		if err := s.cfg.Protection.lift(); err != nil {
			j.close()
			p.release()
			return fmt.Errorf("oom_score_adj of the child: %w", err)
		}
	}
	s.procs[p.id] = p
	s.cloning++
	if j.image.CloneFlags() == 0 {
		// Without namespaces to make it takes no longer than waking a thread would.
		child, err := s.cloneImage(j)
		s.cloned(j, child, err)
		return nil
	}
	go func() {
		child, err := s.cloneImage(j)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cloned(j, child, err)
		s.poke()
	}()
	return nil
}

func (p *process) subscribeAll(list []wire.Attachment, fds *descriptors, open [2]bool) error {
	for i := range list {
		sub, err := p.subscribe(&list[i], fds)
		if err != nil {
			return fmt.Errorf("attach[%d]: %w", i, err)
		}
		p.begin(sub, list[i].Pending, open)
	}
	return nil
}

func (j *job) takeInputs(fds *descriptors) error {
	for i, name := range j.request.Inputs {
		if _, ok := j.inputs[name]; ok {
			return invalid("inputs[%d] %q: given twice", i, name)
		}
		j.inputs[name] = fds.take()
	}
	if j.request.Cgroup {
		j.cgroup = fds.take()
	}
	return nil
}

// makeStdio makes the process's pipes or terminal. What is an input already stays.
func (j *job) makeStdio() error {
	p := j.p
	if p.stdio.Mode == wire.StdioPipes {
		if err := j.pipe("stdin", 1, p.stdio.Stdin, func(fd int) error {
			p.stdin = fd
			return unix.SetNonblock(fd, true)
		}); err != nil {
			return err
		}
		for i, name := range []string{"stdout", "stderr"} {
			if err := j.pipe(
				name, 0, true, func(fd int) error { return p.addStream(i, fd) },
			); err != nil {
				return err
			}
		}
		return nil
	}
	if p.isTTY() {
		return j.makeTTY()
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if err := j.null(name, i > 0); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) null(name string, output bool) error {
	if _, ok := j.inputs[name]; ok {
		return nil
	}
	mode := unix.O_RDONLY
	if output {
		mode = unix.O_WRONLY
	}
	fd, err := unix.Open("/dev/null", mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	j.inputs[name] = fd
	return nil
}

// pipe makes a pipe, whose end ours goes to keep and whose other end is the input name.
func (j *job) pipe(name string, ours int, wanted bool, keep func(fd int) error) error {
	if _, ok := j.inputs[name]; ok {
		return nil
	}
	if !wanted {
		return j.null(name, ours == 0)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe for %s: %w", name, err)
	}
	j.inputs[name] = ends[1-ours]
	return keep(ends[ours])
}

// cloned goes on with a child that has been made, or has not.
func (s *server) cloned(j *job, child *spawn.Child, err error) {
	j.close()
	if s.cloning--; s.cloning == 0 {
		if err := s.cfg.Protection.restore(); err != nil {
			s.cfg.Logf("oom_score_adj: %v", err)
		}
	}
	p := j.p
	if err != nil {
		s.replyError(p.waiter, err)
		p.remove()
		return
	}
	p.child, p.pid, p.pidfd = child, child.Pid, child.PidFD
	if err := p.watchChild(); err != nil {
		// Without a watcher its end would not be seen.
		s.ignore(child.SyncFD())
		child.Kill()
		p.child, p.pidfd = nil, -1
		s.replyError(p.waiter, err)
		p.remove()
		return
	}
	if p.aborted || s.stopping {
		p.fail(errDied)
	}
	p.hear()
}

// load maps and checks the program.
func (j *job) load(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&wire.ImageSeals != wire.ImageSeals {
		return invalid("image: not a sealed memory file (seals %#x, %v)", seals, err)
	}
	if st.Size == 0 || st.Size > wire.MaxImage {
		return invalid("image: %d bytes, 1 to %d are allowed", st.Size, wire.MaxImage)
	}
	if j.memory, err = unix.Mmap(
		fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE,
	); err != nil {
		return fmt.Errorf("map the image: %w", err)
	}
	j.image, err = program.Parse(j.memory)
	return err
}

// cloneImage starts the program. It works on the job alone, with or without the lock.
func (s *server) cloneImage(j *job) (*spawn.Child, error) {
	r := j.request
	return s.machine.Start(&spawn.Request{
		Image: j.image, CgroupFD: j.cgroup, UIDMap: idMaps(r.UIDMap), GIDMap: idMaps(r.GIDMap),
		TimeOffsets: r.TimeOffsets,
		Input: func(name string) (int, error) {
			if fd, ok := j.inputs[name]; ok {
				return fd, nil
			}
			return -1, invalid("inputs: the program asks for %.200q, which is not given", name)
		},
	})
}

func idMaps(list []wire.IDMap) []spawn.IDMap {
	var out []spawn.IDMap
	for _, l := range list {
		out = append(out, spawn.IDMap(l))
	}
	return out
}
