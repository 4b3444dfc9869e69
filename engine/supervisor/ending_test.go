package supervisor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"strake/engine"
	"strake/task"
)

// watchTasks counts signals that are sent, and reported as sent, after the end of a task.
type watchTasks struct {
	task.Isolation
	sent, late, refused atomic.Int64

	mu    sync.Mutex
	tasks []task.Task // guarded by mu
}

func (w *watchTasks) Start(ctx context.Context, s *task.Spec) (task.Task, error) {
	t, err := w.Isolation.Start(ctx, s)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = append(w.tasks, t)
	return watchTask{t, w}, nil
}

type watchTask struct {
	task.Task
	w *watchTasks
}

func (t watchTask) Signal(sig syscall.Signal) error {
	ended := ended(t.Task)
	err := t.Task.Signal(sig)
	switch {
	case errdefs.IsFailedPrecondition(err):
		t.w.refused.Add(1)
	case err == nil:
		t.w.sent.Add(1)
		if ended {
			t.w.late.Add(1)
		}
	}
	return err
}

// Stops and kills race with ends that nobody asked for: none of them reports anything but that the
// container does not run, and no signal is sent after the end.
func TestStopRacesWithEnd(t *testing.T) {
	b := newBed(t)
	w := &watchTasks{}
	e := b.open(func(cfg *Config) { w.Isolation, cfg.Tasks = cfg.Tasks, w })
	const containers, rounds = 6, 8
	var work errgroup.Group
	for i := range containers {
		id, _, err := e.Create(t.Context(), engine.Spec{
			Name: fmt.Sprintf("box%d", i), Image: "box", Cmd: []string{"true"}, StopSignal: "SIGKILL",
		})
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() error {
			for range rounds {
				if err := raceWithEnd(t.Context(), e, id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d signals sent, %d refused", w.sent.Load(), w.refused.Load())
	if n := w.late.Load(); n > 0 {
		t.Errorf("%d signals were sent after the end", n)
	}
	for _, task := range w.tasks {
		if err := task.Signal(syscall.SIGTERM); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a signal to a task that has ended: %v", err)
		}
	}
}

// raceWithEnd starts a container and ends it in several ways at once while it ends by itself.
func raceWithEnd(ctx context.Context, e *Engine, id string) error {
	if err := e.Start(ctx, id); err != nil {
		return err
	}
	var race errgroup.Group
	for range 4 {
		for _, sig := range []string{"SIGTERM", "SIGUSR1", "SIGKILL"} {
			race.Go(func() error {
				err := e.Kill(ctx, id, sig)
				if err != nil && !(errdefs.IsConflict(err) &&
					strings.HasSuffix(err.Error(), "is not running")) {
					return fmt.Errorf("kill: %w", err)
				}
				return nil
			})
		}
	}
	race.Go(func() error {
		if err := e.Stop(ctx, id, "", nil); err != nil && !errdefs.IsNotModified(err) {
			return fmt.Errorf("stop: %w", err)
		}
		return nil
	})
	if err := race.Wait(); err != nil {
		return err
	}
	_, err := e.Wait(ctx, id, engine.WaitNotRunning, nil)
	return err
}
