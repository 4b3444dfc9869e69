package image

import "context"

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
	// PartialBytes are held by downloads that wait to be resumed; Prune gives them up.
	PartialBytes int64
}

// DiskUsage adds up the store. Layers and images come from memory, blobs from the metadata
// database.
func (s *Store) DiskUsage(ctx context.Context) (DiskUsage, error) {
	var u DiskUsage
	var err error
	u.Images, u.Layers, u.LayerBytes = s.index.Totals()
	u.Blobs, u.BlobBytes, u.PartialBytes, err = s.backend.Usage(ctx)
	if err != nil {
		return DiskUsage{}, err
	}
	return u, nil
}
