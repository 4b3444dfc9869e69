package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
	"strake/network/place"
	"strake/task"
)

var (
	idPattern    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	ownerPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// Names of the files about the network in a sandbox's directory.
const (
	hostsFile    = "hosts"
	hostnameFile = "hostname"
	resolvFile   = "resolv.conf"
)

// undo collects what takes back the steps of an operation, for the case that a later one fails.
type undo []func(ctx context.Context) error

func (u *undo) add(f func(ctx context.Context) error) { *u = append(*u, f) }

func (u undo) run(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i](ctx))
	}
	return err
}

// Prepare makes an implicit sandbox: its place in the network, its files and its shared memory. The
// caller keeps Record with its own record and ends the sandbox by Leave. What a killed caller has
// not recorded is found by enumeration: the network's Reconcile and SweepShm. Nothing is left if
// there is an error.
func (s *Store) Prepare(ctx context.Context, spec *Spec) (_ *Sandbox, err error) {
	sb := &Sandbox{
		store: s, rec: Record{ID: spec.ID, Owner: spec.Owner}, members: map[string]bool{},
	}
	var back undo
	defer func() {
		if err != nil {
			err = back.run(ctx, err)
		}
	}()
	if err := s.occupy(ctx, sb, spec, &back); err != nil {
		return nil, err
	}
	return sb, nil
}

// occupy makes the place in the network, the shared memory and the files.
func (s *Store) occupy(ctx context.Context, sb *Sandbox, spec *Spec, back *undo) error {
	rec := sb.rec
	p := &place.Place{}
	var err error
	if spec.Network != SharedNetwork {
		if p, err = s.attach(ctx, spec); err != nil {
			return err
		}
	}
	if spec.Network == OwnNetwork {
		back.add(func(ctx context.Context) error { return s.cfg.Network.Detach(ctx, spec.ID) })
		rec.Attached, rec.NetnsPath, rec.Endpoints, rec.Ports = true, p.NetnsPath, p.Endpoints, p.Ports
	}
	if spec.ShmBytes <= 0 && spec.Network == SharedNetwork {
		sb.rec = rec
		return nil
	}
	dir := s.runDir(spec.Owner, spec.ID)
	back.add(func(context.Context) error { return removeRunDir(dir) })
	if err := makeRunDir(dir); err != nil {
		return fmt.Errorf("sandbox %q: %w", spec.ID, err)
	}
	if spec.ShmBytes > 0 {
		rec.Shm = filepath.Join(dir, shmName)
		if err := s.mountShm(rec.Shm, spec.ShmBytes); err != nil {
			return err
		}
	}
	if spec.Network != SharedNetwork {
		if rec.Files, err = s.writeFiles(dir, spec, p); err != nil {
			return err
		}
	}
	sb.rec = rec
	return nil
}

func (s *Store) attach(ctx context.Context, spec *Spec) (*place.Place, error) {
	req := spec.Place
	req.ID, req.Owner = spec.ID, spec.Owner
	if spec.Network == OwnNetwork {
		return s.cfg.Network.Attach(ctx, &req)
	}
	hosts, resolv, err := s.cfg.Network.HostFiles(&req, spec.Network == NoNetwork)
	return &place.Place{Hosts: hosts, ResolvConf: resolv}, err
}

// writeFiles writes hosts, hostname and resolv.conf: in place and not renamed, since members that
// run have the files themselves mounted.
func (s *Store) writeFiles(dir string, spec *Spec, p *place.Place) (Files, error) {
	if err := s.fault("start: files"); err != nil {
		return Files{}, err
	}
	name := spec.Hostname
	if spec.Domainname != "" {
		name += "." + spec.Domainname
	}
	f := Files{
		Hosts: dir + "/" + hostsFile, Hostname: dir + "/" + hostnameFile,
		ResolvConf: dir + "/" + resolvFile,
	}
	for _, w := range []struct {
		path string
		data []byte
	}{{f.Hosts, p.Hosts}, {f.Hostname, []byte(name + "\n")}, {f.ResolvConf, p.ResolvConf}} {
		if err := rawfile.Write(w.path, w.data, 0o644); err != nil {
			return Files{}, fmt.Errorf("sandbox %q: %w", spec.ID, err)
		}
	}
	return f, nil
}

// Create makes an explicit sandbox with its holder. It is recorded when Create returns. An ID in
// use is errdefs.ErrAlreadyExists. Nothing is left if there is an error.
func (s *Store) Create(ctx context.Context, spec Spec) (_ *Sandbox, err error) {
	if !idPattern.MatchString(spec.ID) {
		return nil, fmt.Errorf(
			"sandbox ID %q: want a letter or digit, then up to 127 letters, digits, '_', '.' "+
				"and '-': %w", spec.ID, errdefs.ErrInvalidArgument,
		)
	}
	if !ownerPattern.MatchString(spec.Owner) {
		return nil, fmt.Errorf(
			"owner %q of sandbox %q: want a lower-case letter, then up to 31 of those, digits and "+
				"'-': %w", spec.Owner, spec.ID, errdefs.ErrInvalidArgument,
		)
	}
	sb := &Sandbox{store: s, members: map[string]bool{}, rec: Record{
		ID: spec.ID, Owner: spec.Owner, Created: time.Now().UTC(), Spec: &spec,
	}}
	s.mu.Lock()
	_, taken := s.live[spec.ID]
	if !taken {
		s.live[spec.ID] = sb
	}
	s.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("sandbox %q: %w", spec.ID, errdefs.ErrAlreadyExists)
	}
	sb.op.Lock()
	defer sb.op.Unlock()
	var back undo
	back.add(func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, spec.ID)
		return nil
	})
	defer func() {
		if err != nil {
			sb.mu.Lock()
			sb.gone = true
			sb.mu.Unlock()
			err = back.run(ctx, err)
		}
	}()
	if err := s.fault("create: sandbox record"); err != nil {
		return nil, err
	}
	if err := s.establish(&sb.rec); err != nil {
		return nil, err
	}
	// Only now is the directory this sandbox's: before, it may have been another owner's, or one
	// that Recover left alone.
	back.add(func(context.Context) error { return s.discard(&sb.rec) })
	if err := s.fault("create: sandbox network"); err != nil {
		return nil, err
	}
	if err := s.occupy(ctx, sb, &spec, &back); err != nil {
		return nil, err
	}
	cfg := holderConfig(&spec, sb.rec.NetnsPath)
	return sb, s.hold(ctx, sb, cfg, &back)
}

// holderConfig is the configuration of an explicit sandbox's holder: it joins the network
// namespace and makes the others.
func holderConfig(spec *Spec, netns string) *specs.Spec {
	cfg := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{Sysctl: spec.Sysctls}}
	add := func(wanted bool, t specs.LinuxNamespaceType, path string) {
		if wanted {
			cfg.Linux.Namespaces = append(
				cfg.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path},
			)
		}
	}
	add(len(spec.UIDMappings) > 0, specs.UserNamespace, "")
	cfg.Linux.UIDMappings, cfg.Linux.GIDMappings = spec.UIDMappings, spec.GIDMappings
	add(spec.Network != HostNetwork, specs.NetworkNamespace, netns)
	add(spec.IPC, specs.IPCNamespace, "")
	add(spec.UTS, specs.UTSNamespace, "")
	add(spec.PID, specs.PIDNamespace, "")
	if spec.UTS {
		cfg.Hostname, cfg.Domainname = spec.Hostname, spec.Domainname
	}
	return cfg
}

// HolderID is the ID of a sandbox's holder among tasks.
func HolderID(id string) string { return "hold-" + id }

// hold starts the holder and writes the record. Precondition: sb.op is held.
func (s *Store) hold(ctx context.Context, sb *Sandbox, cfg *specs.Spec, back *undo) error {
	rec := sb.Record()
	if err := s.fault("hold: process"); err != nil {
		return err
	}
	holder, err := s.cfg.Tasks.Start(ctx, &task.Spec{
		ID: HolderID(rec.ID), Owner: rec.Owner, Config: cfg,
	})
	if err != nil {
		return fmt.Errorf("hold the namespaces of sandbox %q: %w", rec.ID, err)
	}
	back.add(func(ctx context.Context) error { return s.cfg.Tasks.Abort(ctx, holder.ID()) })
	held := holder.Record()
	rec.Holder = &held
	if err := s.fault("hold: record"); err != nil {
		return err
	}
	record := s.write
	if rec.Spec == nil {
		record = s.establish
	}
	if err := record(&rec); err != nil {
		return err
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.rec, sb.holder = rec, holder
	return nil
}

// Hold gives an implicit sandbox a holder and a record of its own, so that it outlives first, its
// first member, whose namespaces are held. Repeating it does nothing.
func (s *Store) Hold(ctx context.Context, sb *Sandbox, first task.Task) (err error) {
	sb.op.Lock()
	defer sb.op.Unlock()
	if sb.Held() {
		return nil
	}
	rec := sb.Record()
	cfg := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{}}
	for _, t := range []specs.LinuxNamespaceType{
		specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace,
	} {
		f, err := first.Namespace(t)
		if err != nil {
			return fmt.Errorf("hold sandbox %q: %w", rec.ID, err)
		}
		defer f.Close()
		cfg.Linux.Namespaces = append(
			cfg.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: SelfPath(f)},
		)
	}
	var back undo
	defer func() {
		if err != nil {
			err = back.run(ctx, err)
		}
	}()
	if err := s.hold(ctx, sb, cfg, &back); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[rec.ID] = sb
	return nil
}

// SelfPath names an open file for this process to open again.
func SelfPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// Namespaces are open namespaces of a sandbox. Close closes them; processes that have joined are
// not affected.
type Namespaces struct {
	files map[specs.LinuxNamespaceType]*os.File
}

// Path names a namespace for specs.LinuxNamespace.Path, valid in this process until Close; empty
// if the sandbox has none of the kind.
func (n *Namespaces) Path(t specs.LinuxNamespaceType) string {
	if f := n.files[t]; f != nil {
		return SelfPath(f)
	}
	return ""
}

// Close closes the descriptors.
func (n *Namespaces) Close() {
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}

// Join opens the namespaces of a held sandbox, of those kinds that it has, for a task to join.
func (sb *Sandbox) Join(kinds ...specs.LinuxNamespaceType) (_ *Namespaces, err error) {
	sb.mu.Lock()
	holder, rec := sb.holder, sb.rec
	sb.mu.Unlock()
	if holder == nil {
		return nil, fmt.Errorf(
			"join sandbox %q: its namespaces are not held: %w", rec.ID,
			errdefs.ErrFailedPrecondition,
		)
	}
	n := &Namespaces{files: map[specs.LinuxNamespaceType]*os.File{}}
	for _, t := range kinds {
		if flagOf(t)&holder.Record().Namespaces == 0 {
			continue
		}
		f, err := holder.Namespace(t)
		if err != nil {
			n.Close()
			return nil, fmt.Errorf("join sandbox %q: %w", rec.ID, err)
		}
		n.files[t] = f
	}
	return n, nil
}

func flagOf(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	}
	return 0
}

// runDir is what a sandbox has in files that end with the host's boot.
func (s *Store) runDir(owner, id string) string {
	return filepath.Join(s.cfg.Run, "sandbox", owner, id)
}

// shmName is where shared memory is mounted, in the sandbox's directory.
const shmName = "shm"

func makeRunDir(dir string) error {
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o711); err == nil {
			err = rawfile.Spread(filepath.Dir(dir)) // the first one of its owner
		}
	}
	if errors.Is(err, os.ErrExist) {
		err = nil // of a life that was interrupted
	}
	return err
}

// removeRunDir removes a sandbox's directory and the shared memory that is mounted in it.
func removeRunDir(dir string) error {
	if rawfile.RemoveDir(dir, hostsFile, hostnameFile, resolvFile) {
		return nil
	}
	return errors.Join(releaseShm(filepath.Join(dir, shmName)), os.RemoveAll(dir))
}

// mountShm mounts a /dev/shm that members share. It is the one mount that the host sees.
func (s *Store) mountShm(dir string, size int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("shared memory: %w", err)
	}
	if err := s.fault("start: shared memory"); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	err := unix.Mount("shm", dir, "tmpfs", flags, fmt.Sprintf("mode=1777,size=%d", size))
	if err != nil {
		return fmt.Errorf("mount shared memory: %w", err)
	}
	return nil
}

func releaseShm(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // not mounted
	}
	return err
}
