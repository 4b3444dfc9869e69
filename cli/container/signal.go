package container

import (
	"context"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"strake/cli/command"
	"strake/cli/terminal"
)

// forwarded are the signals that people and supervisors send to a command. Those that the kernel
// sends because of something the command itself did, and those of job control, stay its own.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1,
		syscall.SIGUSR2,
	}
}

// signals handles those of a command in the foreground: before the container runs they end the
// command, later they are passed on, or, without a proxy, end the command in order, with its
// terminal restored. The third interrupt ends it in any case.
type signals struct {
	s      *command.Session
	proxy  bool
	cancel context.CancelFunc
	c      chan os.Signal
	done   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	id     string          // guarded by mu; set while the container runs
	ctx    context.Context // guarded by mu; of the requests that pass signals on
	fatal  syscall.Signal  // guarded by mu; the one that ended the command
	stopOn sync.Once
}

// watch begins to handle signals. The caller calls stop.
func watch(s *command.Session, proxy bool, cancel context.CancelFunc) *signals {
	w := &signals{
		s: s, proxy: proxy, cancel: cancel, c: make(chan os.Signal, 16), done: make(chan struct{}),
	}
	s.Notify(w.c, forwarded()...)
	w.wg.Go(w.loop)
	return w
}

// begin says that the container runs.
func (w *signals) begin(ctx context.Context, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id, w.ctx = id, ctx
}

func (w *signals) stop() {
	w.stopOn.Do(func() {
		w.s.StopNotify(w.c)
		close(w.done)
		w.cancel()
		w.wg.Wait()
	})
}

func (w *signals) loop() {
	interrupts := 0
	for {
		var sig syscall.Signal
		select {
		case got := <-w.c:
			sig = got.(syscall.Signal)
		case <-w.done:
			return
		}
		if sig == syscall.SIGINT || sig == syscall.SIGTERM {
			interrupts++
		}
		w.mu.Lock()
		id, ctx := w.id, w.ctx
		end := id == "" || !w.proxy || interrupts >= 3
		if end && w.fatal == 0 {
			w.fatal = sig
		}
		w.mu.Unlock()
		if end {
			w.cancel()
			continue
		}
		// A container that has ended in this moment needs no signal; its exit is on the way.
		w.wg.Go(func() {
			w.s.Post(ctx, path(id, "kill"), command.Query("signal", signalName(sig)), nil, nil)
		})
	}
}

// or returns the exit by the signal that ended the command, if one did, else err. It may be called
// on nil.
func (w *signals) or(err error) error {
	if w == nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fatal != 0 {
		return &command.StatusError{Code: 128 + int(w.fatal)}
	}
	return err
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig))
}

// signalNames are those of kill(1), for completion.
func signalNames() []string {
	var names []string
	for n := syscall.Signal(1); n <= 31; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// follow keeps the size of a container's terminal that of this one, from now until stop is called.
func follow(ctx context.Context, s *command.Session, resize string) (stop func()) {
	if !command.IsTerminal(s.Out) {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	s.Notify(changed, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if columns, rows, ok := terminal.Size(s.Out); ok {
				// The process may have ended; the next thing to be heard is its exit.
				s.Post(
					ctx, resize, command.Query("h", strconv.Itoa(rows), "w", strconv.Itoa(columns)),
					nil, nil,
				)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		s.StopNotify(changed)
		cancel()
		wg.Wait()
	}
}
