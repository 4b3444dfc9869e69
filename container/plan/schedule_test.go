package plan

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestDeadline: what the kernel refuses with a bare EINVAL is refused by the name of the value.
func TestDeadline(t *testing.T) {
	deadline := func(runtime, deadline, period uint64) *specs.Scheduler {
		return &specs.Scheduler{
			Policy: specs.SchedDeadline, Runtime: runtime, Deadline: deadline, Period: period,
		}
	}
	for _, c := range []struct {
		scheduler *specs.Scheduler
		want      string
	}{
		{deadline(1024, 1024, 0), ""},
		{deadline(10e6, 20e6, 20e6), ""},
		{deadline(0, 20e6, 20e6), "requires `runtime`"},
		{deadline(10e6, 0, 20e6), "requires `deadline`"},
		{deadline(30e6, 20e6, 40e6), "runtime (30000000) must be <= deadline (20000000)"},
		{deadline(10e6, 20e6, 19e6), "deadline (20000000) must be <= period (19000000)"},
		{
			deadline(1023, 2000, 0),
			"runtime (1023) must be between 1024 and 9223372036854775807",
		},
		{
			deadline(1024, 1<<63, 0),
			"deadline (9223372036854775808) must be between 1024 and 9223372036854775807",
		},
	} {
		s := base()
		s.Process.Scheduler = c.scheduler
		_, err := Init(s, Options{})
		prefix := "process.scheduler: sched_setattr: `SCHED_DEADLINE` " + c.want + ":"
		if c.want == "" && err != nil ||
			c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), prefix)) {
			t.Errorf("%+v: got %v, want %q", *c.scheduler, err, c.want)
		}
	}
}

// TestDomainnameTwice: two names for one namespace are an error, the same one twice is not.
func TestDomainnameTwice(t *testing.T) {
	for value, want := range map[string]string{
		"same":  "",
		"other": `linux.sysctl[kernel.domainname]: "other", but domainname is "same": `,
	} {
		s := base()
		s.Domainname = "same"
		s.Linux.Sysctl = map[string]string{"kernel.domainname": value}
		_, err := Init(s, Options{})
		if want == "" && err != nil || want != "" &&
			(err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", value, err, want)
		}
	}
}
