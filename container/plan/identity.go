package plan

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/capability"
	"strake/container/program"
)

// capabilities parses the five sets.
func (p *planner) capabilities(proc *specs.Process) capability.Sets {
	sets, ignored, err := capability.Parse(proc.Capabilities, p.opt.Host.LastCap)
	if err != nil {
		if p.err == nil {
			p.err = err
		}
		return sets
	}
	if len(ignored) > 0 {
		p.out.Warnings = append(
			p.out.Warnings,
			"process.capabilities: this kernel does not know "+strings.Join(ignored, ", "),
		)
	}
	// As runc: the kernel would refuse to raise these (capabilities(7), "Ambient").
	lacking := sets.Ambient &^ (sets.Inheritable & sets.Permitted)
	sets.Ambient &^= lacking
	for _, name := range lacking.Names() {
		p.out.Warnings = append(p.out.Warnings, fmt.Sprintf(
			"process.capabilities.ambient: can't raise ambient capability %s: "+
				"it is not both inheritable and permitted", name,
		))
	}
	return sets
}

func (p *planner) bounding(caps capability.Sets) {
	p.Field("process.capabilities.bounding")
	for c := 0; c <= p.opt.Host.LastCap; c++ {
		if caps.Bounding&(1<<c) == 0 {
			p.Call(
				unix.SYS_PRCTL, program.Num(unix.PR_CAPBSET_DROP), program.Num(c), program.Num(0),
				program.Num(0), program.Num(0),
			)
		}
	}
}

// identity becomes the user, keeping the permitted capabilities for what is left to do.
func (p *planner) identity(proc *specs.Process) {
	u := proc.User
	p.Field("process.user")
	keepCaps := func(on int) {
		p.Call(
			unix.SYS_PRCTL, program.Num(unix.PR_SET_KEEPCAPS), program.Num(on), program.Num(0),
			program.Num(0), program.Num(0),
		)
	}
	keepCaps(1)
	if len(u.AdditionalGids) > 0 {
		p.Field("process.user.additionalGids")
		groups := make([]byte, 0, 4*len(u.AdditionalGids))
		for _, g := range u.AdditionalGids {
			groups = binary.LittleEndian.AppendUint32(groups, g)
		}
		p.Call(unix.SYS_SETGROUPS, program.Num(len(u.AdditionalGids)), p.Bytes(groups).Ptr())
	} else {
		// Refused in a user namespace without setgroups, where there are none to lose.
		call := p.Call(unix.SYS_SETGROUPS, program.Num(0), program.Num(0))
		if p.userns {
			call.Ignore(errnos(unix.EPERM)...)
		}
	}
	p.Field("process.user.gid")
	p.Call(unix.SYS_SETRESGID, program.Num(u.GID), program.Num(u.GID), program.Num(u.GID))
	p.Field("process.user.uid")
	p.Call(unix.SYS_SETRESUID, program.Num(u.UID), program.Num(u.UID), program.Num(u.UID))
	p.Field("process.user")
	keepCaps(0)
}

// capset sets effective, permitted and inheritable (capset(2)).
func (p *planner) capset(c capability.Sets) {
	header := make([]byte, 8)
	binary.LittleEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	data := make([]byte, 24)
	for i := range 2 {
		shift := 32 * i
		binary.LittleEndian.PutUint32(data[12*i:], uint32(c.Effective>>shift))
		binary.LittleEndian.PutUint32(data[12*i+4:], uint32(c.Permitted>>shift))
		binary.LittleEndian.PutUint32(data[12*i+8:], uint32(c.Inheritable>>shift))
	}
	d := p.Bytes(data)
	p.Note(
		d,
		fmt.Sprintf(
			"{effective=%#x permitted=%#x inheritable=%#x}", uint64(c.Effective),
			uint64(c.Permitted), uint64(c.Inheritable),
		),
	)
	p.Call(unix.SYS_CAPSET, p.Bytes(header).Ptr(), d.Ptr())
}

func (p *planner) ambient(c capability.Sets) {
	if c.Ambient == 0 {
		return
	}
	p.Field("process.capabilities.ambient")
	for n := 0; n <= p.opt.Host.LastCap; n++ {
		if c.Ambient&(1<<n) != 0 {
			p.Call(
				unix.SYS_PRCTL, program.Num(unix.PR_CAP_AMBIENT),
				program.Num(unix.PR_CAP_AMBIENT_RAISE), program.Num(n), program.Num(0),
				program.Num(0),
			)
		}
	}
}

// ownPipes gives the pipes among the streams to the user that the process becomes, who could not
// open /dev/stdout otherwise, as runc and crun do. Files and terminals of the host keep their owner.
func (p *planner) ownPipes(proc *specs.Process) {
	if proc.Terminal || proc.User.UID == 0 {
		return
	}
	p.Field("process.user (standard streams)")
	for fd := range 3 {
		next := p.Label()
		p.Call(
			unix.SYS_STATX, program.Num(fd), p.empty.Ptr(), program.Num(unix.AT_EMPTY_PATH),
			program.Num(unix.STATX_TYPE), p.statx.Ptr(),
		).Ignore(errnos(unix.EBADF)...).Else(next)
		p.ifType(program.NotEqual, unix.S_IFIFO, next)
		p.Call(
			unix.SYS_FCHOWN, program.Num(fd), program.Num(proc.User.UID),
			program.Num(proc.User.GID),
		).Ignore(errnos(unix.EPERM, unix.EINVAL)...)
		p.Place(next)
	}
}
