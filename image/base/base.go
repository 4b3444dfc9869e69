// Package base is the image strake/base that is built into the engine, so that the first container runs with no registry in reach: a small static
// userland (package userland) as one program with a link for each command.
//
// Not for: anything to build other images on; its commands are for looking around.
//
// Tested by building it twice and comparing, and by its structure.
package base

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
)

// Ref is the image's name.
const Ref = "strake/base:latest"

//go:embed all:embed
var files embed.FS

// Archive returns the image for an architecture as `docker save` writes one. Errors: errdefs.ErrNotFound if this program was built without.
func Archive(arch string) ([]byte, error) {
	raw, err := files.ReadFile("embed/" + File(arch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %s for %s is not built in; build with \"make build\": %w", Ref, arch, errdefs.ErrNotFound)
	}
	return raw, err
}

// File is the name of an architecture's archive.
func File(arch string) string { return "base-" + arch + ".tar.gz" }
