package plan

import (
	"encoding/binary"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// scheduling is on which processors the process runs and in which order, and on which memory nodes
// it allocates.
type scheduling struct {
	*builder
	proc  *specs.Process
	linux *specs.Linux
	exec  bool // one more process of a container
}

// apply sets what the scheduler and the memory policy look at.
func (p *scheduling) apply() {
	p.resetAffinity()
	if s := p.proc.Scheduler; s != nil {
		p.Field("process.scheduler")
		if limitsCPUs(p.linux) {
			p.Field("process.scheduler" + withCPUs)
		}
		policy, flags, err := schedulerNumbers(s)
		if err != nil {
			p.fail(invalid("process.scheduler", "%v", err))
			return
		}
		attr := make([]byte, 48) // struct sched_attr (sched_setattr(2))
		binary.LittleEndian.PutUint32(attr, 48)
		binary.LittleEndian.PutUint32(attr[4:], policy)
		binary.LittleEndian.PutUint64(attr[8:], flags)
		binary.LittleEndian.PutUint32(attr[16:], uint32(s.Nice))
		binary.LittleEndian.PutUint32(attr[20:], uint32(s.Priority))
		binary.LittleEndian.PutUint64(attr[24:], s.Runtime)
		binary.LittleEndian.PutUint64(attr[32:], s.Deadline)
		binary.LittleEndian.PutUint64(attr[40:], s.Period)
		p.Call(unix.SYS_SCHED_SETATTR, program.Num(0), p.Bytes(attr).Ptr(), program.Num(0))
	}
	if io := p.proc.IOPriority; io != nil {
		p.Field("process.ioPriority")
		class, ok := map[specs.IOPriorityClass]int{
			specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
		}[io.Class]
		if !ok {
			p.fail(invalid(
				"process.ioPriority.class",
				"%q, want IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE", io.Class,
			))
			return
		}
		p.Call(
			unix.SYS_IOPRIO_SET, program.Num(1), program.Num(0), program.Num(class<<13|io.Priority),
		)
	}
	p.memoryPolicy()
	if per := p.linux.Personality; per != nil {
		p.Field("linux.personality")
		domain, ok := map[specs.LinuxPersonalityDomain]uint64{
			specs.PerLinux: 0, specs.PerLinux32: 8,
		}[per.Domain]
		if !ok || len(per.Flags) > 0 {
			p.fail(invalid(
				"linux.personality", "domain %q with flags %v, want LINUX or LINUX32 without flags",
				per.Domain, per.Flags,
			))
			return
		}
		p.Call(unix.SYS_PERSONALITY, program.Num(domain))
	}
}

// validateDeadline says what the kernel refuses about a deadline with a bare EINVAL (sched(7)).
func validateDeadline(s *specs.Scheduler) error {
	const least, most = 1024, 1<<63 - 1 // nanoseconds
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("sched_setattr: `SCHED_DEADLINE` "+format, args...)
	}
	if s.Runtime == 0 {
		return refuse("requires `runtime`")
	}
	if s.Deadline == 0 {
		return refuse("requires `deadline`")
	}
	if s.Runtime > s.Deadline {
		return refuse("runtime (%d) must be <= deadline (%d)", s.Runtime, s.Deadline)
	}
	if s.Period != 0 && s.Deadline > s.Period { // the period is the deadline if it is not given
		return refuse("deadline (%d) must be <= period (%d)", s.Deadline, s.Period)
	}
	for _, v := range []struct {
		name  string
		nanos uint64
	}{{"runtime", s.Runtime}, {"deadline", s.Deadline}, {"period", s.Period}} {
		if v.nanos != 0 && v.nanos < least || v.nanos > most {
			return refuse(
				"%s (%d) must be between %d and %d", v.name, v.nanos, least, uint64(most),
			)
		}
	}
	return nil
}

func schedulerNumbers(s *specs.Scheduler) (policy uint32, flags uint64, err error) {
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3,
		specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return 0, 0, fmt.Errorf("policy %q is unknown", s.Policy)
	}
	if s.Policy == specs.SchedDeadline {
		if err := validateDeadline(s); err != nil {
			return 0, 0, err
		}
	}
	known := map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4,
		specs.SchedFlagKeepPolicy: 8,
		specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32,
		specs.SchedFlagUtilClampMax: 64,
	}
	for _, f := range s.Flags {
		bit, ok := known[f]
		if !ok {
			return 0, 0, fmt.Errorf("flag %q is unknown", f)
		}
		flags |= bit
	}
	return policy, flags, nil
}

// withCPUs is part of the field that an error names, where the scheduler may be at odds with the
// processors.
const withCPUs = " (with linux.resources.cpu.cpus)"

// limitsCPUs says whether the group has not all processors, which deadline scheduling needs
// (sched_setattr(2), EPERM).
func limitsCPUs(l *specs.Linux) bool {
	return l.Resources != nil && l.Resources.CPU != nil && l.Resources.CPU.Cpus != ""
}
