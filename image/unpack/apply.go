package unpack

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/image/layer"
	"strake/image/overlay"
	"strake/image/progress"
)

// openBelow opens the directories of the layers below, top first.
func (u *unpacking) openBelow() ([]*os.File, error) {
	var names []string
	for _, r := range u.below() {
		names = append([]string{filepath.Join(u.u.backend.LayersDir(), r.Dir)}, names...)
	}
	return layer.OpenDirs(names)
}

// apply unpacks the archive below root and compares what was unpacked with the diff ID.
func (u *unpacking) apply(
	ctx context.Context, root *os.File, style layer.Style,
) (layer.Result, error) {
	blob, err := u.Open(ctx)
	if err != nil {
		return layer.Result{}, err
	}
	defer blob.Close()
	// The slot is taken only now: a layer that still waits for its download must not hold up one
	// that does not.
	release, err := u.u.Slot(ctx)
	if err != nil {
		return layer.Result{}, err
	}
	defer release()
	var counted io.Reader = blob
	if u.OnRead != nil {
		counted = &progress.CountReader{R: blob, Fn: u.OnRead}
	}
	plain, _, err := layer.Decompress(counted)
	if err != nil {
		return layer.Result{}, err
	}
	defer plain.Close()
	return applyVerified(
		ctx, root, plain, u.Diff, layer.Options{Style: style, Limits: u.u.limits},
	)
}

// applyVerified unpacks a plain archive while hashing it. An empty diff accepts any.
func applyVerified(
	ctx context.Context, root *os.File, plain io.Reader, diff digest.Digest, o layer.Options,
) (layer.Result, error) {
	algorithm := digest.Canonical
	if diff != "" {
		if err := diff.Validate(); err != nil {
			return layer.Result{}, fmt.Errorf(
				"diff ID %q: %w: %w", diff, err, errdefs.ErrInvalidArgument,
			)
		}
		algorithm = diff.Algorithm()
	}
	h := algorithm.Digester()
	ahead := layer.Ahead(io.TeeReader(plain, h.Hash()))
	res, err := layer.Apply(ctx, root, ahead, o)
	ahead.Close()
	if err != nil {
		return layer.Result{}, err
	}
	if got := h.Digest(); diff != "" && got != diff {
		return layer.Result{}, fmt.Errorf(
			"layer unpacks to %s, its image says %s: %w", got, diff, errdefs.ErrInvalidArgument,
		)
	}
	return res, nil
}

// applyMerged is for archives that cannot be unpacked without their parents: the layer's directory
// is emptied and becomes the upper directory of an overlay mount that is attached nowhere
// (fsmount(2)); the kernel does the rest.
func (u *unpacking) applyMerged(
	ctx context.Context, root *os.File, lower []*os.File,
) (layer.Result, error) {
	if len(lower) == 0 {
		// Nothing below can hold what is missing. Applying in this style names the entry that is at
		// fault.
		if err := emptyDir(root); err != nil {
			return layer.Result{}, err
		}
		return u.apply(ctx, root, layer.Merged)
	}
	if err := emptyDir(root); err != nil {
		return layer.Result{}, err
	}
	// The merged root shows upper's attributes: an archive that says nothing about "./" leaves the
	// parent's.
	if err := layer.InheritDirs(root, lower, []string{"."}); err != nil {
		return layer.Result{}, err
	}
	work := strings.TrimSuffix(root.Name(), "/fs") + "/work"
	var parents []string
	for _, l := range lower {
		parents = append(parents, l.Name())
	}
	mount, err := overlay.Mount(parents, root.Name(), work, 0)
	if err != nil {
		return layer.Result{}, fmt.Errorf("mount layer on its parents: %w", err)
	}
	// Directories are read through a descriptor that is open for reading.
	merged, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(mount.Fd())), unix.O_DIRECTORY, 0)
	mount.Close()
	if err != nil {
		return layer.Result{}, fmt.Errorf("mount layer on its parents: %w", err)
	}
	defer merged.Close()
	return u.apply(ctx, merged, layer.Merged)
}

func emptyDir(dir *os.File) error {
	names, err := os.ReadDir(dir.Name())
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir.Name(), n.Name())); err != nil {
			return err
		}
	}
	return nil
}
