package plan

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// files emits calls on files and mounts that are given by descriptor. Arguments that several calls
// have in common are in the program once.
type files struct {
	builder
	empty program.Buf // the empty path
	statx program.Buf // what the last stat saw
	hows  table[how, program.Buf]
	attrs table[mountAttr, program.Buf]
}

// how is struct open_how (openat2(2)).
type how struct{ flags, mode, resolve uint64 }

// mountAttr is struct mount_attr (mount_setattr(2)) without the user namespace.
type mountAttr struct{ set, clear, propagation uint64 }

// Offsets in struct statx.
const (
	statxMode      = 28
	statxRdevMajor = 128
)

const (
	resolveInRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	atFDCWD       = ^uint64(99) // AT_FDCWD, -100
)

func (p *files) how(h how) program.Buf {
	if b, ok := p.hows.get(h); ok {
		return b
	}
	b := p.Bytes(words(h.flags, h.mode, h.resolve))
	p.Note(b, program.OpenHowText(h.flags, h.resolve))
	p.hows.set(h, b)
	return b
}

func (p *files) attr(a mountAttr) program.Buf {
	if b, ok := p.attrs.get(a); ok {
		return b
	}
	b := p.Bytes(words(a.set, a.clear, a.propagation, 0))
	p.Note(b, program.MountAttrText(a.set, a.clear, a.propagation))
	p.attrs.set(a, b)
	return b
}

// open opens a path below the directory dir (usually the root of the container) without leaving it.
func (p *files) open(dir program.Arg, name string, flags, resolve uint64) program.CallRef {
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
func (p *files) stat(fd program.Arg) {
	p.Call(
		unix.SYS_STATX, fd, p.empty.Ptr(), program.Num(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW),
		program.Num(unix.STATX_TYPE|unix.STATX_MODE), p.statx.Ptr(),
	)
}

// ifType jumps to l if the last stat saw a file whose type compares to want.
func (p *files) ifType(cond program.Cond, want uint64, l program.Label) {
	p.If(p.statx.Load(statxMode, 2), unix.S_IFMT, cond, program.Num(want), l)
}

// refuseMagic fails if a descriptor is of a filesystem of one of some types (statfs(2)).
func (p *files) refuseMagic(fd program.Arg, magics ...uint64) {
	buf := p.Room(120) // struct statfs
	p.Call(unix.SYS_FSTATFS, fd, buf.Ptr())
	for _, magic := range magics {
		ok := p.Label()
		p.If(buf.Load(0, 8), ^uint64(0), program.NotEqual, program.Num(magic), ok)
		p.Fail(program.Num(uint64(unix.EPERM)))
		p.Place(ok)
	}
}

// attach puts a mount on a target.
func (p *files) attach(mnt, target program.Arg) {
	p.Call(
		unix.SYS_MOVE_MOUNT, mnt, p.empty.Ptr(), target, p.empty.Ptr(),
		program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH),
	)
}

// setattr changes the attributes of a mount given by a descriptor.
func (p *files) setattr(fd program.Arg, a mountAttr, recursive bool) program.CallRef {
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
func (p *files) cloneTree(fd program.Arg, recursive bool) program.Cell {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return p.Call(unix.SYS_OPEN_TREE, fd, p.empty.Ptr(), program.Num(flags)).Result()
}

// newMount makes a filesystem that is attached nowhere yet. more, if not nil, emits what else
// configures it.
func (p *files) newMount(
	fstype, source string, data []string, attr uint64, more func(fs program.Cell),
) program.Cell {
	fs := p.Call(unix.SYS_FSOPEN, p.Str(fstype).Ptr(), program.Num(unix.FSOPEN_CLOEXEC)).Result()
	p.fsconfig(fs, "source", source)
	for _, opt := range data {
		if slices.Contains(superOptions, opt) {
			p.fsconfigFlag(fs, opt)
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if ok {
			p.fsconfig(fs, key, value)
		} else {
			p.fsconfigFlag(fs, key)
		}
	}
	if more != nil {
		more(fs)
	}
	p.Call(
		unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_CMD_CREATE), program.Num(0),
		program.Num(0), program.Num(0),
	)
	return p.Call(
		unix.SYS_FSMOUNT, fs.Value(), program.Num(unix.FSMOUNT_CLOEXEC), program.Num(attr),
	).Result()
}

func (p *files) fsconfig(fs program.Cell, key, value string) {
	p.Call(
		unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_SET_STRING), p.Str(key).Ptr(),
		p.Str(value).Ptr(), program.Num(0),
	)
}

func (p *files) fsconfigFlag(fs program.Cell, key string) {
	p.Call(
		unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_SET_FLAG), p.Str(key).Ptr(),
		program.Num(0), program.Num(0),
	)
}

// emptyMount makes a filesystem in which there is nothing and nothing can be made.
func (p *files) emptyMount() program.Cell {
	return p.newMount(
		"tmpfs", "tmpfs", []string{"nr_blocks=1", "nr_inodes=1"},
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		nil,
	)
}
