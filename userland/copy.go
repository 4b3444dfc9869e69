package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// targets resolves the operands of cp, mv and ln: pairs of source and destination. dirOf tells
// whether a path counts as a directory to put things into.
func (c *Call) targets(names []string, into string, hasInto, noDir bool) ([][2]string, error) {
	if hasInto {
		if len(names) == 0 {
			return nil, errors.New("no source given")
		}
		if st, err := os.Stat(c.path(into)); err != nil {
			return nil, fmt.Errorf("%s: %s", into, reason(err))
		} else if !st.IsDir() {
			return nil, fmt.Errorf("%s: not a directory", into)
		}
		names = append(names, into)
	}
	if len(names) < 2 {
		return nil, errors.New("a source and a destination are needed")
	}
	sources, to := names[:len(names)-1], names[len(names)-1]
	st, err := os.Stat(c.path(to))
	dir := err == nil && st.IsDir() && !noDir
	if len(sources) > 1 && !dir {
		return nil, fmt.Errorf("%s: not a directory", to)
	}
	var out [][2]string
	for _, s := range sources {
		d := to
		if dir {
			d = strings.TrimSuffix(to, "/") + "/" + filepath.Base(s)
		}
		out = append(out, [2]string{s, d})
	}
	return out, nil
}

// copyHow is what cp and a mv between file systems were asked for.
type copyHow struct {
	recursive, force, noClobber, update, verbose bool
	times, modes                                 bool // kept from the source
	follow, followOperands                       bool
}

// cp copies files (cp(1p); -a, -d, -n, -u, -v, -t, -T as GNU). Holes are kept, and content is
// shared where the file system can.
func cp(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"rRafpPdLHnuvit:T",
		"recursive=r archive=a force=f no-dereference=P dereference=L no-clobber=n update=u "+
			"verbose=v interactive=i target-directory=t no-target-directory=T preserve=p",
	)
	if !ok {
		return status
	}
	if o.has('i') {
		return c.usagef("option %q is not supported (-n keeps existing files)", "-i")
	}
	h := copyHow{
		recursive: o.has('r') || o.has('R') || o.has('a'), force: o.has('f'), noClobber: o.has('n'),
		update: o.has('u'), verbose: o.has('v'),
		times: o.has('p') || o.has('a'), modes: o.has('p') || o.has('a'),
	}
	switch o.last("PdLHa") {
	case 'L':
		h.follow, h.followOperands = true, true
	case 'H':
		h.followOperands = true
	case 0:
		h.follow, h.followOperands = !h.recursive, !h.recursive
	}
	pairs, err := c.targets(names, o.value('t', ""), o.has('t'), o.has('T'))
	if err != nil {
		return c.errorf("%v", err)
	}
	cc := &copier{c: c, how: h, links: map[[2]uint64]string{}}
	for _, p := range pairs {
		cc.copy(ctx, p[0], p[1], h.followOperands)
	}
	return cc.status
}

type copier struct {
	c      *Call
	how    copyHow
	status int
	links  map[[2]uint64]string // device and inode of what has several names, to its copy
}

func (k *copier) fault(name string, err error) { k.status = k.c.fault(name, err) }

func (k *copier) copy(ctx context.Context, from, to string, follow bool) {
	if ctx.Err() != nil {
		k.status = exitFault
		return
	}
	src, dst := k.c.path(from), k.c.path(to)
	var st unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	if err := stat(src, &st); err != nil {
		k.fault(from, err)
		return
	}
	var old unix.Stat_t
	exists := unix.Lstat(dst, &old) == nil
	if exists && old.Mode&unix.S_IFMT == unix.S_IFLNK {
		// An existing link as the destination is written through, when it leads somewhere.
		var through unix.Stat_t
		if unix.Stat(dst, &through) == nil {
			old = through
		}
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFDIR && !k.how.recursive:
		k.status = k.c.errorf("%s: is a directory (-r copies directories)", from)
		return
	case exists && old.Dev == st.Dev && old.Ino == st.Ino:
		k.status = k.c.errorf("%s and %s are the same file", from, to)
		return
	case exists && kind != unix.S_IFDIR && k.how.noClobber:
		return
	case exists && kind != unix.S_IFDIR && k.how.update && !newer(st.Mtim, old.Mtim):
		return
	case exists && kind != unix.S_IFDIR && old.Mode&unix.S_IFMT == unix.S_IFDIR:
		k.status = k.c.errorf("%s: is a directory, %s is none", to, from)
		return
	}
	if k.how.verbose {
		fmt.Fprintf(k.c.Stdout, "%s -> %s\n", from, to)
	}
	if kind == unix.S_IFDIR {
		k.directory(ctx, from, to, st, exists)
		return
	}
	if k.how.modes && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := k.links[key]; ok {
			os.Remove(dst)
			if os.Link(first, dst) == nil {
				return
			}
		}
		k.links[key] = dst
	}
	if err := k.node(ctx, src, dst, st, exists); err != nil {
		k.fault(to, err)
		return
	}
	if err := k.keep(dst, st); err != nil {
		k.fault(to, err)
	}
}

func newer(a, b unix.Timespec) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

func (k *copier) directory(ctx context.Context, from, to string, st unix.Stat_t, exists bool) {
	src, dst := k.c.path(from), k.c.path(to)
	// A directory copied into itself would never end.
	a, errA := filepath.EvalSymlinks(src)
	b, errB := filepath.EvalSymlinks(filepath.Dir(dst))
	if errA == nil && errB == nil {
		a, _ = filepath.Abs(a)
		b, _ = filepath.Abs(b)
		if b == a || strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/") {
			k.status = k.c.errorf("%s: cannot be copied into itself as %s", from, to)
			return
		}
	}
	if !exists {
		if err := os.Mkdir(dst, os.FileMode(st.Mode&0o777)|0o700); err != nil {
			k.fault(to, err)
			return
		}
	} else if st, err := os.Stat(dst); err == nil && !st.IsDir() {
		k.status = k.c.errorf("%s: not a directory", to)
		return
	}
	list, err := os.ReadDir(src)
	if err != nil {
		k.fault(from, err)
	}
	for _, e := range list {
		k.copy(ctx, from+"/"+e.Name(), to+"/"+e.Name(), k.how.follow)
	}
	if err := k.keep(dst, st); err != nil {
		k.fault(to, err)
	}
	if !exists && !k.how.modes {
		if err := os.Chmod(dst, os.FileMode(st.Mode&0o777&^currentUmask())); err != nil {
			k.fault(to, err)
		}
	}
}

// node copies anything but a directory.
func (k *copier) node(ctx context.Context, src, dst string, st unix.Stat_t, exists bool) error {
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFLNK:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		if exists {
			if err := os.Remove(dst); err != nil {
				return err
			}
		}
		return os.Symlink(target, dst)
	case unix.S_IFREG:
		return k.content(ctx, src, dst, st, exists)
	default:
		if !k.how.recursive {
			return k.content(ctx, src, dst, st, exists)
		}
		if exists {
			if err := os.Remove(dst); err != nil {
				return err
			}
		}
		return unix.Mknod(dst, st.Mode, int(st.Rdev))
	}
}

func (k *copier) content(
	ctx context.Context, src, dst string, st unix.Stat_t, exists bool,
) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	out, err := os.OpenFile(dst, flags, os.FileMode(st.Mode&0o777))
	if err != nil && exists && k.how.force {
		if err := os.Remove(dst); err != nil {
			return err
		}
		out, err = os.OpenFile(dst, flags, os.FileMode(st.Mode&0o777))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Blocks*512 >= st.Size {
		_, err = io.Copy(out, ctxReader{ctx, in})
		return err
	}
	return copySparse(ctx, out, in, st.Size)
}

// copySparse copies only what is data (lseek(2), SEEK_DATA).
func copySparse(ctx context.Context, out, in *os.File, size int64) error {
	for at := int64(0); at < size; {
		from, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		to, err := in.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, ctxReader{ctx, in}, to-from); err != nil {
			return err
		}
		at = to
	}
	return out.Truncate(size)
}

// keep gives a copy what -p keeps. Owners are kept where the caller may.
func (k *copier) keep(dst string, st unix.Stat_t) error {
	if k.how.modes {
		if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil &&
			!errors.Is(err, os.ErrPermission) {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
				return err
			}
		}
	}
	if k.how.times {
		ts := []unix.Timespec{st.Atim, st.Mtim}
		return unix.UtimesNanoAt(unix.AT_FDCWD, dst, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// mv renames files, and copies and removes them where they cross file systems (mv(1p); -n, -u, -v,
// -t, -T as GNU). It never asks.
func mv(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"fnuvt:T",
		"force=f no-clobber=n update=u verbose=v target-directory=t no-target-directory=T",
	)
	if !ok {
		return status
	}
	pairs, err := c.targets(names, o.value('t', ""), o.has('t'), o.has('T'))
	if err != nil {
		return c.errorf("%v", err)
	}
	for _, p := range pairs {
		if ctx.Err() != nil {
			return exitFault
		}
		if s := c.move(ctx, o, p[0], p[1]); s != exitOK {
			status = s
		}
	}
	return status
}

func (c *Call) move(ctx context.Context, o options, from, to string) int {
	src, dst := strings.TrimRight(c.path(from), "/"), c.path(to)
	var a, b unix.Stat_t
	if err := unix.Lstat(src, &a); err != nil {
		return c.fault(from, err)
	}
	if unix.Lstat(dst, &b) == nil {
		if o.last("fn") == 'n' || o.has('u') && !newer(a.Mtim, b.Mtim) {
			return exitOK
		}
		if a.Dev == b.Dev && a.Ino == b.Ino {
			return c.errorf("%s and %s are the same file", from, to)
		}
	}
	if o.has('v') {
		fmt.Fprintf(c.Stdout, "%s -> %s\n", from, to)
	}
	err := unix.Rename(src, dst)
	if err == nil {
		return exitOK
	}
	if err != unix.EXDEV {
		if err == unix.EINVAL {
			return c.errorf("%s: cannot be moved into itself as %s", from, to)
		}
		return c.fault(to, err)
	}
	if b.Mode&unix.S_IFMT == unix.S_IFDIR {
		// Like rename(2): only an empty directory, and only by a directory, is replaced.
		if err := unix.Rmdir(dst); err != nil {
			return c.fault(to, err)
		}
	}
	k := &copier{
		c: c, how: copyHow{recursive: true, force: true, times: true, modes: true},
		links: map[[2]uint64]string{},
	}
	k.copy(ctx, from, to, false)
	if k.status != exitOK {
		return k.status
	}
	if err := os.RemoveAll(src); err != nil {
		return c.fault(from, err)
	}
	return exitOK
}
