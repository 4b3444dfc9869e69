package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
)

// DiskUsage is where the store's bytes are.
type DiskUsage struct {
	// Images counts visible images.
	Images int
	// LayerBytes is the sum of the file sizes of all unpacked layers, each counted once, and Layers
	// their number.
	LayerBytes int64
	Layers     int
	// BlobBytes is the sum of all stored blobs (packed layers, manifests, configurations), and
	// Blobs their number.
	BlobBytes int64
	Blobs     int
	// PartialBytes are held by downloads that wait to be resumed.
	PartialBytes int64
}

// DiskUsage adds up the store. Layers and images come from memory, blobs from the metadata
// database.
func (s *Store) DiskUsage(ctx context.Context) (DiskUsage, error) {
	var u DiskUsage
	s.mu.RLock()
	for _, im := range s.idx.images {
		if !im.rec.Removed {
			u.Images++
		}
	}
	for c := range s.idx.layerUse {
		u.Layers++
		u.LayerBytes += s.idx.layers[c].Size
	}
	s.mu.RUnlock()
	ctx = s.context(ctx)
	err := s.content.Walk(ctx, func(i content.Info) error {
		u.Blobs++
		u.BlobBytes += i.Size
		return nil
	})
	if err != nil {
		return DiskUsage{}, fmt.Errorf("measure images: %w", err)
	}
	partial, err := s.content.ListStatuses(ctx)
	if err != nil {
		return DiskUsage{}, fmt.Errorf("measure images: %w", err)
	}
	for _, p := range partial {
		u.PartialBytes += p.Offset
	}
	return u, nil
}
