package image

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// hexPrefix is what may abbreviate an image ID.
var hexPrefix = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// notFoundError says the sentence that clients of the Docker Engine API look for.
type notFoundError struct{ ref string }

func (e notFoundError) Error() string { return "No such image: " + e.ref }
func (e notFoundError) Unwrap() error { return errdefs.ErrNotFound }

// parseNamed reads a reference and completes it: docker.io, library/ and, when it has neither tag
// nor digest, the tag latest.
func parseNamed(ref string) (reference.Named, error) {
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

// parseTag reads a reference that is about to be given to an image.
func parseTag(ref string) (reference.NamedTagged, error) {
	named, err := parseNamed(ref)
	if err != nil {
		return nil, err
	}
	t, ok := named.(reference.NamedTagged)
	if !ok {
		return nil, fmt.Errorf(
			"reference %q: cannot name an image by a digest it did not come from: %w", ref,
			errdefs.ErrInvalidArgument,
		)
	}
	return t, nil
}

// find resolves what a user wrote, in dockerd's order: full ID, reference, ID prefix. matched is
// the key in x.refs, empty when the ID was meant.
func (x *index) find(ref string) (im *image, matched string, err error) {
	id, hasAlgo := strings.CutPrefix(ref, digest.Canonical.String()+":")
	if len(id) == 64 && hexPrefix.MatchString(id) {
		if im, ok := x.images[digest.NewDigestFromEncoded(digest.Canonical, id)]; ok &&
			!im.rec.Removed {
			return im, "", nil
		}
		return nil, "", notFoundError{ref}
	}
	display := ref
	if !hasAlgo {
		named, perr := parseNamed(ref)
		if perr == nil {
			display = reference.FamiliarString(named)
			if r, ok := x.refs[named.String()]; ok {
				if im, ok := x.images[r.ID]; ok && !im.rec.Removed {
					return im, named.String(), nil
				}
			}
			if d, ok := named.(reference.Digested); ok {
				if im := x.byTarget(named, d.Digest()); im != nil {
					return im, "", nil
				}
			}
		} else if !hexPrefix.MatchString(ref) {
			return nil, "", fmt.Errorf("invalid reference format: %w", perr)
		}
	}
	if hexPrefix.MatchString(id) {
		if im, ok := x.byPrefix(id); ok {
			return im, "", nil
		}
	}
	return nil, "", notFoundError{display}
}

// byTarget finds an image by repository and digest where the digest was never recorded as a
// reference: an image of that repository whose own manifest or index it is, or the digest given is
// its ID.
func (x *index) byTarget(named reference.Named, d digest.Digest) *image {
	name := named.Name()
	for ref, r := range x.refs {
		if r.Target.Digest != d && r.ID != d {
			continue
		}
		if n, err := reference.ParseNamed(ref); err == nil && n.Name() == name {
			if im, ok := x.images[r.ID]; ok && !im.rec.Removed {
				return im
			}
		}
	}
	return nil
}
