package image

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/layer"
)

// archiveFiles is the content of an archive: small files in memory, large ones as blobs of the
// content store, never as files named by the archive.
type archiveFiles struct {
	s     *Store
	files map[string]archiveFile
	links map[string]string // symbolic and hard links between its files
	held  int64             // bytes in memory
}

type archiveFile struct {
	data []byte // nil for blobs
	desc ocispec.Descriptor
}

func (a *archiveFiles) read(ctx context.Context, r io.Reader) error {
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
			return archiveFault("archive", err)
		}
		if n >= maxArchiveFiles {
			return fmt.Errorf(
				"archive has more than %d entries: %w", maxArchiveFiles, errdefs.ErrInvalidArgument,
			)
		}
		name := strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
		switch hdr.Typeflag {
		case tar.TypeReg:
			f, err := a.file(ctx, hdr, tr, buf)
			if err != nil {
				return archiveFault(fmt.Sprintf("archive entry %q", hdr.Name), err)
			}
			a.files[name] = f
		case tar.TypeSymlink:
			a.links[name] = strings.TrimPrefix(path.Join("/", path.Dir(name), hdr.Linkname), "/")
		case tar.TypeLink:
			a.links[name] = strings.TrimPrefix(path.Clean("/"+hdr.Linkname), "/")
		}
	}
}

func (a *archiveFiles) drain(r io.Reader, n int, buf []byte) error {
	if n == 0 {
		return fmt.Errorf("archive is empty: %w", errdefs.ErrInvalidArgument)
	}
	// What follows the end mark is read so that a compressed stream's checksum is verified.
	if _, err := io.CopyBuffer(io.Discard, io.LimitReader(onlyReader{r}, 1<<30), buf); err != nil {
		return archiveFault("archive", err)
	}
	return nil
}

type onlyReader struct{ io.Reader }

// archiveFault classifies what reading an archive met.
func archiveFault(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s is truncated: %w: %w", what, err, errdefs.ErrInvalidArgument)
	}
	if errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%s is no tar archive: %w: %w", what, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (a *archiveFiles) file(
	ctx context.Context, hdr *tar.Header, r io.Reader, buf []byte,
) (archiveFile, error) {
	if hdr.Size > a.s.limits().Bytes {
		return archiveFile{}, fmt.Errorf(
			"%d bytes, at most %d: %w", hdr.Size, a.s.limits().Bytes, errdefs.ErrInvalidArgument,
		)
	}
	if hdr.Size <= smallFile && a.held+hdr.Size <= maxSmallFiles {
		b := make([]byte, hdr.Size)
		if _, err := io.ReadFull(r, b); err != nil {
			return archiveFile{}, errTruncated(err)
		}
		a.held += hdr.Size
		return archiveFile{
			data: b, desc: ocispec.Descriptor{Digest: digest.FromBytes(b), Size: hdr.Size},
		}, nil
	}
	desc, err := a.s.writeStream(ctx, r, hdr.Size, buf)
	return archiveFile{desc: desc}, err
}

func errTruncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeStream stores size bytes as a blob of whatever digest they have.
func (s *Store) writeStream(
	ctx context.Context, r io.Reader, size int64, buf []byte,
) (_ ocispec.Descriptor, err error) {
	ref := "stream-" + rand.Text()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() {
		w.Close()
		if err != nil {
			if aerr := s.content.Abort(context.WithoutCancel(ctx), ref); aerr != nil &&
				!errdefs.IsNotFound(aerr) {
				err = errors.Join(err, aerr)
			}
		}
	}()
	n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(r, size), buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := w.Digest()
	if err := s.hold(ctx, []digest.Digest{d}, nil); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := w.Commit(ctx, size, d); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: d, Size: size}, nil
}

type onlyWriter struct{ io.Writer }

func (s *Store) limits() layer.Limits {
	l := s.cfg.LayerLimits
	if l.Bytes <= 0 {
		l.Bytes = 128 << 30
	}
	return l
}

// get finds a file, through the links that docker save used for layers that images share.
func (a *archiveFiles) get(name string) (archiveFile, error) {
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
	return archiveFile{}, fmt.Errorf(
		"archive names %q but does not hold it: %w", name, errdefs.ErrInvalidArgument,
	)
}

// bytes reads a document.
func (a *archiveFiles) bytes(ctx context.Context, f archiveFile) ([]byte, error) {
	if f.data != nil {
		return f.data, nil
	}
	return a.s.readBlob(ctx, f.desc)
}

func (a *archiveFiles) document(ctx context.Context, name string, v any) error {
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

func (a *archiveFiles) has(name string) bool {
	_, err := a.get(name)
	return err == nil
}
