package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/program"
)

// mounts are the ones of the configuration.
type mounts struct {
	*files
	spec       *specs.Spec
	opt        *Options
	namespaces *namespaces
	cgroups    *cgroups
	procfs     *procfs
	root       *rootfs
	targets    *targets
	// readonly are mounts that become read-only when everything is made.
	readonly []readonly
}

// attrOptions are the mount options that are attributes of one mount (mount_setattr(2)).
var attrOptions = table[string, mountAttr]{
	{"ro", mountAttr{set: unix.MOUNT_ATTR_RDONLY}},
	{"rw", mountAttr{clear: unix.MOUNT_ATTR_RDONLY}},
	{"nosuid", mountAttr{set: unix.MOUNT_ATTR_NOSUID}},
	{"suid", mountAttr{clear: unix.MOUNT_ATTR_NOSUID}},
	{"nodev", mountAttr{set: unix.MOUNT_ATTR_NODEV}},
	{"dev", mountAttr{clear: unix.MOUNT_ATTR_NODEV}},
	{"noexec", mountAttr{set: unix.MOUNT_ATTR_NOEXEC}},
	{"exec", mountAttr{clear: unix.MOUNT_ATTR_NOEXEC}},
	{"nodiratime", mountAttr{set: unix.MOUNT_ATTR_NODIRATIME}},
	{"diratime", mountAttr{clear: unix.MOUNT_ATTR_NODIRATIME}},
	{"nosymfollow", mountAttr{set: unix.MOUNT_ATTR_NOSYMFOLLOW}},
	{"symfollow", mountAttr{clear: unix.MOUNT_ATTR_NOSYMFOLLOW}},
	{"noatime", mountAttr{set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME}},
	{"relatime", mountAttr{set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME}},
	{"strictatime", mountAttr{set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}},
	{"atime", mountAttr{set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME}},
	{"norelatime", mountAttr{set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME}},
	{"nostrictatime", mountAttr{set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME}},
}

// superOptions are flags of the filesystem rather than of the mount (fsconfig(2),
// FSCONFIG_SET_FLAG).
var superOptions = []string{
	"sync", "async", "dirsync", "mand", "nomand",
	"lazytime", "nolazytime", "iversion", "silent", "loud",
}

// options are the mount options of one entry, sorted by what is done with them.
type options struct {
	attr        mountAttr
	recAttr     mountAttr // rro, rnosuid, ...
	data        []string  // for the filesystem
	propagation []string
	bind        bool
	recursive   bool
	remount     bool
	copyUp      bool
	idmap       bool
	ridmap      bool
}

func parseOptions(list []string) options {
	var o options
	merge := func(into *mountAttr, a mountAttr) {
		into.set = into.set&^a.clear | a.set
		into.clear = into.clear&^a.set | a.clear
	}
	for _, opt := range list {
		if a, ok := attrOptions.get(opt); ok {
			merge(&o.attr, a)
			continue
		}
		if a, ok := attrOptions.get(strings.TrimPrefix(opt, "r")); ok &&
			strings.HasPrefix(opt, "r") {
			merge(&o.recAttr, a)
			continue
		}
		if _, ok := propagations.get(opt); ok {
			o.propagation = append(o.propagation, opt)
			continue
		}
		switch opt {
		case "", "defaults":
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "remount":
			o.remount = true
		case "tmpcopyup":
			o.copyUp = true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.ridmap = true, true
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// procTargets are the files below /proc that may be replaced by a bind mount: they only inform
// (lxcfs makes such files).
var procTargets = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
	"/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid",
	"/proc/sys/crypto/fips_enabled",
}

// mount compiles spec.mounts in their order.
func (p *mounts) mount() {
	for i := range p.spec.Mounts {
		m := &p.spec.Mounts[i]
		dest := path.Clean("/" + m.Destination)
		field := fmt.Sprintf("mounts[%d] (%s)", i, dest)
		p.Field(field)
		o := parseOptions(m.Options)
		switch {
		case o.bind || m.Type == "bind":
			p.bind(i, field, m, dest, o)
		case m.Type == "cgroup" || m.Type == "cgroup2" && !p.opt.Host.Cgroup2:
			p.cgroups.enterLate()
			p.Field(field)
			p.cgroup(field, dest, o)
		default:
			p.filesystem(field, m, dest, o)
		}
	}
}

// filesystem makes a new mount of a filesystem type.
func (p *mounts) filesystem(field string, m *specs.Mount, dest string, o options) {
	resolve := uint64(resolveInRoot)
	if m.Type == "proc" || m.Type == "sysfs" {
		// A link here would move the mount, and what is masked below it, elsewhere (CVE-2019-19921,
		// CVE-2023-27561).
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	source := m.Source
	if source == "" || source == "none" {
		source = m.Type
	}
	attr := o.attr.set
	if m.Type == "tmpfs" {
		attr &^= unix.MOUNT_ATTR_RDONLY // until all that the container needs in it is made
	}
	_, inFresh := p.targets.inFresh(dest)
	inherit := m.Type == "tmpfs" && !inFresh && !hasMode(o.data)
	var mnt, made program.Cell
	missing := func() {}
	if !inherit {
		mnt = p.newMount(m.Type, source, o.data, attr, nil)
	} else {
		made = p.Cell()
		missing = func() { p.Set(made, program.Num(1), program.Move, program.Num(0)) }
	}
	target := p.targets.targetOr(field, dest, aDirectory, program.Num(0), resolve, missing)
	if m.Type != "proc" && m.Type != "sysfs" {
		p.refuseProc(target.Value(), dest)
	}
	if inherit {
		mnt = p.newMount(m.Type, source, o.data, attr, func(fs program.Cell) {
			p.inheritMode(fs, target, made)
		})
	}
	if o.copyUp {
		owned := slices.ContainsFunc(o.data, func(opt string) bool {
			return strings.HasPrefix(opt, "uid=") || strings.HasPrefix(opt, "gid=")
		})
		p.assist(
			Assist{
				Kind: CopyUp, Field: field, Path: dest, Owner: !owned, Continue: p.cgroups.waits(),
			},
			target.Value(), mnt.Value(),
		)
	}
	if m.Type == "tmpfs" && o.attr.set&unix.MOUNT_ATTR_RDONLY != 0 {
		p.readonly = append(p.readonly, readonly{field, mnt})
	}
	p.attach(mnt.Value(), target.Value())
	p.finishMount(mnt.Value(), o)
	switch m.Type {
	case "proc":
		if dest == "/proc" {
			p.procfs.use(mnt)
		}
	case "tmpfs":
		if !o.copyUp {
			p.targets.fresh.set(dest, mnt)
		}
	}
}

func hasMode(data []string) bool {
	return slices.ContainsFunc(data, func(opt string) bool {
		return strings.HasPrefix(opt, "mode=")
	})
}

// inheritMode makes the root of a filesystem that is being made have the mode of the directory that
// it covers, as runc does, unless the directory was made for it. As an option it shows in the table
// of mounts.
func (p *mounts) inheritMode(fs, target, made program.Cell) {
	skip := p.Label()
	p.If(made.Value(), ^uint64(0), program.NotEqual, program.Num(0), skip)
	p.stat(target.Value())
	// Four octal digits as text, the highest first, which is the lowest byte.
	text, digit := p.Cell(), p.Cell()
	p.Set(text, program.Num(0x30303030), program.Move, program.Num(0))
	for i := range 4 {
		p.Set(digit, p.statx.Load(statxMode, 2), program.ShiftR, program.Num(9-3*i))
		p.Set(digit, digit.Value(), program.And, program.Num(7))
		p.Set(digit, digit.Value(), program.ShiftL, program.Num(8*i))
		p.Set(text, text.Value(), program.Or, digit.Value())
	}
	p.Call(
		unix.SYS_FSCONFIG, fs.Value(), program.Num(unix.FSCONFIG_SET_STRING), p.Str("mode").Ptr(),
		p.CellBuf(text).Ptr(), program.Num(0),
	)
	p.Place(skip)
}

// readonly is a mount that becomes read-only when the container is complete.
type readonly struct {
	field string
	mnt   program.Cell
}

// bind attaches a copy of a tree of the host. The spawner opens it in its own view, before the
// child exists, so that neither the permissions nor the mounts of the container matter.
func (p *mounts) bind(i int, field string, m *specs.Mount, dest string, o options) {
	if o.remount {
		p.remount(dest, o)
		return
	}
	t := Tree{
		Name: fmt.Sprintf("mounts[%d]", i), Field: field, Path: m.Source, Recursive: o.recursive,
	}
	if o.idmap || len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
		t.UIDMap, t.GIDMap, t.MapRecursive = m.UIDMappings, m.GIDMappings, o.ridmap
		if len(t.UIDMap) == 0 && len(t.GIDMap) == 0 {
			t.UIDMap, t.GIDMap = p.spec.Linux.UIDMappings, p.spec.Linux.GIDMappings
			t.UserNamespace = joinedUser(p.spec.Linux, &t)
		}
		if t.UserNamespace == "" && (len(t.UIDMap) == 0 || len(t.GIDMap) == 0) {
			p.fail(invalid(
				field, "an id-mapped mount needs uidMappings and gidMappings, here or in linux",
			))
		}
	}
	tree := p.source(i, t, dest)
	p.finishMount(tree, o)
	if o.attr != (mountAttr{}) {
		p.setattr(tree, o.attr, false)
	}
	target := p.targets.target(field, dest, likeSource, tree, resolveInRoot)
	p.refuseProc(target.Value(), dest)
	p.attach(tree, target.Value())
}

// Mapped says whether the tree becomes an id-mapped mount.
func (t *Tree) Mapped() bool { return len(t.UIDMap) > 0 || t.UserNamespace != "" }

// source is the tree that a bind mount attaches. What an earlier mount of the configuration has put
// in the container's root can be seen by the child only. It resolves such a source inside of the
// root, so that links lead nowhere else, and not into /proc or /sys, which are masked later. Only a
// path that is bound on itself may be in /sys: it gets attributes of its own and shows nothing
// elsewhere.
func (p *mounts) source(i int, t Tree, dest string) program.Arg {
	name, filled := p.filled(i, &t)
	if !filled {
		return p.tree(t)
	}
	fd := p.open(p.root.dir.Value(), name, unix.O_PATH, resolveInRoot).Result()
	magics := []uint64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC}
	if name == dest {
		magics = magics[:1]
	}
	p.refuseMagic(fd.Value(), magics...)
	tree := p.cloneTree(fd.Value(), t.Recursive).Value()
	if !t.Mapped() {
		return tree
	}
	if !p.opt.Assist {
		p.fail(invalid(
			t.Field, "an id-mapped mount of what another mount provides is not supported here",
		))
	}
	a := Assist{Kind: MapTree, Field: t.Field, Path: t.Path, Continue: p.cgroups.waits(), Tree: t}
	p.assist(a, tree, tree)
	return tree
}

// filled says whether the source of mounts[i] lies in the root at a place that an earlier mount
// covers or, if the source is recursive, is mounted below, and returns its path from the root.
// Only the names are compared.
//
// A recursive source below which procfs or sysfs is mounted is taken as the host has it: a copy of
// these mounts would show in another place what is masked or read-only in theirs.
func (p *mounts) filled(i int, t *Tree) (name string, ok bool) {
	if p.opt.Overlay != nil {
		return "", false
	}
	root, source := path.Clean(p.spec.Root.Path), path.Clean(t.Path)
	if !within(source, root) {
		return "", false
	}
	name = path.Clean("/" + strings.TrimPrefix(source, root))
	before := p.spec.Mounts[:i]
	if t.Recursive && slices.ContainsFunc(before, func(m specs.Mount) bool {
		dest := path.Clean("/" + m.Destination)
		system := m.Type == "proc" || m.Type == "sysfs" || dest == "/proc" || dest == "/sys"
		return system && within(dest, name)
	}) {
		return "", false
	}
	ok = slices.ContainsFunc(before, func(m specs.Mount) bool {
		dest := path.Clean("/" + m.Destination)
		return within(name, dest) || t.Recursive && within(dest, name)
	})
	return name, ok
}

// within says whether a clean absolute path is a directory or lies below it.
func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// finishMount sets recursive attributes and propagation.
func (p *mounts) finishMount(mnt program.Arg, o options) {
	if o.recAttr != (mountAttr{}) {
		p.setattr(mnt, o.recAttr, true)
	}
	if len(o.propagation) == 0 && o.bind {
		// A copy made in the host's view is a peer of the original; without a wish it only
		// receives.
		p.setattr(mnt, mountAttr{propagation: unix.MS_SLAVE}, true)
	}
	for _, name := range o.propagation {
		prop, _ := propagations.get(name)
		if o.bind && prop.flag != unix.MS_SHARED && !prop.recursive && o.recursive {
			// Mounts below that are not named must not stay peers of the host either.
			p.setattr(mnt, mountAttr{propagation: unix.MS_SLAVE}, true)
		}
		p.setattr(mnt, mountAttr{propagation: prop.flag}, prop.recursive)
	}
}

// remount changes the attributes of what an earlier entry mounted.
func (p *mounts) remount(dest string, o options) {
	fd := p.open(p.root.dir.Value(), dest, unix.O_PATH, resolveInRoot).Result()
	if o.attr != (mountAttr{}) {
		p.setattr(fd.Value(), o.attr, false)
	}
	p.finishMount(fd.Value(), options{recAttr: o.recAttr, propagation: o.propagation})
}

// refuseProc fails if a link of the image leads a mount into /proc. There the mount could replace a
// file that the container's set-up writes to, or that another program trusts. Files of procTargets
// are harmless and allowed.
func (p *mounts) refuseProc(target program.Arg, dest string) {
	if slices.Contains(procTargets, dest) {
		return
	}
	p.refuseMagic(target, unix.PROC_SUPER_MAGIC)
}

// cgroup gives the container its view of cgroups: one cgroup2 tree, or a directory with every
// version 1 hierarchy of the host.
func (p *mounts) cgroup(field, dest string, o options) {
	host := &p.opt.Host
	target := p.targets.target(field, dest, aDirectory, program.Num(0), resolveInRoot)
	p.refuseProc(target.Value(), dest)
	private := p.namespaces.has(unix.CLONE_NEWCGROUP)
	if host.Cgroup2 {
		var mnt program.Arg
		if private {
			mnt = p.newMount("cgroup2", "cgroup2", nil, o.attr.set, nil).Value()
		} else {
			mnt = p.tree(
				Tree{Name: "cgroup", Field: field, Path: host.Hierarchies[0].Path, Recursive: true},
			)
			p.setattr(mnt, mountAttr{propagation: unix.MS_SLAVE}, true)
			p.setattr(mnt, o.attr, false)
		}
		p.attach(mnt, target.Value())
		p.finishMount(mnt, options{recAttr: o.recAttr, propagation: o.propagation})
		return
	}
	dir := p.newMount(
		"tmpfs", "tmpfs", []string{"mode=755"}, o.attr.set&^unix.MOUNT_ATTR_RDONLY, nil,
	)
	p.attach(dir.Value(), target.Value())
	for i, h := range host.Hierarchies {
		name := path.Base(h.Dir)
		var mnt program.Arg
		fstype := "cgroup"
		if len(h.Options) == 0 {
			fstype = "cgroup2"
		}
		if private {
			mnt = p.newMount(fstype, fstype, h.Options, o.attr.set, nil).Value()
		} else {
			mnt = p.tree(Tree{Name: fmt.Sprintf("cgroup[%d]", i), Field: field, Path: h.Path})
			p.setattr(mnt, mountAttr{propagation: unix.MS_SLAVE}, true)
			p.setattr(mnt, o.attr, false)
		}
		p.Call(unix.SYS_MKDIRAT, dir.Value(), p.Str(name).Ptr(), program.Num(0o755))
		at := p.Call(
			unix.SYS_OPENAT, dir.Value(), p.Str(name).Ptr(),
			program.Num(unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC),
		).Result()
		p.attach(mnt, at.Value())
		// A hierarchy of several controllers is known under each name.
		if parts := strings.Split(name, ","); len(parts) > 1 {
			for _, part := range parts {
				p.Call(unix.SYS_SYMLINKAT, p.Str(name).Ptr(), dir.Value(), p.Str(part).Ptr())
			}
		}
	}
	if o.attr.set&unix.MOUNT_ATTR_RDONLY != 0 {
		p.setattr(dir.Value(), mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	p.finishMount(dir.Value(), options{recAttr: o.recAttr, propagation: o.propagation})
}

// joinedUser is the user namespace that is joined, whose mappings are those of a tree without any.
func joinedUser(linux *specs.Linux, t *Tree) string {
	for _, ns := range linux.Namespaces {
		if ns.Type == specs.UserNamespace && len(t.UIDMap)+len(t.GIDMap) == 0 {
			return ns.Path
		}
	}
	return ""
}

// makeReadonly sets the attribute that mounts in which something was still to be made lack.
func (p *mounts) makeReadonly() {
	for _, r := range p.readonly {
		p.Field(r.field)
		p.setattr(r.mnt.Value(), mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	}
}
