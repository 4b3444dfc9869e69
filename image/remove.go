package image

import (
	"context"
	"errors"
)

// Tag gives an image another name, which it takes from the image that had it.
func (s *Store) Tag(ctx context.Context, src, ref string) error {
	return s.index.Tag(ctx, src, ref)
}

// Remove removes a reference, or the image when it was the last one, with dockerd's rules (POST
// /images/{name}, "docker rmi"). What only this image needed is deleted before it returns; layers
// under a container wait for its Release. Conflicts are ErrConflict.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	out, garbage, err := s.index.Remove(ctx, ref, o, s.users())
	if err != nil || !garbage || o.Later {
		return out, err
	}
	return out, s.Collect(ctx)
}

// Collect deletes what removed images (see RemoveOptions.Later) and deleted leases left.
func (s *Store) Collect(ctx context.Context) error {
	collect := s.backend.CollectMarked
	if recorded, err := s.index.Dirty(); err == nil && recorded {
		collect = s.backend.Collect
	}
	return s.index.Clean(ctx, collect)
}

// Prune is Collect that also gives up the beginnings of downloads that no pull is at work on, which
// a later pull could have continued. It returns how many bytes those had.
func (s *Store) Prune(ctx context.Context) (partialBytes int64, err error) {
	partialBytes, err = s.backend.Prune(ctx)
	return partialBytes, errors.Join(err, s.Collect(ctx))
}
