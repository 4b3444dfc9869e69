// Package cgroup makes control groups and puts limits on them, whatever the host has of version 1
// (Documentation/admin-guide/cgroup-v1), of version 2 (cgroup-v2.rst), or of both at once
// ("hybrid").
//
// What a runtime-spec configuration wants is first turned into a list of writes by a pure function
// (plan, intent*.go); a thin driver makes the directories and carries the writes out before any
// process runs inside. Nothing that was asked for is dropped silently: there is one error, which
// names the field of the configuration, the file, the value and the reason.
//
// Not for: systemd's units; choosing names; hierarchies that are not mounted.
//
// A Host may be used by several goroutines at once, and so may different Groups.
package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	// Name is its first controller, or the name of a tree without one: "memory", "systemd",
	// unifiedName for version 2.
	Name string
	// Controllers are the version 1 controllers attached to it.
	Controllers []string
	// Mount is where it is mounted.
	Mount string
	// Options select it for mount(2); empty for version 2.
	Options []string
}

// Host is the layout of a machine's hierarchies.
type Host struct {
	version int
	list    []Hierarchy
}

// unifiedName is the Name of the version 2 tree.
const unifiedName = "unified"

// Detect reads the layout. root is where hierarchies are mounted, /sys/fs/cgroup if empty. Errors:
// errdefs.ErrUnavailable where there is nothing that this package can use.
func Detect(root string) (*Host, error) {
	if root == "" {
		root = "/sys/fs/cgroup"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("control groups at %q: %w: %w", root, err, errdefs.ErrUnavailable)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return &Host{
			version: 2, list: []Hierarchy{{Name: unifiedName, Mount: path.Clean(root)}},
		}, nil
	}
	self, err := readFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	if list, complete := locate(self, path.Clean(root), filesystem); complete {
		return &Host{version: 1, list: list}, nil
	}
	raw, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	h := &Host{version: 1, list: parseMounts(raw, root)}
	if len(h.list) == 0 {
		return nil, fmt.Errorf(
			"control groups: nothing is mounted below %q: %w", root, errdefs.ErrUnavailable,
		)
	}
	return h, nil
}

// parseMounts finds the hierarchies in the text of mountinfo (proc_pid_mountinfo(5)). Of several
// mounts of one the first below root counts.
func parseMounts(raw []byte, root string) (list []Hierarchy) {
	seen := map[string]bool{}
	for line := range bytes.Lines(raw) {
		before, after, ok := bytes.Cut(line, []byte(" - "))
		if !ok || !bytes.HasPrefix(after, []byte("cgroup")) {
			continue
		}
		f, g := strings.Fields(string(before)), strings.Fields(string(after))
		if len(f) < 5 || len(g) < 3 || f[3] != "/" || path.Dir(f[4]) != path.Clean(root) {
			continue
		}
		h := Hierarchy{Mount: f[4]}
		switch g[0] {
		case "cgroup2":
			h.Name = unifiedName
		case "cgroup":
			for _, opt := range strings.Split(g[2], ",") {
				name, named := strings.CutPrefix(opt, "name=")
				switch {
				case named:
					h.Name, h.Options = name, []string{"none", opt}
				case slices.Contains(controllers, opt):
					h.Controllers = append(h.Controllers, opt)
				}
			}
			if len(h.Controllers) > 0 {
				h.Name, h.Options = h.Controllers[0], h.Controllers
			}
		}
		if h.Name != "" && !seen[h.Name] {
			seen[h.Name] = true
			list = append(list, h)
		}
	}
	return list
}

// controllers are those of version 1.
var controllers = []string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
	"net_cls", "net_prio", "perf_event", "rdma", "misc",
}

// Version is the version that holds the controllers: 1 also for a host that has both.
func (h *Host) Version() int { return h.version }

// Tasks is how many version 1 hierarchies a process has to enter: len(Join.Tasks) of every group.
func (h *Host) Tasks() (n int) {
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			n++
		}
	}
	return n
}

// Hierarchies lists the hierarchies. Not to be modified.
func (h *Host) Hierarchies() []Hierarchy { return h.list }

// mount finds where a controller is.
func (h *Host) mount(controller string) (string, bool) {
	for i := range h.list {
		if slices.Contains(h.list[i].Controllers, controller) {
			return h.list[i].Mount, true
		}
	}
	return "", false
}

// CreateOptions has no options yet that change anything.
type CreateOptions struct{}

// Group is one group, in all hierarchies at once.
type Group struct {
	host   *Host
	path   string
	join   Join
	wanted wanted   // what Finish has to do
	made   []string // directories
}

// Join is what a process enters a group by.
type Join struct {
	// CloneInto is a version 2 directory to be born in (CLONE_INTO_CGROUP), or nil.
	CloneInto *os.File
	// Tasks are the version 1 files to which the process itself writes "0". A process that moves
	// itself so does not wait for the lock that moving another takes (kernel/cgroup/cgroup.c,
	// cgroup_procs_write_start).
	Tasks []*os.File
}

// Below joins a relative group to another. Errors: errdefs.ErrInvalidArgument if it leads out.
func Below(parent, sub string) (string, error) {
	if sub == "" || path.IsAbs(sub) && path.Clean(sub) != sub ||
		slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf(
			"cgroup %q: want a path below the group, without ..: %w", sub,
			errdefs.ErrInvalidArgument,
		)
	}
	return path.Join(parent, sub), nil
}

func checkPath(p string) (string, error) {
	if p == "" || slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsRune(p, 0) ||
		len(p) > unix.PathMax/2 {
		return "", fmt.Errorf(
			"linux.cgroupsPath %q: want a path without ..: %w", p, errdefs.ErrInvalidArgument,
		)
	}
	p = path.Clean("/" + p)
	if p == "/" {
		return "", fmt.Errorf(
			"linux.cgroupsPath %q: the root group is the host's: %w", p, errdefs.ErrInvalidArgument,
		)
	}
	return p, nil
}

// Create makes a group with limits. On an error nothing that it made is left. Errors name the field
// of the configuration.
func (h *Host) Create(p string, res *specs.LinuxResources, opt CreateOptions) (*Group, error) {
	g, err := h.Begin(p, res, opt)
	if err != nil {
		return nil, err
	}
	if err := g.Finish(); err != nil {
		g.abandon()
		return nil, err
	}
	g.Close()
	return h.Open(g.path)
}

// Begin makes that part of a group which a process has to be born in (Join.CloneInto); Finish makes
// the rest, the limits too. Between the two the caller may start a process that waits. On an error
// nothing that it made is left.
func (h *Host) Begin(p string, res *specs.LinuxResources, _ CreateOptions) (*Group, error) {
	p, err := checkPath(p)
	if err != nil {
		return nil, err
	}
	g := &Group{host: h, path: p}
	if g.wanted, err = h.want(res, current{fresh: true}); err != nil {
		return nil, err
	}
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			continue
		}
		if err := g.makeIn(&h.list[i]); err != nil {
			g.abandon()
			return nil, err
		}
		if h.version == 2 {
			// Here a process is born into all of its limits.
			err := g.equip(g.wanted.writes)
			if err == nil {
				err = g.apply(&g.wanted, false)
			}
			if err != nil {
				g.abandon()
				return nil, err
			}
		}
		if g.join.CloneInto, err = g.Birthplace(); err != nil {
			g.abandon()
			return nil, err
		}
	}
	return g, nil
}

// Finish makes what Begin has left, without opening it for Join. After an error the caller ends
// what it has started in the group, and calls Remove.
func (g *Group) Finish() error {
	if g.host.version == 2 {
		return nil
	}
	for i := range g.host.list {
		if g.host.list[i].Name == unifiedName {
			continue
		}
		if err := g.makeIn(&g.host.list[i]); err != nil {
			return err
		}
	}
	return g.apply(&g.wanted, false)
}

// makeIn makes the group's directory in one hierarchy.
func (g *Group) makeIn(h *Hierarchy) error {
	dirs, err := makeDirs(h.Mount, g.path)
	g.made = append(g.made, dirs...)
	if err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	if slices.Contains(h.Controllers, "cpuset") {
		return inheritCpuset(h.Mount, g.path)
	}
	return nil
}

// abandon removes what was made, after an error.
func (g *Group) abandon() {
	for _, dir := range slices.Backward(g.made) {
		unix.Rmdir(dir)
	}
	g.made = nil
	g.Close()
}

// TaskPaths are the version 1 files that a process enters the group by, below the directory that
// hierarchies are mounted in.
func (h *Host) TaskPaths(p string) (list []string) {
	for i := range h.list {
		if h.list[i].Name != unifiedName {
			list = append(list, path.Base(h.list[i].Mount)+path.Clean("/"+p)+"/tasks")
		}
	}
	return list
}

// Root is the directory that hierarchies are mounted in.
func (h *Host) Root() string { return path.Dir(h.list[0].Mount) }

// makeDirs makes a directory and what is missing above it.
func makeDirs(root, p string) (made []string, err error) {
	dir := root + p
	err = unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		if made, err = makeDirs(root, path.Dir(p)); err != nil {
			return made, err
		}
		// Groups below this one, which is ours, begin with its processors and memory nodes. Other
		// controllers do not mind.
		if _, err := os.Stat(root + path.Dir(p) + "/cgroup.controllers"); err != nil {
			writeFile(root+path.Dir(p)+"/cgroup.clone_children", []byte("1"))
		}
		err = unix.Mkdir(dir, 0o755)
	}
	switch err {
	case nil:
		return append(made, dir), nil
	case unix.EEXIST:
		return made, nil
	}
	return made, &fs.PathError{Op: "mkdir", Path: dir, Err: err}
}

// inheritCpuset fills in processors and memory nodes from above: a group without any cannot be
// entered (cpusets.rst). The kernel has done that itself where a group above was made by makeDirs.
func inheritCpuset(mount, p string) error {
	mems, err := readFile(mount + p + "/cpuset.mems")
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(mems)) > 0 {
		return nil // they come last
	}
	above := path.Dir(p)
	if above != "/" {
		if err := inheritCpuset(mount, above); err != nil {
			return err
		}
	}
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		value, err := readFile(mount + path.Join(above, name))
		if err != nil {
			return err
		}
		if err := writeFile(mount+p+name, bytes.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a small file. These files cannot be polled, and package os costs four system calls
// each to find that out.
func readFile(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(make([]byte, 0, 2*cap(b)), b...)
		}
	}
}

// writeFile writes an existing file in one piece, as these files want it.
func writeFile(name string, value []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, value)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: name, Err: err}
		}
		return nil
	}
}

// At names a group that may exist, for everything but Join. There is nothing to close. Errors:
// errdefs.ErrInvalidArgument.
func (h *Host) At(p string) (*Group, error) {
	p, err := checkPath(p)
	if err != nil {
		return nil, err
	}
	return &Group{host: h, path: p}, nil
}

// Birthplace opens the version 2 directory that a process is born in (CLONE_INTO_CGROUP), or
// returns nil where there is none. Errors: errdefs.ErrNotFound. The caller closes it.
func (g *Group) Birthplace() (*os.File, error) {
	for i := range g.host.list {
		if g.host.list[i].Name != unifiedName {
			continue
		}
		dir := g.host.list[i].Mount + g.path
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			return nil, fmt.Errorf("cgroup %q: %w", g.path, errdefs.ErrNotFound)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		return os.NewFile(uintptr(fd), dir), nil
	}
	return nil, nil
}

// Open finds an existing group. Errors: errdefs.ErrNotFound. The caller closes it.
func (h *Host) Open(p string) (_ *Group, err error) {
	if p, err = checkPath(p); err != nil {
		return nil, err
	}
	g := &Group{host: h, path: p}
	for i := range h.list {
		hier := &h.list[i]
		name, flags := hier.Mount+p+"/tasks", unix.O_WRONLY
		if hier.Name == unifiedName {
			name, flags = hier.Mount+p, unix.O_RDONLY|unix.O_DIRECTORY
		}
		// Not os.OpenFile: these files cannot be polled, and trying costs two system calls each.
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			g.Close()
			if err == unix.ENOENT {
				return nil, fmt.Errorf("cgroup %q: %w", p, errdefs.ErrNotFound)
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		if hier.Name == unifiedName {
			g.join.CloneInto = f
		} else {
			g.join.Tasks = append(g.join.Tasks, f)
		}
	}
	return g, nil
}

// Path names the group for Open.
func (g *Group) Path() string { return g.path }

// Paths are the group's directories by the names of hierarchies.
func (g *Group) Paths() map[string]string {
	out := make(map[string]string, len(g.host.list))
	for i := range g.host.list {
		out[g.host.list[i].Name] = g.host.list[i].Mount + g.path
	}
	return out
}

// Join returns what a process enters by. The files are the Group's.
func (g *Group) Join() Join { return g.join }

// Close releases the files. The group stays.
func (g *Group) Close() error {
	for _, f := range g.join.Tasks {
		f.Close()
	}
	if g.join.CloneInto != nil {
		g.join.CloneInto.Close()
	}
	g.join = Join{}
	return nil
}

// Update changes limits. What res leaves out stays as it is.
func (g *Group) Update(res *specs.LinuxResources) error {
	w, err := g.host.want(res, g.now())
	if err != nil {
		return err
	}
	return g.apply(&w, true)
}

// Scope says which processes Pids lists.
type Scope int

const (
	// Direct are the processes of the group itself.
	Direct Scope = iota
	// Recursive are those of the groups below too.
	Recursive
)

// anchor is the hierarchy in which processes are looked for.
func (g *Group) anchor() string {
	if g.host.version == 2 {
		return g.host.unified() + g.path
	}
	for _, c := range []string{"freezer", "pids", "memory"} {
		if m, ok := g.host.mount(c); ok {
			return m + g.path
		}
	}
	return g.host.list[0].Mount + g.path
}

// Pids lists processes in the caller's PID namespace. A group that is gone has none.
func (g *Group) Pids(scope Scope) (pids []int, err error) {
	err = filepath.WalkDir(g.anchor(), func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case scope == Direct && p != g.anchor():
			return fs.SkipDir
		}
		raw, err := readFile(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
			if n, err := strconv.Atoi(s.Text()); err == nil && n > 0 {
				pids = append(pids, n)
			}
		}
		return nil
	})
	return pids, err
}

// Kill sends a signal to all processes of the group. SIGKILL is repeated until none is left or ctx
// ends.
func (g *Group) Kill(ctx context.Context, sig unix.Signal) error {
	if sig == unix.SIGKILL && g.host.version == 2 {
		if done, err := g.kill2(ctx); done || err != nil {
			return err
		}
	}
	for {
		pids, err := g.Pids(Recursive)
		if err != nil || len(pids) == 0 {
			return err
		}
		if sig == unix.SIGKILL {
			// A frozen process dies when it thaws.
			if frozen, err := g.Frozen(); err == nil && frozen {
				if err := g.Thaw(ctx); err != nil {
					return err
				}
			}
		}
		for _, pid := range pids {
			if err := signal(g, pid, sig); err != nil {
				return err
			}
		}
		if sig != unix.SIGKILL {
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("cgroup %q: %d processes do not end: %w", g.path, len(pids), err)
		}
	}
}

// signal reaches a process only if it is still of the group: its number may belong to another one
// by now.
func signal(g *Group, pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended, or is a zombie's thread
	}
	defer unix.Close(fd)
	raw, err := readFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || !strings.Contains(string(raw), ":"+g.path) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), pid, err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Remove kills what is in the group, removes groups that were made below it, and then itself. A
// missing group is no error.
func (g *Group) Remove(ctx context.Context) error {
	g.Close()
	for i := range g.host.list {
		if err := g.removeTree(ctx, g.host.list[i].Mount+g.path); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) removeTree(ctx context.Context, dir string) error {
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY && err != unix.ENOTEMPTY {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		// Either groups below, or a process that is still on its way out.
		entries, rerr := os.ReadDir(dir)
		if rerr == nil {
			for _, e := range entries {
				if e.IsDir() {
					if err := g.removeTree(ctx, filepath.Join(dir, e.Name())); err != nil {
						return err
					}
				}
			}
		}
		if wait > time.Millisecond {
			if err := g.Kill(ctx, unix.SIGKILL); err != nil {
				return err
			}
		}
		if perr := pause(ctx, wait); perr != nil {
			return fmt.Errorf("rmdir %q: %w: %w", dir, err, perr)
		}
	}
}

// Freeze stops all processes of the group (freezer-subsystem.rst).
func (g *Group) Freeze(ctx context.Context) error {
	if g.host.version == 2 {
		return g.freeze2(ctx, "1")
	}
	return g.freezer(ctx, "FROZEN")
}

// Thaw lets them go on.
func (g *Group) Thaw(ctx context.Context) error {
	if g.host.version == 2 {
		return g.freeze2(ctx, "0")
	}
	return g.freezer(ctx, "THAWED")
}

func (g *Group) freezer(ctx context.Context, want string) error {
	mount, ok := g.host.mount("freezer")
	if !ok {
		return fmt.Errorf(
			"freeze: this host has no freezer controller: %w", errdefs.ErrFailedPrecondition,
		)
	}
	file := mount + g.path + "/freezer.state"
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		if err := writeFile(file, []byte(want)); err != nil {
			return err
		}
		raw, err := readFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(raw)) == want {
			return nil
		}
		// FREEZING: a process was forking. Writing again makes the kernel look again.
		if err := pause(ctx, wait); err != nil {
			writeFile(file, []byte("THAWED"))
			return fmt.Errorf("freeze cgroup %q: %w", g.path, err)
		}
	}
}

// Frozen says whether the group is frozen.
func (g *Group) Frozen() (bool, error) {
	if g.host.version == 2 {
		now, err := event(g.host.unified()+g.path, "frozen")
		return now == "1", err
	}
	mount, ok := g.host.mount("freezer")
	if !ok {
		return false, nil
	}
	raw, err := readFile(mount + g.path + "/freezer.state")
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(raw)) != "THAWED", nil
}
