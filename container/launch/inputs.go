package launch

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
)

// Inputs are the descriptors that a program asks for by name. Not for concurrent use.
type Inputs struct {
	fds   map[string]int
	owned []int
}

// Add supplies a descriptor that stays the caller's.
func (in *Inputs) Add(name string, fd int) {
	if in.fds == nil {
		in.fds = make(map[string]int, 8)
	}
	in.fds[name] = fd
}

// Own supplies a descriptor that Close closes.
func (in *Inputs) Own(name string, fd int) {
	in.Add(name, fd)
	in.owned = append(in.owned, fd)
}

// enter supplies what the program enters its groups by.
func (in *Inputs) enter(e *Entry) {
	if len(e.Tasks) > 0 {
		in.Add(plan.InputCgroups, e.Root)
	}
	for i, fd := range e.Files {
		in.Add(plan.InputTasks+strconv.Itoa(i), fd)
	}
}

// Get returns the descriptor of a name; it is a spawn.Request.Input. Errors are of class
// errdefs.ErrNotFound.
func (in *Inputs) Get(name string) (int, error) {
	fd, ok := in.fds[name]
	if !ok {
		return -1, fmt.Errorf("descriptor %q is not supplied: %w", name, errdefs.ErrNotFound)
	}
	return fd, nil
}

// Names returns the descriptors by name, for sending them elsewhere. The map is not to be modified.
func (in *Inputs) Names() map[string]int { return in.fds }

// Close closes what Open opened and Own was given.
func (in *Inputs) Close() {
	for _, fd := range in.owned {
		unix.Close(fd)
	}
	in.owned, in.fds = nil, nil
}

// Open opens the mount sources and namespaces that a plan names, in the caller's view of the host.
// m is as in Init. On an error nothing stays open. Errors name the field of the configuration; a
// source that is missing is of class errdefs.ErrNotFound.
func (in *Inputs) Open(m *spawn.Machine, p *plan.Plan) (err error) {
	defer func() {
		if err != nil {
			in.Close()
		}
	}()
	var nodes nodeMaker
	defer nodes.close()
	for i := range p.Trees {
		t := &p.Trees[i]
		if t.Node != nil {
			if fd, err := nodes.make(t.Node); err == nil {
				in.Own(t.Name, fd)
				continue
			}
		}
		fd, err := openTree(m, t)
		if err != nil {
			return err
		}
		in.Own(t.Name, fd)
	}
	for i := range p.Namespaces {
		ns := &p.Namespaces[i]
		fd, err := openNamespace(ns)
		if err != nil {
			return err
		}
		in.Own(ns.Name, fd)
	}
	return nil
}

func openTree(m *spawn.Machine, t *plan.Tree) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if t.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, t.Path, flags)
	if err != nil {
		return -1, classify(fmt.Errorf("%s: open_tree %q: %w", t.Field, t.Path, err))
	}
	if !t.Mapped() {
		return fd, nil
	}
	if err := MapTree(m, fd, t); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// MapTree gives a mount that is attached nowhere the mappings of a user namespace that is made for
// this purpose and not kept (mount_setattr(2), MOUNT_ATTR_IDMAP). m is as in Init. Errors name the
// field.
func MapTree(m *spawn.Machine, fd int, t *plan.Tree) error {
	var ns int
	var err error
	if t.UserNamespace != "" {
		ns, err = openNamespace(&plan.Namespace{
			Field: t.Field, Path: t.UserNamespace, Type: unix.CLONE_NEWUSER,
		})
	} else {
		ns, err = userNamespace(m, t.UIDMap, t.GIDMap)
	}
	if err != nil {
		return fmt.Errorf("%s: user namespace for the mappings: %w", t.Field, err)
	}
	defer unix.Close(ns)
	flags := uint(unix.AT_EMPTY_PATH)
	if t.MapRecursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf(
				"%s: mount_setattr: EINVAL: the filesystem of %q does not support id-mapped "+
					"mounts: %w",
				t.Field, t.Path, err,
			)
		}
		return fmt.Errorf("%s: mount_setattr: %w", t.Field, err)
	}
	return nil
}

// userNamespace makes a user namespace with the given mappings and returns a descriptor of it. The
// process that made it is gone.
func userNamespace(m *spawn.Machine, uids, gids []specs.LinuxIDMapping) (int, error) {
	var b program.Builder
	b.Clone(unix.CLONE_NEWUSER)
	b.Isolate()
	b.Await()
	b.Await() // for good: its spawner kills it
	p, err := b.Build()
	if err != nil {
		return -1, err
	}
	if m == nil {
		if m, err = spawn.New(); err != nil {
			return -1, err
		}
		defer m.Close()
	}
	child, err := m.Start(
		&spawn.Request{Image: p.Image(), CgroupFD: -1, UIDMap: idMaps(uids), GIDMap: idMaps(gids)},
	)
	if err != nil {
		return -1, err
	}
	defer child.Kill()
	return unix.Open("/proc/"+strconv.Itoa(child.Pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func idMaps(list []specs.LinuxIDMapping) []spawn.IDMap {
	out := make([]spawn.IDMap, len(list))
	for i, m := range list {
		out[i] = spawn.IDMap{Container: m.ContainerID, Host: m.HostID, Size: m.Size}
	}
	return out
}

// openNamespace opens a namespace file and makes sure that it is one, of the right type
// (ioctl_nsfs(2)), and not one of the host's that the program would change.
func openNamespace(ns *plan.Namespace) (int, error) {
	fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, classify(fmt.Errorf("%s: open %q: %w", ns.Field, ns.Path, err))
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || uint64(kind) != ns.Type {
		unix.Close(fd)
		return -1, fmt.Errorf(
			"%s: %q is not a namespace of this type: %w", ns.Field, ns.Path,
			errdefs.ErrInvalidArgument,
		)
	}
	if ns.ChangedBy != "" {
		if err := refuseOwn(ns, fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// refuseOwn refuses a namespace that this process is in itself.
func refuseOwn(ns *plan.Namespace, fd int) error {
	own := "/proc/self/ns/" + nsFile(ns.Type)
	var here, there unix.Stat_t
	if err := unix.Stat(own, &here); err != nil {
		return fmt.Errorf("%s: stat %q: %w", ns.Field, own, err)
	}
	if err := unix.Fstat(fd, &there); err != nil {
		return fmt.Errorf("%s: stat %q: %w", ns.Field, ns.Path, err)
	}
	if here.Dev == there.Dev && here.Ino == there.Ino {
		return fmt.Errorf(
			"%s: would change the host, whose namespace %q is: %w", ns.ChangedBy, ns.Path,
			errdefs.ErrInvalidArgument,
		)
	}
	return nil
}

// nsFile is the name in /proc/PID/ns (namespaces(7)) of a type of which something can be changed.
func nsFile(flag uint64) string {
	switch flag {
	case unix.CLONE_NEWUTS:
		return "uts"
	case unix.CLONE_NEWIPC:
		return "ipc"
	}
	return "net"
}

// classify adds the class that an errno of a path has.
func classify(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	}
	return err
}
