package image

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"strake/image/layer"
)

// Config describes a store. Root is required; everything else has a usable zero value.
type Config struct {
	// Root is the absolute path of a directory that only this store uses. It is created with mode
	// 0710. The file system must support overlayfs upper directories (d_type, trusted.*
	// attributes).
	Root string
	// Logger receives what cannot be returned as an error; nil discards it.
	Logger *slog.Logger
	// MaxConcurrentDownloads bounds the blobs fetched, and MaxConcurrentUploads those pushed, at
	// once over all operations. Zero means 6 and 5.
	MaxConcurrentDownloads int
	MaxConcurrentUploads   int
	// MaxConcurrentUnpacks bounds the layers unpacked at once over all operations. Each takes about
	// 2 MiB of memory, more for zstd with large windows. Zero means the number of processors, at
	// least 2 and at most 4.
	MaxConcurrentUnpacks int
	// LayerLimits bound every layer archive that is unpacked; zero fields mean the defaults of
	// package layer.
	LayerLimits layer.Limits
	// Registries says how registries are reached.
	Registries Registries
	// InUse names the containers that use an image; nil means none do. It is called without locks
	// held.
	InUse func(id digest.Digest) []Use
	// Fault, if not nil, is called before each step that changes the disk, with the step's name:
	// tests end the process there.
	Fault func(step string)
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf(
			"image store: Root %q is not an absolute path: %w", c.Root, errdefs.ErrInvalidArgument,
		)
	}
	for _, f := range []struct {
		name string
		n    int
	}{
		{"MaxConcurrentDownloads", c.MaxConcurrentDownloads},
		{"MaxConcurrentUploads", c.MaxConcurrentUploads},
		{"MaxConcurrentUnpacks", c.MaxConcurrentUnpacks},
	} {
		if f.n < 0 {
			return fmt.Errorf(
				"image store: %s is %d, want 0 (default) or more: %w", f.name, f.n,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	return c.Registries.Validate()
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxConcurrentDownloads == 0 {
		c.MaxConcurrentDownloads = 6
	}
	if c.MaxConcurrentUploads == 0 {
		c.MaxConcurrentUploads = 5
	}
	if c.MaxConcurrentUnpacks == 0 {
		c.MaxConcurrentUnpacks = min(max(2, runtime.NumCPU()), 4)
	}
	if c.InUse == nil {
		c.InUse = func(digest.Digest) []Use { return nil }
	}
	if c.Fault == nil {
		c.Fault = func(string) {}
	}
	return c
}
