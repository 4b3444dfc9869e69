// Package base is the image strake/base that is built into the engine, so that the first container
// runs with no registry in reach: a small static userland (package userland) as one program with a
// link for each command.
//
// Not for: anything to build other images on; its commands are for looking around.
//
// Tested by building it twice and comparing, and by its structure.
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

// Ref is the image's name.
const Ref = "strake/base:latest"

//go:embed all:embed
var files embed.FS

// Archive returns the image for an architecture as `docker save` writes one. Errors:
// errdefs.ErrNotFound if this program was built without.
func Archive(arch string) ([]byte, error) {
	raw, err := files.ReadFile("embed/" + File(arch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(arch)
	}
	return raw, err
}

// Mark tells the archive for an architecture from those of other versions: the checksum and the
// length that it ends with (RFC 1952). Errors as for Archive.
func Mark(arch string) (string, error) {
	f, err := files.Open("embed/" + File(arch))
	if errors.Is(err, fs.ErrNotExist) {
		return "", missing(arch)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	// What package embed opens can be read anywhere; reading the whole would copy megabytes.
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

// File is the name of an architecture's archive.
func File(arch string) string { return "base-" + arch + ".tar.gz" }
