package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
	"strake/network/place"
)

// A sandbox with a record of its own is a directory <Root>/sandboxes/<ID> with sandbox.json. The
// directory appears with the record in it, by a rename from ".<ID>~<owner>", so that every
// directory says whose it is; later versions of the record replace the file in one step.
const (
	recordVersion = 1
	recordFile    = "sandbox.json"
)

type recordOnDisk struct {
	Version int `json:"version"`
	Record
}

func (s *Store) dir(id string) string { return filepath.Join(s.cfg.Root, "sandboxes", id) }

// temporary is where a directory is filled before it appears.
func (s *Store) temporary(rec *Record) string { return s.dir("." + rec.ID + "~" + rec.Owner) }

// establish makes a sandbox's directory with its record.
func (s *Store) establish(rec *Record) error {
	tmp := s.temporary(rec)
	err := os.RemoveAll(tmp)
	if err == nil {
		err = os.Mkdir(tmp, 0o711)
	}
	if err == nil {
		err = writeRecord(tmp, recordFile, rec)
	}
	if err == nil {
		err = os.Rename(tmp, s.dir(rec.ID))
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return fmt.Errorf("sandbox %q: %w", rec.ID, errors.Join(err, os.RemoveAll(tmp)))
	}
	return nil
}

// discard removes a sandbox's directory. It gets its temporary name first, so that a removal that
// is interrupted leaves a directory that says whose it is, as establish does.
func (s *Store) discard(rec *Record) error {
	tmp := s.temporary(rec)
	err := os.RemoveAll(tmp)
	if err == nil {
		err = os.Rename(s.dir(rec.ID), tmp)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.RemoveAll(tmp)
	}
	return err
}

func writeRecord(dir, name string, rec *Record) error {
	raw, err := json.Marshal(recordOnDisk{recordVersion, *rec})
	if err != nil {
		return err
	}
	return rawfile.Write(filepath.Join(dir, name), raw, 0o600)
}

// write replaces the record of a sandbox whose directory exists.
func (s *Store) write(rec *Record) error {
	tmp := filepath.Join(s.dir(rec.ID), "."+recordFile)
	err := writeRecord(s.dir(rec.ID), "."+recordFile, rec)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir(rec.ID), recordFile))
	}
	if err != nil {
		return fmt.Errorf("sandbox %q: %w", rec.ID, errors.Join(err, os.RemoveAll(tmp)))
	}
	return nil
}

// Save writes the record of a sandbox that has one of its own, after SetEndpoint; for others it
// does nothing.
func (s *Store) Save(sb *Sandbox) error {
	sb.op.Lock()
	defer sb.op.Unlock()
	rec := sb.Record()
	if rec.Holder == nil && rec.Spec == nil {
		return nil
	}
	return s.write(&rec)
}

// Restore makes the implicit sandbox of a running container from the record that the container
// keeps. If the sandbox is held, it is the one that Recover has found.
func (s *Store) Restore(rec Record) *Sandbox {
	if sb, err := s.Get(rec.ID); err == nil {
		return sb
	}
	return &Sandbox{store: s, rec: rec, members: map[string]bool{}}
}

// Recover brings back the sandboxes of one owner that have records of their own, and ends what an
// interrupted operation of that owner left: holders without a record, records whose holder is gone
// (the machine was restarted). It is called once for each owner, before its first other call, and
// touches nothing of another owner. members says who is in an implicit sandbox; one without members
// is released by Settle.
func (s *Store) Recover(ctx context.Context, owner string) error {
	list, err := os.ReadDir(s.dir(""))
	if err != nil {
		return fmt.Errorf("recover sandboxes: %w", err)
	}
	var errs []error
	for _, d := range list {
		switch {
		case !strings.HasPrefix(d.Name(), "."):
			errs = append(errs, s.recoverOne(ctx, owner, d.Name()))
		case strings.HasSuffix(d.Name(), "~"+owner):
			errs = append(errs, os.RemoveAll(s.dir(d.Name())))
		}
	}
	// A holder that was started and never recorded holds nothing that anybody knows of.
	for _, f := range s.cfg.Tasks.Found(owner) {
		if strings.HasPrefix(f.ID, HolderID("")) {
			errs = append(errs, s.cfg.Tasks.Abort(ctx, f.ID))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) recoverOne(ctx context.Context, owner, id string) error {
	raw, err := os.ReadFile(filepath.Join(s.dir(id), recordFile))
	if err != nil {
		return fmt.Errorf("recover sandbox %q: %w", id, err)
	}
	var rec recordOnDisk
	err = json.Unmarshal(raw, &rec)
	if err == nil && rec.ID != id {
		err = fmt.Errorf("it is the record of %q", rec.ID)
	}
	if err != nil || rec.Version != recordVersion {
		// It is left as it is: evidence, and perhaps a later version's.
		s.cfg.Log.Error(
			"a sandbox's record cannot be read; it is left alone", "sandbox", id, "version",
			rec.Version, "error", err,
		)
		return nil
	}
	if rec.Owner != owner {
		return nil
	}
	sb := &Sandbox{store: s, rec: rec.Record, members: map[string]bool{}}
	s.mu.Lock()
	s.live[id] = sb
	s.mu.Unlock()
	if rec.Holder == nil {
		return sb.release(ctx)
	}
	holder, err := s.cfg.Tasks.Adopt(ctx, *rec.Holder, nil)
	if err == nil {
		select {
		case <-holder.Done():
			err = fmt.Errorf("the holder has ended")
		default:
		}
	}
	if err != nil {
		s.cfg.Log.Info("a sandbox's holder is gone", "sandbox", id, "error", err)
		return sb.release(ctx)
	}
	sb.holder = holder
	return nil
}

// Settle releases the implicit sandboxes of an owner that have no member, after the owner's
// containers that run have entered theirs.
func (s *Store) Settle(ctx context.Context, owner string) error {
	var errs []error
	for _, sb := range s.List(owner) {
		if sb.Record().Spec == nil && len(sb.Members()) == 0 {
			errs = append(errs, sb.release(ctx))
		}
	}
	return errors.Join(errs...)
}

// Live returns where the sandboxes of an owner that are held are in the network, for the network's
// Reconcile. close closes the descriptors that the paths name.
func (s *Store) Live(owner string) (live map[string]place.Live, close func(), err error) {
	live = map[string]place.Live{}
	var open []*Namespaces
	close = func() {
		for _, n := range open {
			n.Close()
		}
	}
	for _, sb := range s.List(owner) {
		rec := sb.Record()
		if !rec.Attached {
			continue
		}
		n, err := sb.Join(specs.NetworkNamespace)
		if err != nil {
			close()
			return nil, nil, err
		}
		open = append(open, n)
		live[rec.ID] = place.Live{
			NetnsPath: n.Path(specs.NetworkNamespace), Endpoints: rec.Endpoints,
		}
	}
	return live, close, nil
}

// Sweep removes shared memory and files of an owner that belong to none of its sandboxes: keep says
// which IDs the owner's implicit sandboxes have.
func (s *Store) Sweep(owner string, keep func(id string) bool) error {
	list, err := os.ReadDir(s.runDir(owner, ""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, d := range list {
		if _, err := s.Get(d.Name()); err == nil || keep(d.Name()) {
			continue
		}
		errs = append(errs, removeRunDir(s.runDir(owner, d.Name())))
	}
	return errors.Join(errs...)
}

// Teardown takes back what sandboxes of every owner have in the kernel beside their holders and
// their places in the network. Their records stay; the next Recover of their owners ends them.
func (s *Store) Teardown() error {
	owners, err := os.ReadDir(s.runDir("", ""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, o := range owners {
		list, err := os.ReadDir(s.runDir(o.Name(), ""))
		errs = append(errs, err)
		for _, d := range list {
			errs = append(errs, removeRunDir(s.runDir(o.Name(), d.Name())))
		}
	}
	return errors.Join(errs...)
}
