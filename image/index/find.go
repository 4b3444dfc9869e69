package index

import (
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"

	"strake/image/name"
	"strake/internal/message"
)

// hexPrefix is what may abbreviate an image ID.
var hexPrefix = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// notFoundError says the sentence that clients of the Docker Engine API look for.
type notFoundError struct{ ref string }

func (e notFoundError) Error() string { return "No such image: " + e.ref }
func (e notFoundError) Unwrap() error { return errdefs.ErrNotFound }

// NotFound is the error for an image that is not here, ErrNotFound ("No such image: ...").
func NotFound(ref string) error { return notFoundError{ref} }

// find resolves what a user wrote, in dockerd's order: full ID, reference, ID prefix. matched is
// the key in x.refs, empty when the ID was meant.
func (x *state) find(ref string) (im *Entry, matched string, err error) {
	id, hasAlgo := strings.CutPrefix(ref, digest.Canonical.String()+":")
	if len(id) == 64 && hexPrefix.MatchString(id) {
		if im, ok := x.images[digest.NewDigestFromEncoded(digest.Canonical, id)]; ok &&
			!im.Rec.Removed {
			return im, "", nil
		}
		return nil, "", notFoundError{ref}
	}
	display := ref
	if !hasAlgo {
		named, perr := name.Parse(ref)
		if perr == nil {
			display = reference.FamiliarString(named)
			if r, ok := x.refs[named.String()]; ok {
				if im, ok := x.images[r.ID]; ok && !im.Rec.Removed {
					return im, named.String(), nil
				}
			}
			if d, ok := named.(reference.Digested); ok {
				if im := x.byTarget(named, d.Digest()); im != nil {
					return im, "", nil
				}
			}
		} else if !hexPrefix.MatchString(ref) {
			return nil, "", message.New(errdefs.ErrInvalidArgument, "invalid reference format")
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
func (x *state) byTarget(named reference.Named, d digest.Digest) *Entry {
	name := named.Name()
	for ref, r := range x.refs {
		if r.Target.Digest != d && r.ID != d {
			continue
		}
		if n, err := reference.ParseNamed(ref); err == nil && n.Name() == name {
			if im, ok := x.images[r.ID]; ok && !im.Rec.Removed {
				return im
			}
		}
	}
	return nil
}

// byPrefix finds the image whose hexadecimal ID starts with p, if there is exactly one.
func (x *state) byPrefix(p string) (*Entry, bool) {
	var hit *Entry
	for id, im := range x.images {
		if !im.Rec.Removed && strings.HasPrefix(id.Encoded(), p) {
			if hit != nil {
				return nil, false
			}
			hit = im
		}
	}
	return hit, hit != nil
}

// Selection is an image and the complete tags that chose it.
type Selection struct {
	Image *Entry
	Tags  []string
}

// selection resolves references, each image once. A bare repository name means all its tags, as
// docker save has it.
func (x *state) selection(refs []string) ([]*Selection, error) {
	var out []*Selection
	byID := map[digest.Digest]*Selection{}
	add := func(im *Entry, ref string) {
		e, ok := byID[im.ID]
		if !ok {
			e = &Selection{Image: im}
			byID[im.ID] = e
			out = append(out, e)
		}
		if ref == "" || slices.Contains(e.Tags, ref) {
			return
		}
		if named, err := reference.ParseNamed(ref); err == nil {
			if _, tagged := named.(reference.NamedTagged); tagged {
				e.Tags = append(e.Tags, ref)
			}
		}
	}
	for _, ref := range refs {
		if named, err := reference.ParseNormalizedNamed(ref); err == nil &&
			reference.IsNameOnly(named) {
			found := false
			for _, full := range x.tagsOf(named.Name()) {
				if im, ok := x.images[x.refs[full].ID]; ok && !im.Rec.Removed {
					add(im, full)
					found = true
				}
			}
			if found {
				continue
			}
		}
		im, matched, err := x.find(ref)
		if err != nil {
			return nil, err
		}
		add(im, matched)
	}
	return out, nil
}

// tagsOf lists the complete tags of a repository, sorted.
func (x *state) tagsOf(repo string) []string {
	var out []string
	for ref := range x.refs {
		named, err := reference.ParseNamed(ref)
		if err != nil || named.Name() != repo {
			continue
		}
		if _, tagged := named.(reference.NamedTagged); tagged {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out
}
