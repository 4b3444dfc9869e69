package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/spawn"
	"strake/keeper/logwriter"
	"strake/keeper/wire"
)

// Config says how a keeper runs.
type Config struct {
	// Listener is a listening SOCK_SEQPACKET socket. Serve closes it.
	Listener int
	// StateDir holds the journal and the files of slow subscribers. It exists, belongs to this
	// keeper alone, and should be on a disk.
	StateDir string
	// Successor is the command line, and Environ the environment, with which an upgrade is
	// executed. "--resume", "N" is appended, where N is a descriptor with the state; before that
	// the same with "--check", "N" is asked whether it can take over. Empty: upgrades are refused.
	Successor, Environ []string
	// SpillBytes is how much may wait on disk for one subscriber; 0 for 64 MiB.
	SpillBytes int64
	// Resume is a descriptor with the state of the program that this one replaces, or -1; Listener
	// is part of it then.
	Resume int
	// Protection keeps the keeper from being killed for want of memory, while its children start
	// with the score that it had itself.
	Protection Protection
	// Linger is how long the keeper waits for a client while nothing runs, before it ends; 0 for 5
	// seconds, in which an engine that was restarted is back.
	Linger time.Duration
	// Terminate asks the keeper to end if no process runs; nil for never.
	Terminate <-chan os.Signal
	// Logf receives what an operator should know, a line each.
	Logf func(format string, args ...any)
}

const (
	defaultSpill  = 64 << 20
	defaultLinger = 5 * time.Second
	// headroom in front of the buffer for output takes the header of a framed subscription.
	headroom = 8
	// outputSize is how much is read from a stream at once: what a pipe holds.
	outputSize = 64 << 10
	// tick is how often pending matters are looked at, if there are any.
	tick = 50 * time.Millisecond
	// lastWords is how long a keeper that ends waits for the client that has asked for it to take
	// the events and the answer.
	lastWords = 2 * time.Second
	// rest is how long after the last event memory is given back.
	rest = 5 * time.Second
)

// wakeUp is what is written to an eventfd(2).
var wakeUp = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// errStop ends Serve without an error.
var errStop = errors.New("stop")

type server struct {
	*loop
	cfg     Config
	machine *spawn.Machine
	started time.Time
	wake    int // eventfd
	lock    int // file that says whose the state directory is

	mu       sync.Mutex // guards everything below, and loop.watchers
	custody  custody
	procs    map[string]*process
	conns    map[int]*conn // by descriptor
	commands commands
	flight   *flight
	output   []byte // from a subscriber's file; used within one handler only
	packet   []byte
	oob      []byte
	scratch  logwriter.Scratch
	lastSub  uint64
	upgrades uint32
	cloning  int                   // goroutines that clone
	pending  map[*process]struct{} // adopted ones whose status is awaited
	stalled  map[*conn]struct{}    // to be retried at the next tick
	stopping bool                  // a forced shutdown waits for the last process
	askers   []ticket              // who waits for it
	upgrade  *upgrade              // waits for the end of cloning
	lonely   time.Time             // since when nothing needs it; zero if something does
	stop     error                 // why the loop ends
}

// Serve runs a keeper until ctx ends (its processes go on without it) or a client shuts it down,
// which is no error. It takes over the process: close-on-exec descriptors, its children and their
// SIGCHLD.
func Serve(ctx context.Context, cfg Config) error {
	s, err := newServer(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

func newServer(cfg Config) (s *server, err error) {
	if cfg.SpillBytes <= 0 {
		cfg.SpillBytes = defaultSpill
	}
	if cfg.Linger <= 0 {
		cfg.Linger = defaultLinger
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	s = &server{
		cfg: cfg, started: time.Now(), wake: -1, lock: -1,
		procs: make(map[string]*process), conns: make(map[int]*conn),
		pending: make(map[*process]struct{}), stalled: make(map[*conn]struct{}),
		packet: make([]byte, wire.MaxMessage),
		oob:    make([]byte, unix.CmsgSpace(4*wire.MaxFDs)),
	}
	if s.loop, err = newLoop(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if s.machine, err = spawn.New(); err != nil {
		return nil, err
	}
	if cfg.Resume < 0 { // else it is locked already
		if s.lock, err = lockDir(cfg.StateDir); err != nil {
			return nil, err
		}
	}
	s.commands.s = s
	s.custody = custody{
		loop: s.loop, machine: s.machine, logf: cfg.Logf, score: cfg.Protection.guardScore(),
		procs: s.procs, missing: make(map[*process]struct{}),
	}
	if s.custody.journal, err = openJournal(cfg.StateDir); err != nil {
		return nil, err
	}
	s.custody.lock = s.lock
	if cfg.Resume < 0 {
		err = recoverProcesses(s)
	} else if err = s.resume(cfg.Resume); err != nil {
		err = fmt.Errorf("take over: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if err = unix.SetNonblock(s.cfg.Listener, true); err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	return s, s.watch(s.cfg.Listener, unix.EPOLLIN, s.accept)
}

func (s *server) close() {
	for _, c := range s.conns {
		c.close()
	}
	for _, p := range s.procs {
		p.release()
		for _, sub := range p.subs {
			sub.drop()
		}
	}
	if s.stop == errStop {
		s.custody.shutdown()
	}
	s.custody.close()
	if s.flight != nil {
		s.flight.close()
	}
	if s.machine != nil {
		s.machine.Close()
	}
	closeAll([]int{s.cfg.Listener, s.wake, s.lock, s.ep})
}

func (s *server) run(ctx context.Context) error {
	// The callback can run before or after the loop has ended, but not after the descriptor is
	// closed.
	var waking sync.WaitGroup
	waking.Add(1)
	release := context.AfterFunc(ctx, func() {
		defer waking.Done()
		unix.Write(s.wake, wakeUp)
	})
	defer func() {
		if release() {
			waking.Done()
		}
		waking.Wait()
	}()
	over := make(chan struct{})
	waking.Go(func() { s.terminate(over) })
	defer close(over) // before waking.Wait
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.watch(
		s.wake, unix.EPOLLIN, func(uint32) { unix.Read(s.wake, make([]byte, 8)) },
	); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 128)
	resting := false
	for s.stop == nil {
		timeout := s.timeout(resting)
		s.mu.Unlock()
		n, err := s.wait(events, timeout)
		s.mu.Lock()
		if err != nil {
			return err
		}
		s.dispatch(events[:n])
		s.retry()
		if n == 0 || s.custody.urgent {
			s.custody.flush()
		}
		if s.upgrade != nil && s.cloning == 0 {
			s.advanceUpgrade()
		}
		if s.stopping && len(s.live()) == 0 {
			s.stop = errStop
		}
		now := time.Now()
		s.commands.advance(now)
		s.linger(now)
		if s.stop == nil {
			s.stop = context.Cause(ctx)
		}
		if resting = n == 0 && timeout == rest; resting {
			debug.FreeOSMemory()
		}
	}
	// A child that is being cloned now must still become known, or it would be left behind.
	for s.cloning > 0 {
		s.mu.Unlock()
		_, err := s.wait(events[:1], tick)
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	if s.stop == errStop {
		for _, t := range s.askers {
			s.reply(t, &wire.Empty{T: wire.TypeOK})
			if t.c != nil {
				t.c.finish(lastWords)
			}
		}
		return nil
	}
	return s.stop
}

// timeout is how long the loop may wait for an event; resting says that memory was given back since
// the last one.
func (s *server) timeout(resting bool) time.Duration {
	switch {
	case len(s.pending)+len(s.stalled) > 0 || s.commands.waits():
		return tick
	case len(s.custody.missing)+len(s.custody.closing) > 0:
		return custodyPause
	case !s.lonely.IsZero():
		return max(s.cfg.Linger-time.Since(s.lonely), time.Millisecond)
	case resting:
		return -1
	}
	return rest
}

// linger ends the keeper when for some time there has been neither a client nor a process, nor
// output that comes after the end of one, nor an end command that has not ended, nor a descriptor
// that is kept. Exits that were not forgotten are in the state directory by then.
func (s *server) linger(now time.Time) {
	switch {
	case s.busy():
		s.lonely = time.Time{}
	case s.lonely.IsZero():
		s.lonely = now
	case now.Sub(s.lonely) >= s.cfg.Linger && s.stop == nil:
		// From here on a client is refused, and starts the next keeper. One that has just connected
		// loses its connection, and finds that out when it connects again.
		unix.Shutdown(s.cfg.Listener, unix.SHUT_RD)
		s.stop = errStop
	}
}

// busy says that there is something to be there for.
func (s *server) busy() bool {
	if len(s.conns)+len(s.pending)+s.cloning > 0 || s.upgrade != nil || s.commands.pending() {
		return true
	}
	for _, p := range s.procs {
		if p.state != wire.Exited || !p.streamsClosed() || len(p.kept) > 0 {
			return true
		}
	}
	return false
}

// terminate waits for signals until the loop is over.
func (s *server) terminate(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case sig := <-s.cfg.Terminate:
			s.mu.Lock()
			if live := s.live(); len(live) > 0 {
				s.cfg.Logf("signal %v: not now, %d processes run", sig, len(live))
			} else if s.commands.pending() {
				s.cfg.Logf("signal %v: not now, end commands run", sig)
			} else if s.stop == nil {
				s.stop = errStop
				s.poke()
			}
			s.mu.Unlock()
		}
	}
}

// poke makes the loop look at what it decides between events.
func (s *server) poke() {
	if s.upgrade != nil || s.stopping || s.stop != nil || len(s.stalled) > 0 {
		unix.Write(s.wake, wakeUp)
	}
}

// retry looks at what no event tells of.
func (s *server) retry() {
	for p := range s.pending {
		p.askStatus()
	}
	s.custody.renew()
	for _, c := range slices.Collect(maps.Keys(s.stalled)) {
		delete(s.stalled, c)
		c.flush()
	}
}

// broadcast sends an event to every connection that has asked for events.
func (s *server) broadcast(b wire.Body) {
	for _, c := range s.conns {
		if c.events {
			c.send(0, b, nil)
		}
	}
}
