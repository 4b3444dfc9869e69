package tasktest

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/task"
)

// TestFake: the fake passes the suite that real implementations pass.
func TestFake(t *testing.T) {
	t.Parallel()
	machines := map[string]*Machine{}
	process := func(args ...string) *specs.Process { return &specs.Process{Args: args} }
	Run(t, Config{
		Open: func(t *testing.T) (task.Isolation, func()) {
			m := machines[t.Name()]
			if m == nil {
				m = NewMachine()
				machines[t.Name()] = m
			}
			f := NewFake(m)
			return f, func() { f.Close() }
		},
		Spec: func(t *testing.T, id, script string) *task.Spec {
			return &task.Spec{
				ID: id, Config: &specs.Spec{Process: process("/bin/sh", "-c", script)},
			}
		},
		Missing: func(t *testing.T, id string) *task.Spec {
			return &task.Spec{ID: id, Config: &specs.Spec{Process: process("/bin/nonesuch")}}
		},
		Exec: func(t *testing.T, id, script string) *task.Exec {
			return &task.Exec{ID: id, Process: process("/bin/sh", "-c", script)}
		},
	})
}
