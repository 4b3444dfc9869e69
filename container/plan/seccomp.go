package plan

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
	"strake/container/seccomp"
)

// filter is the seccomp filter that the process gets.
type filter struct {
	*builder
	opt   *Options
	linux *specs.Linux
}

// compile compiles the seccomp profile, if there is one.
func (p *filter) compile() *seccomp.Filter {
	if p.linux.Seccomp == nil {
		return nil
	}
	if p.opt.Filter != nil {
		return p.opt.Filter
	}
	f, err := seccomp.Compile(p.linux.Seccomp, seccomp.Options{})
	if err != nil {
		p.fail(err)
		return nil
	}
	return f
}

// install puts f in force. A new listener goes to who waits for the process.
func (p *filter) install(f *seccomp.Filter, start *start) {
	p.out.Filter = f
	p.Field("linux.seccomp")
	code := p.Bytes(f.Bytes())
	prog := p.Room(16) // struct sock_fprog
	p.Point(prog, 8, code)
	p.Note(prog, fmt.Sprintf("filter of %d instructions", len(f.Insns)))
	p.Poke16(prog, 0, uint16(len(f.Insns)))
	flags := uint64(f.Flags)
	if f.Notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	call := p.Call(
		unix.SYS_SECCOMP, program.Num(unix.SECCOMP_SET_MODE_FILTER), program.Num(flags), prog.Ptr(),
	)
	if f.Notify {
		p.SendFD(start.channel(), program.StageSeccomp, call.Result().Value())
	}
}
