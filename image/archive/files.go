package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/document"
)

const (
	smallFile     = 64 << 10 // a file of up to so many bytes is kept in memory
	maxSmallFiles = 64 << 20 // all of them together
	maxFiles      = 1 << 17
)

// files is the content of an archive: small files in memory, large ones as blobs of the content
// store, never as files named by the archive.
type files struct {
	blobs Blobs
	limit int64 // of one file, in bytes
	files map[string]file
	links map[string]string // symbolic and hard links between its files
	held  int64             // bytes in memory
}

type file struct {
	data []byte // nil for blobs
	desc ocispec.Descriptor
}

func (a *files) read(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	buf := make([]byte, 1<<20)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return a.drain(r, n, buf)
		}
		if err != nil {
			return classify("archive", err)
		}
		if n >= maxFiles {
			return fmt.Errorf(
				"archive has more than %d entries: %w", maxFiles, errdefs.ErrInvalidArgument,
			)
		}
		name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
		switch hdr.Typeflag {
		case tar.TypeReg:
			f, err := a.store(ctx, hdr, tr, buf)
			if err != nil {
				return classify(fmt.Sprintf("archive entry %q", hdr.Name), err)
			}
			a.files[name] = f
		case tar.TypeSymlink:
			a.links[name] = strings.TrimPrefix(path.Join("/", path.Dir(name), hdr.Linkname), "/")
		case tar.TypeLink:
			a.links[name] = strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/")
		}
	}
}

func (a *files) drain(r io.Reader, n int, buf []byte) error {
	if n == 0 {
		return fmt.Errorf("archive is empty: %w", errdefs.ErrInvalidArgument)
	}
	// What follows the end mark is read so that a compressed stream's checksum is verified.
	if _, err := io.CopyBuffer(io.Discard, io.LimitReader(onlyReader{r}, 1<<30), buf); err != nil {
		return classify("archive", err)
	}
	return nil
}

type onlyReader struct{ io.Reader }

// classify classifies what reading an archive met.
func classify(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s is truncated: %w: %w", what, err, errdefs.ErrInvalidArgument)
	}
	if errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%s is no tar archive: %w: %w", what, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (a *files) store(
	ctx context.Context, hdr *tar.Header, r io.Reader, buf []byte,
) (file, error) {
	if hdr.Size > a.limit {
		return file{}, fmt.Errorf(
			"%d bytes, at most %d: %w", hdr.Size, a.limit, errdefs.ErrInvalidArgument,
		)
	}
	if hdr.Size <= smallFile && a.held+hdr.Size <= maxSmallFiles {
		b := make([]byte, hdr.Size)
		if _, err := io.ReadFull(r, b); err != nil {
			return file{}, errTruncated(err)
		}
		a.held += hdr.Size
		return file{
			data: b, desc: ocispec.Descriptor{Digest: digest.FromBytes(b), Size: hdr.Size},
		}, nil
	}
	desc, err := a.blobs.Put(ctx, r, hdr.Size, buf)
	return file{desc: desc}, err
}

func errTruncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// get finds a file, through the links that docker save used for layers that images share.
func (a *files) get(name string) (file, error) {
	n := strings.TrimPrefix(path.Clean("/"+name), "/")
	for range 16 {
		if f, ok := a.files[n]; ok {
			return f, nil
		}
		to, ok := a.links[n]
		if !ok {
			break
		}
		n = to
	}
	return file{}, fmt.Errorf(
		"archive names %q but does not hold it: %w", name, errdefs.ErrInvalidArgument,
	)
}

// open opens a file at an offset. The caller closes it.
func (a *files) open(ctx context.Context, f file, offset int64) (io.ReadCloser, error) {
	if f.data != nil {
		return io.NopCloser(bytes.NewReader(f.data[min(offset, int64(len(f.data))):])), nil
	}
	return a.blobs.Open(ctx, f.desc, offset)
}

// bytes reads a document.
func (a *files) bytes(ctx context.Context, f file) ([]byte, error) {
	if f.data != nil {
		return f.data, nil
	}
	if err := document.CheckSize(f.desc.Digest, f.desc.Size); err != nil {
		return nil, err
	}
	r, err := a.blobs.Open(ctx, f.desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, f.desc.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", f.desc.Digest, err)
	}
	return b, nil
}

func (a *files) document(ctx context.Context, name string, v any) error {
	f, err := a.get(name)
	if err != nil {
		return err
	}
	b, err := a.bytes(ctx, f)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("archive's %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (a *files) has(name string) bool {
	_, err := a.get(name)
	return err == nil
}
