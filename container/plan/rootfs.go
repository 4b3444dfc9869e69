package plan

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// rootfs is the container's root in its own view of the host, and in the end the process's root.
type rootfs struct {
	*files
	spec       *specs.Spec
	opt        *Options
	namespaces *namespaces
	dir        program.Cell
}

// propagations maps mount options and linux.rootfsPropagation to propagation types
// (mount_namespaces(7)).
var propagations = table[string, propagation]{
	{"private", propagation{unix.MS_PRIVATE, false}},
	{"rprivate", propagation{unix.MS_PRIVATE, true}},
	{"slave", propagation{unix.MS_SLAVE, false}}, {"rslave", propagation{unix.MS_SLAVE, true}},
	{"shared", propagation{unix.MS_SHARED, false}}, {"rshared", propagation{unix.MS_SHARED, true}},
	{"unbindable", propagation{unix.MS_UNBINDABLE, false}},
	{"runbindable", propagation{unix.MS_UNBINDABLE, true}},
}

type propagation struct {
	flag      uint64
	recursive bool
}

// overlayPage is how much mount(2) takes as options.
const overlayPage = 4096

// overlayFixed keeps a layer readable without the kernel's help, whatever the defaults of this
// host: what a container changes is in its upper directory in whole files under their own names,
// and the directory can be mounted again.
const overlayFixed = ",index=off,redirect_dir=off,metacopy=off"

// mount makes the container's root appear in its own view of the host, without yet changing to it.
func (p *rootfs) mount() {
	p.Field("linux.rootfsPropagation")
	// Nothing that is mounted from here on reaches the host; what the host mounts reaches
	// containers that ask for it.
	host := uint64(unix.MS_SLAVE)
	if prop, ok := propagations.get(p.spec.Linux.RootfsPropagation); ok &&
		prop.flag == unix.MS_PRIVATE {
		host = unix.MS_PRIVATE
	}
	p.Call(
		unix.SYS_MOUNT, program.Num(0), p.Str("/").Ptr(), program.Num(0),
		program.Num(unix.MS_REC|host), program.Num(0),
	)

	if o := p.opt.Overlay; o != nil {
		p.Fieldf("root (overlay on %s)", o.Target)
		p.overlay(o)
		return
	}
	p.Field("root.path")
	tree := p.tree(Tree{Name: "root", Field: "root.path", Path: p.spec.Root.Path, Recursive: true})
	own := uint64(unix.MS_PRIVATE)
	if prop, ok := propagations.get(p.spec.Linux.RootfsPropagation); ok &&
		prop.flag == unix.MS_SLAVE {
		own = unix.MS_SLAVE // what the host mounts below the root shows in the container
	}
	p.setattr(tree, mountAttr{propagation: own}, true)
	// The tree is attached on the directory that it was made from, found again by its own path of
	// the host.
	p.Call(
		unix.SYS_MOVE_MOUNT, tree, p.empty.Ptr(), program.Num(atFDCWD),
		p.Str(p.spec.Root.Path).Ptr(),
		program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS),
	)
	p.dir = p.Cell()
	p.Set(p.dir, tree, program.Move, program.Num(0))
}

func (p *rootfs) overlay(o *Overlay) {
	options, short := p.overlayOptions(o.Lower, o.Upper, o.Work, o.Volatile), true
	if len(options) >= overlayPage ||
		strings.ContainsAny(strings.Join(o.Lower, "")+o.Upper+o.Work, `,:\`) {
		// Layers that lie beside each other have short names from there, and the separators of
		// options are in what they share.
		dir, names := shared(append([]string{o.Upper, o.Work}, o.Lower...))
		options = p.overlayOptions(names[2:], names[0], names[1], o.Volatile)
		if short = len(options) < overlayPage; short {
			p.Call(unix.SYS_CHDIR, p.Str(dir).Ptr())
		}
	}
	flags := uint64(0)
	if o.Upper == "" {
		flags = unix.MS_RDONLY
	}
	target := p.Str(o.Target).Ptr()
	if short {
		p.Call(
			unix.SYS_MOUNT, p.Str("overlay").Ptr(), target, p.Str("overlay").Ptr(),
			program.Num(flags), p.Str(options).Ptr(),
		)
		p.dir = p.Call(
			unix.SYS_OPENAT, program.Num(atFDCWD), target,
			program.Num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result()
		return
	}
	// One by one there is no limit, but that wants Linux 6.7.
	fs := p.Call(unix.SYS_FSOPEN, p.Str("overlay").Ptr(), program.Num(unix.FSOPEN_CLOEXEC)).Result()
	for _, dir := range o.Lower {
		p.fsconfig(fs, "lowerdir+", dir)
	}
	if o.Upper != "" {
		p.fsconfig(fs, "upperdir", o.Upper)
		p.fsconfig(fs, "workdir", o.Work)
	}
	if o.Upper != "" && o.Volatile {
		p.fsconfigFlag(fs, "volatile")
	}
	if p.namespaces.user {
		p.fsconfigFlag(fs, "userxattr")
	} else {
		for option := range strings.SplitSeq(overlayFixed[1:], ",") {
			key, value, _ := strings.Cut(option, "=")
			p.fsconfig(fs, key, value)
		}
	}
	p.Call(
		unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_CMD_CREATE), program.Num(0),
		program.Num(0), program.Num(0),
	)
	attrs := uint64(0)
	if o.Upper == "" {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	p.dir = p.Call(
		unix.SYS_FSMOUNT, fs.Value(), program.Num(unix.FSMOUNT_CLOEXEC), program.Num(attrs),
	).Result()
	p.Call(
		unix.SYS_MOVE_MOUNT, p.dir.Value(), p.empty.Ptr(), program.Num(atFDCWD), target,
		program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH),
	)
}

func (p *rootfs) overlayOptions(lower []string, upper, work string, volatile bool) string {
	options := "lowerdir=" + strings.Join(lower, ":")
	if upper != "" {
		options += ",upperdir=" + upper + ",workdir=" + work
		if volatile {
			options += ",volatile"
		}
	}
	if p.namespaces.user {
		return options + ",userxattr" // which implies overlayFixed
	}
	return options + overlayFixed
}

// shared splits absolute paths into the directory that all of them are below, and their names from
// there. Empty ones stay empty.
func shared(paths []string) (dir string, names []string) {
	for _, path := range paths {
		if path == "" {
			continue
		}
		parent := path[:strings.LastIndexByte(path, '/')+1]
		if dir == "" {
			dir = parent
		}
		for !strings.HasPrefix(parent, dir) {
			dir = dir[:strings.LastIndexByte(dir[:len(dir)-1], '/')+1]
		}
	}
	for _, path := range paths {
		names = append(names, strings.TrimPrefix(path, dir))
	}
	return dir, names
}

// pivot makes the container's root the process's root and lets go of the host's.
func (p *rootfs) pivot() {
	p.Field("root")
	here := p.Str(".").Ptr()
	p.Call(unix.SYS_FCHDIR, p.dir.Value())
	if p.opt.NoPivot {
		p.hideWhole()
		p.Call(
			unix.SYS_MOUNT, here, p.Str("/").Ptr(), program.Num(0), program.Num(unix.MS_MOVE),
			program.Num(0),
		)
		p.Call(unix.SYS_CHROOT, here)
		p.Call(unix.SYS_CHDIR, p.Str("/").Ptr())
		return
	}
	// pivot_root(2), NOTES: with both paths ".", the old root is stacked on the new one and
	// unmounted from there.
	p.Call(unix.SYS_PIVOT_ROOT, here, here)
	p.Call(unix.SYS_UMOUNT2, here, program.Num(unix.MNT_DETACH))
	p.Call(unix.SYS_CHDIR, p.Str("/").Ptr())
}

// hideWhole takes the host's procfs and sysfs out of the container's view, in which the host's
// mounts stay without pivot_root(2). As long as one is there that nothing covers, the kernel lets a
// user namespace of the container's mount another one (mount_too_revealing, fs/namespace.c), past
// maskedPaths and readonlyPaths. What a new user namespace may not unmount is covered.
func (p *rootfs) hideWhole() {
	for _, place := range slices.Backward(p.opt.Host.Whole) {
		at, covered, next := p.Str(place).Ptr(), p.Label(), p.Label()
		p.Call(unix.SYS_UMOUNT2, at, program.Num(unix.MNT_DETACH)).Ignore(
			errnos(unix.EINVAL, unix.EPERM)...,
		).Else(covered)
		p.Place(next)
		p.outOfLine("root", func() {
			p.Place(covered)
			tmpfs := p.Str("tmpfs").Ptr()
			p.Call(
				unix.SYS_MOUNT, tmpfs, at, tmpfs, program.Num(unix.MS_RDONLY), program.Num(0),
			)
			p.Goto(next)
		})
	}
}

// attributes are set last, when nothing needs to be created in the root any more.
func (p *rootfs) attributes() {
	if name := p.spec.Linux.RootfsPropagation; name != "" {
		prop, _ := propagations.get(name)
		p.Field("linux.rootfsPropagation")
		p.setattr(p.dir.Value(), mountAttr{propagation: prop.flag}, prop.recursive)
	}
	if p.spec.Root.Readonly {
		p.Field("root.readonly")
		p.setattr(p.dir.Value(), mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	}
}

// mountEmpty makes a root in which there is nothing, in the mount namespace that the process was
// born in.
func (p *rootfs) mountEmpty() {
	p.Field("root (empty)")
	// What is mounted and unmounted here does not reach the host.
	p.Call(
		unix.SYS_MOUNT, program.Num(0), p.Str("/").Ptr(), program.Num(0),
		program.Num(unix.MS_REC|unix.MS_PRIVATE), program.Num(0),
	)
	p.dir = p.emptyMount()
	// The mount point may be any directory that every host has: it disappears with the host's root.
	p.Call(
		unix.SYS_MOVE_MOUNT, p.dir.Value(), p.empty.Ptr(), program.Num(atFDCWD),
		p.Str("/proc").Ptr(), program.Num(unix.MOVE_MOUNT_F_EMPTY_PATH),
	)
}

// current takes the root of the namespace that was joined.
func (p *rootfs) current() {
	p.dir = p.Call(
		unix.SYS_OPENAT, program.Num(atFDCWD), p.Str("/").Ptr(),
		program.Num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC),
	).Result()
}
