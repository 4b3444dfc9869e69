package network

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
	"strake/network/firewall"
)

// recordVersion is the version of the format of all records.
const recordVersion = 1

// phase is where a network is in its life; on disk, so that a crash in between is noticed.
type phase string

const (
	phaseReady    phase = ""
	phaseCreating phase = "creating"
	phaseRemoving phase = "removing"
)

// networkRecord is <StateDir>/networks/<ID>.json.
type networkRecord struct {
	Version int
	Phase   phase `json:",omitempty"`
	Network
	// Default marks the network that cannot be removed.
	Default bool `json:",omitempty"`
}

// endpointRecord is <StateDir>/endpoints/<ID>.json. It is written once, before Attach returns, and
// not synced: after a power failure neither the container nor its interface exists. An incomplete
// one belongs to an Attach that never returned.
type endpointRecord struct {
	Version     int
	ID          string
	Owner       string `json:",omitempty"` // of the container; empty in records of older versions
	ContainerID string
	NetworkID   string
	Name        string       `json:",omitempty"`
	Names       []string     `json:",omitempty"` // all that it can be called
	DNS         []netip.Addr `json:",omitempty"`
	IPv4, IPv6  netip.Prefix
	MAC         string
	Host        string    // the host's end of the veth pair
	Interface   string    // the container's end
	Cookie      uint64    // of the network namespace
	Ports       []binding `json:",omitempty"`
	Recycling   Recycling `json:",omitempty"`
	// Place is how many networks the container was in before.
	Place           int `json:",omitempty"`
	GatewayPriority int `json:",omitempty"`
	// Baseline is what the counters of Host said before the container had it.
	Baseline Stats
}

// binding is a published port on one address of the host. Its fields are those of the record.
type binding struct {
	Proto         firewall.Proto
	ContainerPort uint16
	HostIP        netip.Addr
	HostPort      uint16
}

func (b binding) String() string {
	return netip.AddrPortFrom(b.HostIP, b.HostPort).String() + "/" + b.Proto.String()
}

// hostRecord is <StateDir>/host.json: what concerns the host as a whole.
type hostRecord struct {
	Version int
	Prefix  string
	// PoolV6 is the drawn unique local range.
	PoolV6 netip.Prefix
	// Sysctls are former values of what was changed, in the order of the changes.
	Sysctls []sysctlValue `json:",omitempty"`
}

type sysctlValue struct{ Name, Value string }

// store is the directory of records.
type store struct {
	dir string
	// run holds the records of endpoints, which end with the host's boot; it may be dir.
	run   string
	lock  *os.File
	fault func(step string)
}

func openStore(dir, run string, fault func(step string)) (*store, error) {
	if run == "" {
		run = dir
	}
	for _, d := range []string{
		dir, filepath.Join(dir, "networks"), filepath.Join(run, endpointDir),
	} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("network state: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("network state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(
			fmt.Errorf("network state %q is in use by another process: %w", dir, err), f.Close(),
		)
	}
	s := &store{dir, run, f, fault}
	if err := s.moveEndpoints(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// moveEndpoints takes over the records of endpoints that lie beside those of networks: there an
// earlier version kept them.
func (s *store) moveEndpoints() error {
	old := filepath.Join(s.dir, endpointDir)
	if s.run == s.dir {
		return nil
	}
	list, err := os.ReadDir(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		var raw []byte
		if raw, err = rawfile.Read(filepath.Join(old, e.Name())); err == nil {
			err = rawfile.Write(filepath.Join(s.run, endpointDir, e.Name()), raw, 0o600)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = os.RemoveAll(old)
	}
	if err != nil {
		return fmt.Errorf("network state: %w", err)
	}
	return nil
}

// path is where a record is.
func (s *store) path(name string) string {
	if filepath.Dir(name) == endpointDir {
		return filepath.Join(s.run, name)
	}
	return filepath.Join(s.dir, name)
}

func (s *store) close() error { return s.lock.Close() }

// durable writes a record that has to survive a power failure.
func (s *store) durable(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %q: %w", name, err)
	}
	path := filepath.Join(s.dir, name)
	s.fault("record: write")
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return fmt.Errorf("write record %q: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	s.fault("record: rename")
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write record %q: %w", name, errors.Join(err, removeIfThere(f.Name())))
	}
	return nil
}

// quick writes a record that only has to survive this process.
func (s *store) quick(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %q: %w", name, err)
	}
	path := s.path(name)
	if err := rawfile.Write(path, data, 0o600); err != nil {
		return fmt.Errorf("write record %q: %w", name, errors.Join(err, removeIfThere(path)))
	}
	return nil
}

func (s *store) remove(name string) error { return removeIfThere(s.path(name)) }

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// load reads one record. A missing one is reported as fs.ErrNotExist.
func load[T any](path string) (T, error) {
	var v T
	data, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("record %q: %w", path, err)
	}
	return v, nil
}

// loadAll reads the records of a directory by ID. Those that cannot be read, or are of another
// version, are named in bad.
func loadAll[T any](dir string, version func(T) int) (good map[string]T, bad []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("network state: %w", err)
	}
	good = map[string]T{}
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || !isID(id) {
			bad = append(bad, e.Name())
			continue
		}
		v, err := load[T](filepath.Join(dir, e.Name()))
		if err != nil || version(v) != recordVersion {
			bad = append(bad, e.Name())
			continue
		}
		good[id] = v
	}
	return good, bad, nil
}

func networkFile(id string) string  { return filepath.Join("networks", id+".json") }
func endpointFile(id string) string { return filepath.Join(endpointDir, id+".json") }

// endpointDir has the records of endpoints.
const endpointDir = "endpoints"

// randomHex returns 2n hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
