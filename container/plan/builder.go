package plan

import (
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// builder is what all parts of one plan share: the program so far, what that needs of its spawner,
// and the first error.
type builder struct {
	program.Builder
	out  Plan
	late []func() // code out of the line, emitted behind the execve
	err  error
}

func (p *builder) finish() (*Plan, error) {
	// What is emitted late may itself have something to emit late.
	for len(p.late) > 0 {
		f := p.late[0]
		p.late = p.late[1:]
		f()
	}
	if p.err != nil {
		return nil, p.err
	}
	prog, err := p.Build()
	if err != nil {
		return nil, err
	}
	p.out.Program = prog
	return &p.out, nil
}

func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// fail keeps the first error.
func (p *builder) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// outOfLine emits code behind the end of the program, reached by a jump only, so that the straight
// line is what usually happens.
func (p *builder) outOfLine(field string, f func()) {
	if p.late == nil {
		p.late = make([]func(), 0, 8)
	}
	p.late = append(p.late, func() {
		p.Field(field)
		f()
	})
}

// tree declares a mount source that the spawner opens.
func (p *builder) tree(t Tree) program.Arg {
	p.out.Trees = append(p.out.Trees, t)
	return p.Input(t.Name)
}

// assist emits the request for a.
func (p *builder) assist(a Assist, first, second program.Arg) {
	stage := uint32(program.StageAssist + len(p.out.Assists))
	p.out.Assists = append(p.out.Assists, a)
	sync := p.Input(program.InputSync)
	p.SendFD(sync, stage, first)
	p.SendFD(sync, stage, second)
	for range a.Continue {
		p.Await()
	}
}

// hooks makes the process stop at program.StageHooks until it is continued.
func (p *builder) hooks() {
	p.Field("hooks")
	p.Stage(program.StageHooks)
	p.Await()
}

func words(v ...uint64) []byte {
	b := make([]byte, 0, 8*len(v))
	for _, x := range v {
		b = append(
			b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24), byte(x>>32), byte(x>>40), byte(x>>48),
			byte(x>>56),
		)
	}
	return b
}

func errnos(list ...unix.Errno) []uint16 {
	out := make([]uint16, len(list))
	for i, x := range list {
		out[i] = uint16(x)
	}
	return out
}
