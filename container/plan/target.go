package plan

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// targets are paths in the container's root, made where they are missing.
type targets struct {
	*files
	opt     *Options
	root    *rootfs
	cgroups *cgroups
	// fresh are the tmpfs mounts that this program makes: destination → descriptor.
	fresh table[string, program.Cell]
}

// entry is what a missing target is made as.
type entry int

const (
	aDirectory entry = iota
	likeSource       // a directory or a file, as the descriptor given as source is
)

// target returns a descriptor of a path in the container, made if it is missing. Symbolic links on
// the way are followed inside of the root, unless resolve forbids them.
func (p *targets) target(
	field, name string, kind entry, source program.Arg, resolve uint64,
) program.Cell {
	return p.targetOr(field, name, kind, source, resolve, func() {})
}

// inFresh returns the tmpfs that this program has just made in which a path lies.
func (p *targets) inFresh(name string) (program.Cell, bool) {
	return p.fresh.get(path.Dir(path.Clean("/" + name)))
}

// targetOr is target. What missing emits runs if a target was not there and has been made; a
// directory in a tmpfs that this program has just made always counts as one that was there.
func (p *targets) targetOr(
	field, name string, kind entry, source program.Arg, resolve uint64, missing func(),
) program.Cell {
	if dir, ok := p.inFresh(name); ok && kind == aDirectory {
		// A tmpfs that this program has just made: no other process has put anything there.
		base := p.Str(path.Base(name)).Ptr()
		p.Call(unix.SYS_MKDIRAT, dir.Value(), base, program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		return p.Call(
			unix.SYS_OPENAT, dir.Value(), base,
			program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result()
	}
	fd := p.Cell()
	ok, absent := p.Label(), p.Label()
	p.open(p.root.dir.Value(), name, unix.O_PATH, resolve).To(fd).Ignore(
		errnos(unix.ENOENT)...,
	).Else(absent)
	made := maker{field: field, resolve: resolve, waits: p.cgroups.waits()}
	p.outOfLine(field, func() {
		p.Place(absent)
		missing()
		p.make(&made, name, kind, source)
		p.openMade(&made, name, unix.O_PATH).To(fd)
		p.Goto(ok)
		p.dangling(&made, name, kind, source, func() {
			p.open(p.root.dir.Value(), name, unix.O_PATH, resolve).To(fd)
			p.Goto(ok)
		})
	})
	p.Place(ok)
	return fd
}

// maker is one path being made.
type maker struct {
	field   string
	resolve uint64
	// waits is what assist needs to know of the place in the program that asks for the path.
	waits int
	// stuck is reached when a name exists, and what it leads to does not.
	stuck program.Label
	used  bool
}

// openMade opens what has been made. If it is not there, a link of the image stands in its place
// that leads to nothing.
func (p *targets) openMade(m *maker, name string, flags uint64) program.CallRef {
	call := p.open(p.root.dir.Value(), name, flags, m.resolve)
	if !p.opt.Assist || m.resolve&unix.RESOLVE_NO_SYMLINKS != 0 {
		return call
	}
	if !m.used {
		m.stuck, m.used = p.Label(), true
	}
	return call.Ignore(errnos(unix.ENOENT)...).Else(m.stuck)
}

// dangling has the spawner make a path that leads through links to what does not exist: this
// program cannot read a link and go on from what it says. again is what opens the path then.
func (p *targets) dangling(
	m *maker, name string, kind entry, source program.Arg, again func(),
) {
	if !m.used {
		return
	}
	p.Place(m.stuck)
	a := Assist{Kind: MakeTarget, Field: m.field, Path: name, Continue: m.waits}
	about := source
	if kind == aDirectory {
		about = p.root.dir.Value() // which is one
	}
	p.assist(a, p.root.dir.Value(), about)
	again()
}

// make creates a path, one component after the other, each below a descriptor of its parent.
func (p *targets) make(m *maker, name string, kind entry, source program.Arg) {
	parts := strings.Split(relative(name), "/")
	parent := p.Cell()
	p.open(p.root.dir.Value(), ".", unix.O_PATH|unix.O_DIRECTORY, m.resolve).To(parent)
	for i, part := range parts {
		if i == len(parts)-1 && kind != aDirectory {
			p.makeLast(parent, part, kind, source)
			return
		}
		prefix := strings.Join(parts[:i+1], "/")
		there, missing := p.Label(), p.Label()
		next := p.Cell()
		p.open(p.root.dir.Value(), prefix, unix.O_PATH|unix.O_DIRECTORY, m.resolve).To(next).Ignore(
			errnos(unix.ENOENT)...,
		).Else(missing)
		p.Goto(there)
		p.Place(missing)
		p.Call(unix.SYS_MKDIRAT, parent.Value(), p.Str(part).Ptr(), program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		p.openMade(m, prefix, unix.O_PATH|unix.O_DIRECTORY).To(next)
		p.Place(there)
		parent = next
	}
}

func (p *targets) makeLast(parent program.Cell, name string, kind entry, source program.Arg) {
	done := p.Label()
	if kind == likeSource {
		file := p.Label()
		p.stat(source)
		p.ifType(program.NotEqual, unix.S_IFDIR, file)
		p.Call(unix.SYS_MKDIRAT, parent.Value(), p.Str(name).Ptr(), program.Num(0o755)).Ignore(
			errnos(unix.EEXIST)...,
		)
		p.Goto(done)
		p.Place(file)
	}
	// mknod(2) makes an empty regular file and never follows a link.
	p.Call(
		unix.SYS_MKNODAT, parent.Value(), p.Str(name).Ptr(), program.Num(unix.S_IFREG|0o644),
		program.Num(0),
	).Ignore(errnos(unix.EEXIST)...)
	p.Place(done)
}

// workingDirectory makes the working directory if the image lacks it, as docker and runc do.
func (p *targets) workingDirectory(cwd string) {
	if relative(cwd) == "." {
		return
	}
	p.Field("process.cwd")
	// Something else than a directory is reported by chdir, after the user is known.
	fd := p.Cell()
	ok, missing := p.Label(), p.Label()
	p.open(p.root.dir.Value(), cwd, unix.O_PATH, resolveInRoot).To(fd).Ignore(
		errnos(unix.ENOENT)...,
	).Else(missing)
	p.Place(ok)
	made := maker{field: "process.cwd", resolve: resolveInRoot, waits: p.cgroups.waits()}
	p.outOfLine("process.cwd", func() {
		p.Place(missing)
		p.make(&made, cwd, aDirectory, program.Num(0))
		p.Goto(ok)
		p.dangling(&made, cwd, aDirectory, program.Num(0), func() { p.Goto(ok) })
	})
}
