package plan

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestSchedulerRefused: where a group has some processors only, the refusal of a scheduler says that
// this may be the reason.
func TestSchedulerRefused(t *testing.T) {
	t.Parallel()
	for _, cpus := range []string{"", "0"} {
		s := base()
		s.Process.Scheduler = &specs.Scheduler{
			Policy: specs.SchedDeadline, Runtime: 42000, Deadline: 100000, Period: 1000000,
		}
		s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpus}}
		p, err := Init(s, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Len() {
			if p.Op(i).Nr != unix.SYS_SCHED_SETATTR {
				continue
			}
			text := Explain(p.Program, i, unix.EPERM).Error()
			const words = "process scheduler can't be used together with AllowedCPUs"
			if !strings.HasPrefix(text, "process.scheduler") ||
				strings.Contains(text, words) != (cpus != "") {
				t.Errorf("processors %q: %s", cpus, text)
			}
		}
	}
}

// TestRootPropagation: what the host mounts below a container's root reaches it if the configuration
// wants a slave, and only then.
func TestRootPropagation(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"": "{private}", "private": "{private}", "rprivate": "{private}", "shared": "{private}",
		"slave": "{slave}", "rslave": "{slave}",
	} {
		s := base()
		s.Linux.RootfsPropagation = name
		p, err := Init(s, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Len() {
			if op := p.Op(i); op.Field == "root.path" && op.Nr == unix.SYS_MOUNT_SETATTR {
				if text := p.Text(i); !strings.Contains(text, want) {
					t.Errorf("%q: %s, want %s", name, text, want)
				}
			}
		}
	}
}
