// Package volume keeps local volumes: named directories that outlive containers.
//
// A volume is <root>/<name>/_data with its description in <root>/<name>/volume.json, which is
// written last when a volume is made and removed first when it goes, so that what lacks it is a
// leftover and removed by Open. The driver option o=bind with device=/path makes a volume stand for
// a directory of the host.
//
// Promises: a volume in use is not removed; names never become paths unchecked; filling from an
// image follows no symbolic link, copies owners, modes, times, extended attributes, hard links and
// device nodes, and is all or nothing for an unused volume.
//
// Not for: mounting, remote drivers, quotas.
//
// Locks: Store.mu guards the maps; fills are serialised per volume by entry.fill, which is taken
// without mu.
//
// Tested with real directories; what needs root says so.
package volume

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/message"
)

// Volume describes a volume. It is the caller's copy.
type Volume struct {
	Name    string
	Created time.Time
	Labels  map[string]string
	Options map[string]string
	// Anonymous volumes were made for one container and go with it.
	Anonymous bool
	// Path is the directory that containers see: <root>/<name>/_data, or the device of a bind
	// volume.
	Path string
	// Users are the IDs of the containers that refer to it, sorted.
	Users []string
}

// record is what volume.json holds.
type record struct {
	Version   int               `json:"version"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"`
	// Pending is the container in whose creation the volume is being made: if that never comes into
	// being, the volume goes again (Settle).
	Pending string `json:"pending,omitempty"`
}

type entry struct {
	name string
	rec  record
	use  map[string]int // guarded by Store.mu; container → number of mounts
	fill sync.Mutex
	gone bool // guarded by Store.mu
}

// Store is the set of volumes below one directory. Its methods may be called concurrently.
type Store struct {
	root  string
	fault func(step string)
	mu    sync.Mutex
	vols  map[string]*entry // guarded by mu
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

const (
	dataName   = "_data"
	stageName  = "_stage"
	recordName = "volume.json"
)

// Config describes a store.
type Config struct {
	// Root is a directory that only this store uses; it is made when missing.
	Root string
	// Fault, if not nil, is called before each step that changes the disk, with the step's name:
	// tests end the process there.
	Fault func(step string)
}

// Open opens or makes the store and removes what a crash left behind.
func Open(cfg Config) (*Store, error) {
	root := cfg.Root
	s := &Store{root: root, fault: cfg.Fault, vols: map[string]*entry{}}
	if s.fault == nil {
		s.fault = func(string) {}
	}
	// Set-user-ID files may lie below: only root can enter.
	if err := os.MkdirAll(root, 0o701); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	for _, d := range list {
		if !validName.MatchString(d.Name()) || !d.IsDir() {
			continue
		}
		dir := filepath.Join(root, d.Name())
		b, err := os.ReadFile(filepath.Join(dir, recordName))
		if errors.Is(err, fs.ErrNotExist) {
			if err := os.RemoveAll(dir); err != nil {
				return nil, fmt.Errorf("remove unfinished volume: %w", err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open volume %q: %w", d.Name(), err)
		}
		e := &entry{name: d.Name(), use: map[string]int{}}
		if err := json.Unmarshal(b, &e.rec); err != nil {
			return nil, fmt.Errorf("open volume %q: %s: %w", d.Name(), recordName, err)
		}
		if e.rec.Version != 1 {
			return nil, message.New(
				errdefs.ErrFailedPrecondition,
				"open volume %q: %s has version %d, this strake knows 1", d.Name(), recordName,
				e.rec.Version,
			)
		}
		if err := os.RemoveAll(filepath.Join(dir, stageName)); err != nil {
			return nil, fmt.Errorf("open volume %q: %w", d.Name(), err)
		}
		s.vols[d.Name()] = e
	}
	return s, nil
}

// CreateOptions describe a new volume.
type CreateOptions struct {
	// Name is empty for a random one.
	Name      string
	Driver    string // "" or "local"
	Options   map[string]string
	Labels    map[string]string
	Anonymous bool
}

// Create makes a volume. One that exists with the same options is returned as it is, and made says
// false; with others it is errdefs.ErrAlreadyExists. A bad name, driver or option is
// errdefs.ErrInvalidArgument.
func (s *Store) Create(o CreateOptions) (v Volume, made bool, err error) {
	if err := check(&o); err != nil {
		return Volume{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, made, err := s.create(&o, "")
	if err == nil && e.rec.Pending != "" {
		// A volume that is asked for by itself stays, also if the creation of the container that it
		// was made for fails.
		err = s.settle(e)
	}
	if err != nil {
		return Volume{}, false, err
	}
	return s.public(e), made, nil
}

// Acquire is Create and a reference of a container in one step: no caller can remove the volume in
// between. A volume that it makes is the container's until Confirm: if the process dies before, the
// next one's Settle removes it.
func (s *Store) Acquire(o CreateOptions, container string) (v Volume, made bool, err error) {
	if err := check(&o); err != nil {
		return Volume{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, made, err := s.create(&o, container)
	if err != nil {
		return Volume{}, false, err
	}
	e.use[container]++
	return s.public(e), made, nil
}

// Adopt notes that a container which was there before refers to the volume. A volume that is gone
// is errdefs.ErrNotFound.
func (s *Store) Adopt(name, container string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return Volume{}, err
	}
	e.use[container]++
	return s.public(e), nil
}

// Release drops one reference of a container. Dropping what is not held does nothing.
func (s *Store) Release(name, container string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.vols[name]; ok {
		if e.use[container]--; e.use[container] <= 0 {
			delete(e.use, container)
		}
	}
}

func check(o *CreateOptions) error {
	if o.Driver != "" && o.Driver != "local" {
		return message.New(
			errdefs.ErrNotFound, "error looking up volume plugin %s: plugin %q not found", o.Driver,
			o.Driver,
		)
	}
	if o.Name == "" {
		var b [32]byte
		rand.Read(b[:])
		o.Name = hex.EncodeToString(b[:])
	}
	if !validName.MatchString(o.Name) || len(o.Name) > 255 {
		return message.New(
			errdefs.ErrInvalidArgument,
			"create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
			o.Name, o.Name,
		)
	}
	for k := range o.Options {
		if !slices.Contains([]string{"type", "o", "device"}, k) {
			return message.New(
				errdefs.ErrInvalidArgument,
				"create %s: invalid option: %q: want \"type\", \"o\" or \"device\"", o.Name, k,
			)
		}
	}
	if len(o.Options) == 0 {
		return nil
	}
	if t := o.Options["type"]; t != "" && t != "none" && t != "bind" {
		return message.New(
			errdefs.ErrInvalidArgument,
			"create %s: option type=%q: the local driver binds directories of the host (type=none, o=bind, device=/path)",
			o.Name, t,
		)
	}
	if !slices.ContainsFunc(
		strings.Split(o.Options["o"], ","),
		func(x string) bool { return x == "bind" || x == "rbind" },
	) {
		return message.New(
			errdefs.ErrInvalidArgument, "create %s: option o=%q: want \"bind\"", o.Name,
			o.Options["o"],
		)
	}
	if !filepath.IsAbs(o.Options["device"]) {
		return message.New(
			errdefs.ErrInvalidArgument, "create %s: option device=%q: want an absolute path",
			o.Name, o.Options["device"],
		)
	}
	return nil
}

// Confirm says that the container for which Acquire made the volume has come into being.
func (s *Store) Confirm(name, container string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil || e.rec.Pending != container {
		return err
	}
	return s.settle(e)
}

// settle makes a pending volume one like any other. Callers hold mu.
func (s *Store) settle(e *entry) error {
	s.fault("volume: confirm")
	was := e.rec.Pending
	e.rec.Pending = ""
	if err := e.save(filepath.Join(s.root, e.name)); err != nil {
		e.rec.Pending = was
		return fmt.Errorf("confirm volume %q: %w", e.name, err)
	}
	return nil
}

// Settle ends what interrupted creations of containers left, after the containers that exist have
// adopted theirs: pending volumes that are in use are confirmed, others are removed.
func (s *Store) Settle() error {
	s.mu.Lock()
	var errs []error
	var left []string
	for name, e := range s.vols {
		switch {
		case e.rec.Pending == "":
		case len(e.use) > 0:
			errs = append(errs, s.settle(e))
		default:
			left = append(left, name)
		}
	}
	s.mu.Unlock()
	for _, name := range left {
		errs = append(errs, s.Remove(name))
	}
	return errors.Join(errs...)
}

// create is called with mu held. What it makes is pending for a container, if one is named.
func (s *Store) create(o *CreateOptions, pending string) (*entry, bool, error) {
	if e, ok := s.vols[o.Name]; ok {
		if len(o.Options) > 0 && !maps.Equal(o.Options, e.rec.Options) {
			return nil, false, message.New(
				errdefs.ErrAlreadyExists, "volume %q exists with other options", o.Name,
			)
		}
		return e, false, nil
	}
	e := &entry{name: o.Name, use: map[string]int{}, rec: record{
		Version: 1, Created: time.Now().UTC(), Labels: maps.Clone(o.Labels),
		Options: maps.Clone(o.Options), Anonymous: o.Anonymous, Pending: pending,
	}}
	dir := filepath.Join(s.root, o.Name)
	undo := func(err error) (*entry, bool, error) {
		return nil, false, fmt.Errorf(
			"create volume %q: %w", o.Name, errors.Join(err, os.RemoveAll(dir)),
		)
	}
	s.fault("volume: make directory")
	if err := os.Mkdir(dir, 0o701); err != nil {
		return nil, false, fmt.Errorf("create volume %q: %w", o.Name, err)
	}
	if err := os.Mkdir(filepath.Join(dir, dataName), 0o755); err != nil {
		return undo(err)
	}
	s.fault("volume: record")
	if err := e.save(dir); err != nil {
		return undo(err)
	}
	s.vols[o.Name] = e
	return e, true, nil
}

func (e *entry) save(dir string) error {
	b, err := json.Marshal(&e.rec)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+recordName)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordName))
}

func (s *Store) find(name string) (*entry, error) {
	if e, ok := s.vols[name]; ok {
		return e, nil
	}
	return nil, message.New(errdefs.ErrNotFound, "get %s: no such volume", name)
}

func (s *Store) public(e *entry) Volume {
	v := Volume{
		Name: e.name, Created: e.rec.Created, Labels: maps.Clone(e.rec.Labels),
		Options:   maps.Clone(e.rec.Options),
		Anonymous: e.rec.Anonymous, Path: filepath.Join(s.root, e.name, dataName),
		Users: slices.Sorted(maps.Keys(e.use)),
	}
	if d := e.rec.Options["device"]; d != "" {
		v.Path = d
	}
	return v
}

// Get finds a volume by name; errdefs.ErrNotFound.
func (s *Store) Get(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(name)
	if err != nil {
		return Volume{}, err
	}
	return s.public(e), nil
}

// List returns all volumes by name.
func (s *Store) List() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Volume, 0, len(s.vols))
	for _, e := range s.vols {
		out = append(out, s.public(e))
	}
	slices.SortFunc(out, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Remove removes a volume and its data. One in use is errdefs.ErrAlreadyExists (HTTP 409), an
// unknown one ErrNotFound.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	e, err := s.find(name)
	if err == nil && len(e.use) > 0 {
		users := slices.Sorted(maps.Keys(e.use))
		err = message.New(
			errdefs.ErrAlreadyExists, "remove %s: volume is in use - [%s]", name,
			strings.Join(users, ", "),
		)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	dir := filepath.Join(s.root, name)
	s.fault("volume: remove record")
	err = os.Remove(filepath.Join(dir, recordName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.mu.Unlock()
		return fmt.Errorf("remove %s: %w", name, err)
	}
	// The name is free at once; what takes long happens aside.
	s.fault("volume: put aside")
	aside := filepath.Join(s.root, ".gone-"+rand.Text())
	err = os.Rename(dir, aside)
	delete(s.vols, name)
	e.gone = true
	s.mu.Unlock()
	s.fault("volume: remove data")
	if err == nil {
		err = os.RemoveAll(aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Sweep removes the data of volumes whose removal a crash interrupted.
func (s *Store) Sweep() error {
	left, err := filepath.Glob(filepath.Join(s.root, ".gone-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Fill copies the directory src into the volume if that is empty and owned by it; a bind volume is
// left alone. Where no other container uses the volume it appears whole or not at all. src is a
// handle below the image's root.
func (s *Store) Fill(name, container string, src *os.File) error {
	s.mu.Lock()
	e, err := s.find(name)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if e.rec.Options["device"] != "" {
		return nil
	}
	e.fill.Lock()
	defer e.fill.Unlock()
	dir := filepath.Join(s.root, name)
	data := filepath.Join(dir, dataName)
	if empty, err := isEmpty(data); err != nil || !empty {
		return err
	}
	s.mu.Lock()
	shared := len(e.use) > 1 || len(e.use) == 1 && e.use[container] == 0
	s.mu.Unlock()
	target := filepath.Join(dir, stageName)
	if shared {
		target = data
	} else if err := os.Mkdir(target, 0o700); err != nil {
		return fmt.Errorf("fill volume %q: %w", name, err)
	}
	s.fault("volume: fill")
	err = copyInto(target, src)
	s.fault("volume: filled")
	if err == nil && !shared {
		// rename(2): an empty directory may be replaced by another directory.
		err = unix.Rename(target, data)
	}
	if err != nil {
		if !shared {
			err = errors.Join(err, os.RemoveAll(target))
		}
		return fmt.Errorf("fill volume %q: %w", name, err)
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}
