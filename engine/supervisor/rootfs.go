package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/engine"
	"strake/engine/ocispec"
	"strake/engine/userdb"
	"strake/image"
	"strake/internal/message"
)

// imageCache remembers what images say: it never changes for an ID.
type imageCache struct {
	mu    sync.Mutex
	facts map[string]*ocispec.Image // guarded by mu; by image ID
	users map[string]*userFiles     // guarded by mu; by image ID
}

// userFiles are an image's account files; nil where there is none.
type userFiles struct{ passwd, group []byte }

const cacheEntries = 128

// layers are the root file systems of containers that do not run, and what images say.
type layers struct {
	*core
	images Images
	cache  imageCache
}

// imageFacts resolves a reference to an ID and what the image says.
func (e *layers) imageFacts(ctx context.Context, ref string) (id string, f *ocispec.Image, err error) {
	im, err := e.images.Resolve(ctx, ref)
	if err != nil {
		return "", nil, err
	}
	id = im.ID.String()
	e.cache.mu.Lock()
	f = e.cache.facts[id]
	e.cache.mu.Unlock()
	if f != nil {
		return id, f, nil
	}
	d, err := e.images.Inspect(ctx, id)
	if err != nil {
		return "", nil, err
	}
	c := d.Config
	f = &ocispec.Image{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User,
		StopSignal: c.StopSignal, Shell: c.Shell,
		Labels: c.Labels, Volumes: slices.Sorted(maps.Keys(c.Volumes)), Exposed: slices.Sorted(maps.Keys(c.ExposedPorts)),
	}
	if h := c.Healthcheck; h != nil {
		f.Health = &engine.HealthConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	e.cache.mu.Lock()
	defer e.cache.mu.Unlock()
	if e.cache.facts == nil || len(e.cache.facts) >= cacheEntries {
		e.cache.facts = map[string]*ocispec.Image{}
	}
	e.cache.facts[id] = f
	return id, f, nil
}

// identity finds out what the container's process runs as. A container that never wrote below /etc
// has the accounts of its image.
func (e *layers) identity(
	ctx context.Context, c *container, user string, groups []string, fs *image.Rootfs,
) (userdb.Identity, error) {
	files, err := e.userFiles(ctx, c, fs)
	if err != nil {
		return userdb.Identity{}, err
	}
	return userdb.Lookup(user, groups, files.passwd, files.group)
}

func (e *layers) userFiles(
	ctx context.Context, c *container, fs *image.Rootfs,
) (*userFiles, error) {
	pristine := false
	if fs != nil && fs.Upper != "" {
		_, err := os.Lstat(filepath.Join(fs.Upper, "etc"))
		pristine = errors.Is(err, os.ErrNotExist)
	}
	key := ""
	if pristine {
		key = fs.Image.String()
		e.cache.mu.Lock()
		files := e.cache.users[key]
		e.cache.mu.Unlock()
		if files != nil {
			return files, nil
		}
	}
	root, err := e.openRoot(ctx, c)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files := &userFiles{}
	if files.passwd, err = readIn(root, "/etc/passwd"); err != nil {
		return nil, err
	}
	if files.group, err = readIn(root, "/etc/group"); err != nil {
		return nil, err
	}
	if pristine {
		e.cache.mu.Lock()
		defer e.cache.mu.Unlock()
		if e.cache.users == nil || len(e.cache.users) >= cacheEntries {
			e.cache.users = map[string]*userFiles{}
		}
		e.cache.users[key] = files
	}
	return files, nil
}

// overlay is how the container's root is mounted. Nothing of a container that removes itself is
// there after the machine has gone down, so nothing of it has to be written back.
func (c *container) overlay(fs *image.Rootfs) (*plan.Overlay, error) {
	o := &plan.Overlay{
		Lower: fs.Lower, Upper: fs.Upper, Work: fs.Work, Volatile: c.spec.AutoRemove,
	}
	if !o.Volatile || fs.Work == "" {
		return o, nil
	}
	// It is there when the container is started again, which is within the life of the machine.
	if err := os.RemoveAll(filepath.Join(fs.Work, plan.VolatileMark)); err != nil {
		return nil, fmt.Errorf("mount the root file system again: %w", err)
	}
	return o, nil
}

// openRoot returns a handle on the root of a container that does not run, read-only and without its
// volumes. The overlay is mounted nowhere; it goes with the last descriptor.
func (e *layers) openRoot(ctx context.Context, c *container) (*os.File, error) {
	if c.res.ImageID == "" {
		f, err := os.OpenFile(c.spec.RootFS, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, message.New(errdefs.ErrInvalidArgument, "root file system: %w", err)
		}
		return f, nil
	}
	fs, err := e.images.Rootfs(ctx, c.rootfsKey())
	if err != nil {
		return nil, err
	}
	layers := fs.Lower
	if fs.Upper != "" {
		layers = append([]string{fs.Upper}, e.below(&fs)...)
	}
	if len(layers) == 1 {
		return os.OpenFile(
			layers[0], unix.O_DIRECTORY|unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0,
		)
	}
	return image.MountOverlay(
		layers, "", "", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
	)
}

// openIn opens a path below a root as a process in it would find it, and never outside of it
// (openat2(2), RESOLVE_IN_ROOT).
func openIn(root *os.File, path string, flags int) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NONBLOCK
	}
	fd, err := unix.Openat2(int(root.Fd()), path, how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readIn reads a regular file below a root; one that is missing, or is no file, has no contents.
func readIn(root *os.File, path string) ([]byte, error) {
	f, err := openIn(root, path, unix.O_RDONLY)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) ||
			errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
			return nil, nil
		}
		return nil, fmt.Errorf("read %s of the container: %w", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, userdb.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of the container: %w", path, err)
	}
	if len(b) > userdb.MaxFile {
		return nil, message.New(
			errdefs.ErrInvalidArgument, "%s of the container is larger than %d bytes", path,
			userdb.MaxFile,
		)
	}
	return b, nil
}

// below returns the layers below a container's own, with mountTargets as the last of them.
func (e *layers) below(fs *image.Rootfs) []string {
	return append(slices.Clip(fs.Lower), filepath.Join(e.cfg.Root, mountTargets))
}

// mountTargets names the directory, below Config.Root, that has what the engine mounts on in every
// container. It lies below the image's layers, so whatever the image has in these places is what a
// container sees. Without it the kernel would make up to four files and copy directories up in
// each new writable layer, which would then be part of what commit takes from it.
const mountTargets = "mountpoints"

// makeMountPoints makes that directory, or what is missing of it, with modes that do not depend on
// the umask of the engine.
func makeMountPoints(root string) error {
	dir := filepath.Join(root, mountTargets)
	ensure := func(name string, mode os.FileMode) error {
		path := filepath.Join(dir, name)
		var err error
		if mode&0o111 != 0 {
			err = unix.Mkdir(path, uint32(mode))
		} else {
			err = unix.Mknod(path, unix.S_IFREG|uint32(mode), 0)
		}
		if err == nil {
			return os.Chmod(path, mode)
		}
		if err == unix.EEXIST {
			return nil
		}
		return err
	}
	for _, name := range []string{"", "dev", "etc", "proc", "sys"} {
		if err := ensure(name, 0o755); err != nil {
			return fmt.Errorf("make mount points: %q: %w", name, err)
		}
	}
	for _, name := range []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		if err := ensure(name, 0o644); err != nil {
			return fmt.Errorf("make mount points: %q: %w", name, err)
		}
	}
	return nil
}

// layersOf returns where the layers of a container are.
func (e *layers) layersOf(ctx context.Context, c *container) (*image.Rootfs, error) {
	if c.res.ImageID == "" {
		return nil, nil
	}
	fs, err := e.images.Rootfs(ctx, c.rootfsKey())
	if err != nil {
		return nil, err
	}
	if fs.Image != digest.Digest(c.res.ImageID) {
		return nil, fmt.Errorf(
			"container %s stands on image %s, its record says %s: %w", ocispec.ShortID(c.id), fs.Image,
			c.res.ImageID, errdefs.ErrDataLoss,
		)
	}
	if fs.Upper != "" {
		fs.Lower = e.below(&fs)
	}
	return &fs, nil
}
