package plan

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// how is struct open_how (openat2(2)).
type how struct{ flags, mode, resolve uint64 }

// mountAttr is struct mount_attr (mount_setattr(2)) without the user namespace.
type mountAttr struct{ set, clear, propagation uint64 }

func (p *planner) how(h how) program.Buf {
	if b, ok := p.hows[h]; ok {
		return b
	}
	b := p.Bytes(words(h.flags, h.mode, h.resolve))
	p.Note(b, program.OpenHowText(h.flags, h.resolve))
	p.hows[h] = b
	return b
}

func (p *planner) attr(a mountAttr) program.Buf {
	if b, ok := p.attrs[a]; ok {
		return b
	}
	b := p.Bytes(words(a.set, a.clear, a.propagation, 0))
	p.Note(b, program.MountAttrText(a.set, a.clear, a.propagation))
	p.attrs[a] = b
	return b
}

// open opens a path below the directory dir (usually the root of the container) without leaving it.
func (p *planner) open(dir program.Arg, name string, flags, resolve uint64) program.CallRef {
	return p.Call(
		unix.SYS_OPENAT2, dir, p.Str(relative(name)).Ptr(),
		p.how(how{flags: flags | unix.O_CLOEXEC, resolve: resolve}).Ptr(), program.Num(24),
	)
}

// relative turns an absolute path into one for an openat-like call on the root.
func relative(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// stat fills the shared statx buffer from a descriptor.
func (p *planner) stat(fd program.Arg) {
	p.Call(
		unix.SYS_STATX, fd, p.empty.Ptr(), program.Num(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW),
		program.Num(unix.STATX_TYPE|unix.STATX_MODE), p.statx.Ptr(),
	)
}

// Offsets in struct statx.
const (
	statxMode      = 28
	statxRdevMajor = 128
	statxRdevMinor = 132
)

// ifType jumps to l if the last stat saw a file whose type compares to want.
func (p *planner) ifType(cond program.Cond, want uint64, l program.Label) {
	p.If(p.statx.Load(statxMode, 2), unix.S_IFMT, cond, program.Num(want), l)
}

// entry is what a missing target is made as.
type entry int

const (
	aDirectory entry = iota
	aFile
	likeSource // a directory or a file, as the descriptor given as source is
	mustExist
)

// target returns a descriptor of a path in the container, made if it is missing. Symbolic links on
// the way are followed inside of the root, unless resolve forbids them.
func (p *planner) target(
	field, name string, kind entry, source program.Arg, resolve uint64,
) program.Cell {
	return p.targetOr(field, name, kind, source, resolve, func() {})
}

// inFresh returns the tmpfs that this program has just made in which a path lies.
func (p *planner) inFresh(name string) (program.Cell, bool) {
	dir, ok := p.fresh[path.Dir(path.Clean("/"+name))]
	return dir, ok
}

// targetOr is target. What missing emits runs if a target was not there and has been made; a
// directory in a tmpfs that this program has just made always counts as one that was there.
func (p *planner) targetOr(
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
	ok := p.Label()
	call := p.open(p.root.Value(), name, unix.O_PATH, resolve).To(fd)
	if kind != mustExist {
		absent := p.Label()
		call.Ignore(errnos(unix.ENOENT)...).Else(absent)
		made := maker{field: field, resolve: resolve, waits: p.waits()}
		p.outOfLine(field, func() {
			p.Place(absent)
			missing()
			p.make(&made, name, kind, source)
			p.openMade(&made, name, unix.O_PATH).To(fd)
			p.Goto(ok)
			p.dangling(&made, name, kind, source, func() {
				p.open(p.root.Value(), name, unix.O_PATH, resolve).To(fd)
				p.Goto(ok)
			})
		})
	}
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
func (p *planner) openMade(m *maker, name string, flags uint64) program.CallRef {
	call := p.open(p.root.Value(), name, flags, m.resolve)
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
func (p *planner) dangling(
	m *maker, name string, kind entry, source program.Arg, again func(),
) {
	if !m.used {
		return
	}
	p.Place(m.stuck)
	a := Assist{Kind: MakeTarget, Field: m.field, Path: name, Continue: m.waits}
	about := source
	if kind == aDirectory {
		about = p.root.Value() // which is one
	}
	p.assist(a, p.root.Value(), about)
	again()
}

// make creates a path, one component after the other, each below a descriptor of its parent.
func (p *planner) make(m *maker, name string, kind entry, source program.Arg) {
	parts := strings.Split(relative(name), "/")
	parent := p.Cell()
	p.open(p.root.Value(), ".", unix.O_PATH|unix.O_DIRECTORY, m.resolve).To(parent)
	for i, part := range parts {
		if i == len(parts)-1 && kind != aDirectory {
			p.makeLast(parent, part, kind, source)
			return
		}
		prefix := strings.Join(parts[:i+1], "/")
		there, missing := p.Label(), p.Label()
		next := p.Cell()
		p.open(p.root.Value(), prefix, unix.O_PATH|unix.O_DIRECTORY, m.resolve).To(next).Ignore(
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

func (p *planner) makeLast(parent program.Cell, name string, kind entry, source program.Arg) {
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

// attach puts a mount on a target.
func (p *planner) attach(mnt, target program.Arg) {
	p.Call(
		unix.SYS_MOVE_MOUNT, mnt, p.empty.Ptr(), target, p.empty.Ptr(),
		program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH),
	)
}

// setattr changes the attributes of a mount given by a descriptor.
func (p *planner) setattr(fd program.Arg, a mountAttr, recursive bool) program.CallRef {
	flags := uint64(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return p.Call(
		unix.SYS_MOUNT_SETATTR, fd, p.empty.Ptr(), program.Num(flags), p.attr(a).Ptr(),
		program.Num(32),
	)
}

// cloneTree makes a detached copy of the mount (from the inode on) that fd refers to.
func (p *planner) cloneTree(fd program.Arg, recursive bool) program.Cell {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return p.Call(unix.SYS_OPEN_TREE, fd, p.empty.Ptr(), program.Num(flags)).Result()
}

// tree declares a mount source that the spawner opens.
func (p *planner) tree(t Tree) program.Arg {
	p.out.Trees = append(p.out.Trees, t)
	return p.Input(t.Name)
}
