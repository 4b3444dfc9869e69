package container

import (
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/container/program"
)

// debug reports a step to Runtime.Debug.
func (r *Runtime) debug(format string, args ...any) {
	if r.Debug != nil {
		r.Debug(format, args...)
	}
}

// debugPlan reports what a program is made of.
func (r *Runtime) debugPlan(p *plan.Plan) {
	if r.Debug == nil {
		return
	}
	r.Debug(
		"program of %d operations: namespaces %#x made, %d joined, %d mount sources opened",
		p.Len(), p.CloneFlags(), len(p.Namespaces), len(p.Trees),
	)
	for i := range p.Trees {
		r.Debug("%s: source %s opened", p.Trees[i].Field, p.Trees[i].Path)
	}
	if f := p.Filter; f != nil {
		flags := uint64(f.Flags)
		if f.Notify {
			flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		}
		r.Debug("seccomp filter flags: %d", flags)
		r.Debug("seccomp filter of %d instructions", len(f.Insns))
	}
}

// stageText says where a child is that has sent a stage.
func stageText(stage uint32) string {
	switch stage {
	case 0:
		return "executes"
	case program.StageForked:
		return "forked into the namespaces"
	case program.StageHooks:
		return "waits for hooks"
	case program.StageReady:
		return "ready to execute"
	}
	return "asks for help"
}
