package lxc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/lxc/config"
)

// CopyOptions say how a container is copied. The zero value is an independent copy with a name and
// hardware addresses of its own.
type CopyOptions struct {
	// Snapshot makes an overlay over the root file system, which then must not change, in place of
	// a copy.
	Snapshot     bool
	AllowRunning bool
	KeepName     bool // the host name
	KeepMAC      bool // the hardware addresses
	// Tmpfs keeps the changes of a snapshot in memory: the host's next start loses them.
	Tmpfs bool
	// Backing is "dir", "overlay" or "overlayfs"; "": what the original has, or overlay for a
	// snapshot of a directory.
	Backing string
	// HookArgs are arguments for the hooks of the kind clone.
	HookArgs []string
	// Edit, if not nil, changes the configuration of the copy before it is written.
	Edit func(*config.Config) error

	// finish, if not nil, is the last step.
	finish func() error
}

// Copy copies the container to one that must not exist, also of another Path. One that runs is
// errdefs.ErrFailedPrecondition unless that is allowed; a target that exists is
// errdefs.ErrAlreadyExists. Nothing is left if there is an error. A copy that is killed leaves what
// the next operation that makes the target, or destroys the original, removes.
func (c *Container) Copy(ctx context.Context, to *Container, o *CopyOptions) (err error) {
	unlock, err := lockBoth(ctx, c, to)
	if err != nil {
		return err
	}
	defer unlock()
	if err := to.clearPartial(); err != nil {
		return err
	}
	if to.Defined() {
		return fmt.Errorf(
			"container %q already exists in %s: %w", to.name, to.path.dir, errdefs.ErrAlreadyExists,
		)
	}
	if err := stopped(ctx, c); err != nil && !(o.AllowRunning && errdefs.IsFailedPrecondition(err)) {
		return err
	}
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	k := &copying{from: c, to: to, o: o, cfg: cfg}
	if err := k.storage(); err != nil {
		return err
	}
	if err := os.MkdirAll(to.dir, 0o770); err != nil {
		return err
	}
	if err := os.WriteFile(
		filepath.Join(to.dir, partial), []byte(filepath.Join(to.dir, "rootfs")), 0o600,
	); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copy container %q: %w", c.name, err), to.clearPartial())
		}
	}()
	for _, step := range []func(context.Context) error{k.depend, k.fill, k.configure, k.adapt} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if o.finish != nil {
		if err := o.finish(); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(to.dir, partial))
}

// lockBoth takes the locks of two containers, in an order that all operations have in common.
func lockBoth(ctx context.Context, a, b *Container) (unlock func(), err error) {
	if a.run == b.run {
		return nil, fmt.Errorf("container %q already exists: %w", b.name, errdefs.ErrAlreadyExists)
	}
	if a.run > b.run {
		a, b = b, a
	}
	first, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	second, err := b.lock(ctx)
	if err != nil {
		first()
		return nil, err
	}
	return func() {
		second()
		first()
	}, nil
}

// stopped repairs the container and is errdefs.ErrFailedPrecondition if it runs.
func stopped(ctx context.Context, c *Container) error {
	if err := c.repair(ctx); err != nil {
		return err
	}
	if r, err := c.load(); err != nil {
		return err
	} else if r != nil {
		return fmt.Errorf("container %q is running: %w", c.name, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// copying is one copy under way.
type copying struct {
	from, to *Container
	o        *CopyOptions
	cfg      *config.Config // of the copy

	// root is lxc.rootfs.path of the copy; dir is the directory to copy to it, over one that is
	// merged from old where that is an overlay.
	root, source, target string
	old                  *plan.Overlay
	kind                 string // "dir" or "overlay"
	lower                []string
}

// storage says how the root file system is copied.
func (k *copying) storage() (err error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
	}
	want := k.o.Backing
	if want == "overlayfs" {
		want = "overlay"
	}
	if want != "" && want != "dir" && want != "overlay" {
		return refuse("backing store %q: want dir or overlay", k.o.Backing)
	}
	if k.cfg.Rootfs.Path == "" {
		if k.o.Snapshot {
			return refuse("container %q has no root file system to make a snapshot of", k.from.name)
		}
		return nil
	}
	if k.old, err = overlay(k.cfg, ""); err != nil {
		return err
	}
	if want == "" {
		want = "dir"
		if k.o.Snapshot || k.old != nil {
			want = "overlay"
		}
	}
	switch {
	case want == "overlay" && !k.o.Snapshot:
		return refuse("an overlay can only be a snapshot: want -s, or -B dir for a whole copy")
	case want == "dir" && k.o.Snapshot:
		return refuse("a directory cannot be a snapshot: want the backing store overlay")
	}
	if k.o.Tmpfs && want != "overlay" {
		return refuse("only the changes of an overlay can be kept on a tmpfs")
	}
	k.kind = want
	delta := filepath.Join(k.to.dir, "overlay", "delta")
	switch {
	case want == "dir":
		k.target = filepath.Join(k.to.dir, "rootfs")
		k.root = "dir:" + k.target
		if k.old == nil {
			k.source, err = rootDir(k.cfg)
		}
	case k.old != nil:
		// Its own changes are copied; what is below them is shared.
		k.source, k.target, k.lower = k.old.Upper, delta, k.old.Lower
		_, dirs, _ := strings.Cut(k.cfg.Rootfs.Path, ":")
		k.root = "overlay:" + strings.TrimSuffix(dirs, k.old.Upper) + delta
	default:
		var lower string
		lower, err = rootDir(k.cfg)
		k.target, k.lower = delta, []string{lower}
		k.root = "overlay:" + lower + ":" + delta
	}
	if want == "overlay" && slices.ContainsFunc(append(k.lower, delta), hasColon) {
		return refuse("a path of an overlay cannot have a colon: %s", k.root)
	}
	return err
}

func hasColon(s string) bool { return strings.Contains(s, ":") }

// depend records whose root file systems the copy uses.
func (k *copying) depend(context.Context) error {
	if !k.o.Snapshot || k.kind != "overlay" {
		return nil
	}
	on, _, err := readOwners(filepath.Join(k.from.dir, dependsFile))
	if err != nil {
		return err
	}
	// The lower directory is the original's, or that of the container that a snapshot was made of.
	// A snapshot of a container goes with it.
	candidates := []owner{ownerOf(k.from)}
	if filepath.Base(k.from.path.dir) == snapshotDir {
		above := filepath.Dir(k.from.path.dir)
		candidates = append(candidates, owner{filepath.Dir(above), filepath.Base(above)})
	}
	for _, x := range candidates {
		uses := slices.ContainsFunc(k.lower, func(dir string) bool { return below(dir, x.dir()) })
		if k.old == nil && x == ownerOf(k.from) {
			uses = true
		}
		own := strings.HasPrefix(k.to.dir, x.dir()+"/")
		if uses && !own && !slices.Contains(on, x) {
			on = append(on, x)
		}
	}
	return depend(k.to, on)
}

// below says whether a directory is in another, whatever links lead there.
func below(dir, other string) bool {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if real, err := filepath.EvalSymlinks(other); err == nil {
		other = real
	}
	return strings.HasPrefix(dir+"/", other+"/")
}

// fill copies the root file system.
func (k *copying) fill(ctx context.Context) error {
	if k.target == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(k.to.dir, "rootfs"), 0o755); err != nil {
		return err
	}
	if k.o.Tmpfs {
		dir := filepath.Dir(k.target)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("none", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount tmpfs on %q: %w", dir, err)
		}
	}
	switch {
	case k.kind == "dir" && k.old != nil:
		// All of it as it is seen: every layer is one to read, and there is nothing to write to.
		merged := *k.old
		merged.Lower = append([]string{merged.Upper}, merged.Lower...)
		merged.Upper, merged.Work = "", ""
		tree, err := mountOverlay(&merged)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		return copyDirFrom(ctx, tree, k.target)
	case k.source == "":
		if err := os.MkdirAll(k.target, 0o755); err != nil {
			return err
		}
		// The root directory of the merged tree is that of the upper layer.
		return copyTop(k.lower[0], k.target)
	}
	return copyDir(ctx, k.source, k.target)
}

// copyTop gives a directory the attributes of another.
func copyTop(from, to string) error {
	src, err := unix.Open(from, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Open(to, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	var st unix.Statx_t
	if err := unix.Statx(src, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	return attributes(proc(src), proc(dst), &st)
}

// mountOverlay mounts an overlay that only the descriptor leads to (fsmount(2)).
func mountOverlay(o *plan.Overlay) (tree int, err error) {
	f, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("overlay: %w", err)
	}
	defer unix.Close(f)
	set := func(key, value string) {
		if err == nil && value != "" {
			if err = unix.FsconfigSetString(f, key, value); err != nil {
				err = fmt.Errorf("overlay: %s %q: %w", key, value, err)
			}
		}
	}
	for _, dir := range o.Lower {
		set("lowerdir+", dir)
	}
	set("upperdir", o.Upper)
	set("workdir", o.Work)
	if err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(f); err != nil {
		return -1, fmt.Errorf("overlay of %q: %w", o.Lower, err)
	}
	if tree, err = unix.Fsmount(f, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("overlay: fsmount: %w", err)
	}
	return tree, nil
}

// configure writes the configuration of the copy.
func (k *copying) configure(context.Context) error {
	if err := rewriteFor(k.cfg, k.from, k.to, k.root, k.o); err != nil {
		return err
	}
	if k.o.Edit != nil {
		if err := k.o.Edit(k.cfg); err != nil {
			return err
		}
	}
	file := filepath.Join(k.to.dir, "config")
	if err := writeConfig(file, k.cfg); err != nil {
		return err
	}
	// A copy keeps who may read it.
	st, err := os.Stat(filepath.Join(k.from.dir, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(file, st.Mode().Perm())
}
