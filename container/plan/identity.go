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

// identity is the user that the process becomes, and its capabilities.
type identity struct {
	*builder
	opt        *Options
	proc       *specs.Process
	namespaces *namespaces
}

// capabilities parses the five sets.
func (p *identity) capabilities() capability.Sets {
	sets, ignored, err := capability.Parse(p.proc.Capabilities, p.opt.Host.LastCap)
	if err != nil {
		p.fail(err)
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

func (p *identity) bounding(caps capability.Sets) {
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

// become takes the identity of the user, keeping the permitted capabilities for what is left to do.
func (p *identity) become() {
	u := p.proc.User
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
		if p.namespaces.user {
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

func (p *identity) ambient(c capability.Sets) {
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

// capset sets effective, permitted and inheritable (capset(2)).
func capset(p *builder, c capability.Sets) {
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
