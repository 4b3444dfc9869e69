// Package base holds the image strake/base as an embedded archive, so that the first container runs
// with no registry in reach. The archive is made by the module strake/userland (directory userland)
// when `make build` runs; nothing of that module is linked here.
//
// Not for: making the image, or loading it into a store.
//
// Tested by reading the embedded archive.
package base

import (
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
)

// Ref is the name that the archive gives the image.
const Ref = "strake/base:latest"

//go:embed all:embed
var files embed.FS

// Archive returns the image for an architecture (as GOARCH names it) in the form that `docker save`
// writes, compressed by gzip. The caller owns the slice. Errors: errdefs.ErrNotFound if this
// program was built without that archive.
func Archive(arch string) ([]byte, error) {
	raw, err := files.ReadFile("embed/" + File(arch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(arch)
	}
	return raw, err
}

// Mark tells the archive for an architecture from those of other versions without reading the
// whole: it returns the checksum and the length at the archive's end (RFC 1952, section 2.3.1) as
// 16 hexadecimal digits. Errors as for Archive.
func Mark(arch string) (string, error) {
	f, err := files.Open("embed/" + File(arch))
	if errors.Is(err, fs.ErrNotExist) {
		return "", missing(arch)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	// A file of package embed is an io.Seeker; reading all of it would copy megabytes.
	end := make([]byte, 8)
	if _, err := f.(io.Seeker).Seek(-int64(len(end)), io.SeekEnd); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(f, end); err != nil {
		return "", err
	}
	return hex.EncodeToString(end), nil
}

func missing(arch string) error {
	return fmt.Errorf(
		"image %s for %s is not built in; build with \"make build\": %w", Ref, arch,
		errdefs.ErrNotFound,
	)
}

// File returns the name of the archive for an architecture in the directory embed.
func File(arch string) string { return "base-" + arch + ".tar.gz" }
