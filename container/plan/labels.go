package plan

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// labels are those of Linux security modules.
type labels struct {
	*files
	opt    *Options
	proc   *specs.Process
	procfs *procfs
}

// apply asks for labels at execve. The file is reached through a procfs that is known to be one
// (CVE-2019-16884, CVE-2025-52881).
func (p *labels) apply() {
	if name := p.proc.ApparmorProfile; name != "" && name != "unconfined" {
		p.appArmor(name)
	}
	if label := p.proc.SelinuxLabel; label != "" {
		p.seLinux(label)
	}
}

func (p *labels) appArmor(profile string) {
	if !p.opt.Host.AppArmor {
		p.fail(invalid(
			"process.apparmorProfile", "%q asked for, but AppArmor is not enabled on this host",
			profile,
		))
		return
	}
	p.Fieldf("process.apparmorProfile (%s)", profile)
	text := "exec " + profile
	fd := p.Cell()
	old, write := p.Label(), p.Label()
	p.open(
		p.procfs.dir(), "self/attr/apparmor/exec", unix.O_WRONLY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
	).
		To(fd).Ignore(errnos(unix.ENOENT)...).Else(old)
	p.Place(write)
	p.Call(unix.SYS_WRITE, fd.Value(), p.Str(text).Ptr(), program.Num(len(text)))
	p.outOfLine("process.apparmorProfile", func() {
		p.Place(old) // before Linux 5.8
		p.open(
			p.procfs.dir(), "self/attr/exec", unix.O_WRONLY,
			unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS,
		).To(fd)
		p.Goto(write)
	})
}

func (p *labels) seLinux(label string) {
	if !p.opt.Host.SELinux {
		p.fail(invalid(
			"process.selinuxLabel", "%q asked for, but SELinux is not enabled on this host", label,
		))
		return
	}
	p.Fieldf("process.selinuxLabel (%s)", label)
	p.procfs.write("self/attr/exec", label)
}
