package plan

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// systemPaths are linux.maskedPaths and linux.readonlyPaths.
type systemPaths struct {
	*files
	linux *specs.Linux
	root  *rootfs
}

// protect hides linux.maskedPaths and protects linux.readonlyPaths. Paths that do not exist are
// left out.
func (p *systemPaths) protect() {
	p.readonly()
	p.mask()
}

// readonly stacks a read-only copy of each path on itself.
func (p *systemPaths) readonly() {
	for i, name := range p.linux.ReadonlyPaths {
		if repeated(p.linux.ReadonlyPaths, i) {
			continue
		}
		p.Fieldf("linux.readonlyPaths[%d] (%s)", i, name)
		skip := p.Label()
		fd := p.open(p.root.dir.Value(), name, unix.O_PATH, resolveInRoot).Ignore(
			errnos(unix.ENOENT, unix.ENOTDIR)...,
		).Else(skip).Result()
		tree := p.cloneTree(fd.Value(), true)
		p.setattr(tree.Value(), mountAttr{set: unix.MOUNT_ATTR_RDONLY}, true)
		p.attach(tree.Value(), fd.Value())
		p.Place(skip)
	}
}

// repeated says whether list[i] names the same path as one before it.
func repeated(list []string, i int) bool {
	return slices.ContainsFunc(list[:i], func(s string) bool {
		return relative(s) == relative(list[i])
	})
}

// mask puts an empty directory on directories and the host's null device on everything else.
// The null device is taken from the host's view and its inode is verified: a /dev/null of the image
// is never trusted (CVE-2025-31133).
func (p *systemPaths) mask() {
	list := p.linux.MaskedPaths
	if len(list) == 0 {
		return
	}
	p.Field("linux.maskedPaths (/dev/null)")
	null := p.Call(
		unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/dev/null").Ptr(),
		program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC),
	).Result()
	bad, good := p.Label(), p.Label()
	p.stat(null.Value())
	p.ifType(program.NotEqual, unix.S_IFCHR, bad)
	p.If(
		p.statx.Load(statxRdevMajor, 8), ^uint64(0), program.Equal, program.Num(uint64(1|3<<32)),
		good,
	)
	p.Place(bad)
	p.Fail(program.Num(uint64(unix.ENODEV)))
	p.Place(good)

	empty, attached := p.Cell(), p.Cell()
	for i, name := range list {
		if repeated(list, i) {
			continue
		}
		field := fmt.Sprintf("linux.maskedPaths[%d] (%s)", i, name)
		p.Field(field)
		skip, directory := p.Label(), p.Label()
		fd := p.open(p.root.dir.Value(), name, unix.O_PATH, resolveInRoot).Ignore(
			errnos(unix.ENOENT, unix.ENOTDIR)...,
		).Else(skip).Result()
		p.stat(fd.Value())
		p.ifType(program.Equal, unix.S_IFDIR, directory)
		p.attach(p.cloneTree(null.Value(), false).Value(), fd.Value())
		p.Place(skip)
		p.outOfLine(field, func() {
			p.Place(directory)
			again := p.Label()
			p.If(attached.Value(), ^uint64(0), program.NotEqual, program.Num(0), again)
			// One empty filesystem serves all: the first mask attaches it, the others attach
			// copies.
			mnt := p.emptyMount()
			p.Set(empty, mnt.Value(), program.Move, program.Num(0))
			p.Set(attached, program.Num(1), program.Move, program.Num(0))
			p.attach(empty.Value(), fd.Value())
			p.Goto(skip)
			p.Place(again)
			p.attach(p.cloneTree(empty.Value(), false).Value(), fd.Value())
			p.Goto(skip)
		})
	}
}
