// Package name reads image references as docker's clients write them.
//
// Not for: finding images; package index does.
package name

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Parse reads a reference and completes it: docker.io, library/ and, when it has neither tag nor
// digest, the tag latest. Errors are ErrInvalidArgument.
func Parse(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	// name:tag@digest names the digest; the tag is a remark.
	if d, ok := named.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(named), d.Digest())
	}
	return reference.TagNameOnly(named), nil
}

// Tag reads a reference that is about to be given to an image, which has to be a tag. Errors are
// ErrInvalidArgument.
func Tag(ref string) (reference.NamedTagged, error) {
	named, err := Parse(ref)
	if err != nil {
		return nil, err
	}
	t, ok := named.(reference.NamedTagged)
	if !ok {
		return nil, fmt.Errorf(
			"reference %q: refusing to create a tag with a digest reference: %w", ref,
			errdefs.ErrInvalidArgument,
		)
	}
	if reference.FamiliarName(t) == digest.Canonical.String() {
		return nil, fmt.Errorf(
			"reference %q: refusing to create an ambiguous tag using digest algorithm as name: %w",
			ref, errdefs.ErrInvalidArgument,
		)
	}
	return t, nil
}

// Familiar shortens a complete reference to what docker's clients show.
func Familiar(ref string) string {
	named, err := reference.ParseNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}
