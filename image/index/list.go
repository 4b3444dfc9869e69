package index

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Filter narrows a List; the zero value lets everything through that has a name or no children.
type Filter struct {
	// All includes images that only exist as parents of others.
	All bool
	// Dangling, when set, selects images without (true) or with (false) a tag.
	Dangling *bool
	// Labels are "key" or "key=value"; all must match. NotLabels must not.
	Labels, NotLabels []string
	// References are patterns as in docker images --filter reference=; one must match a tag or
	// digest.
	References []string
	// Before and Since name images; only older or younger ones pass.
	Before, Since string
	// Until, when not zero, passes images created before it.
	Until time.Time
	// IDs, when not empty, selects images by full ID.
	IDs []digest.Digest
	// SharedSize asks for Summary.SharedSize.
	SharedSize bool
}

// Summary is one line of a list. The slices and maps are shared and must not be changed.
type Summary struct {
	Image
	// SharedSize is the size of layers that other images use too, or -1 when it was not asked for.
	SharedSize int64
	Dangling   bool
}

// List lists images, youngest first. It reads memory only.
func (x *Index) List(f Filter) ([]Summary, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var before, since time.Time
	for _, b := range []struct {
		ref string
		t   *time.Time
	}{{f.Before, &before}, {f.Since, &since}} {
		if b.ref == "" {
			continue
		}
		im, _, err := x.st.find(b.ref)
		if err != nil {
			return nil, err
		}
		*b.t = im.Rec.Created
	}
	for _, p := range f.References {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf(
				"filter reference=%q is not a pattern: %w", p, errdefs.ErrInvalidArgument,
			)
		}
	}
	out := make([]Summary, 0, len(x.st.images))
	for id, im := range x.st.images {
		if im.Rec.Removed {
			continue
		}
		dangling := len(im.Tags) == 0
		switch {
		case dangling && x.st.children[id] > 0 && !f.All,
			f.Dangling != nil && *f.Dangling != (dangling && x.st.children[id] == 0),
			f.Before != "" && !im.Rec.Created.Before(before),
			f.Since != "" && !im.Rec.Created.After(since),
			!f.Until.IsZero() && !im.Rec.Created.Before(f.Until),
			len(f.IDs) > 0 && !slices.Contains(f.IDs, id),
			!matchLabels(im.Rec.Labels, f.Labels, f.NotLabels):
			continue
		}
		sum := Summary{Image: im.Public(""), SharedSize: -1, Dangling: dangling}
		if len(f.References) > 0 {
			sum.RepoTags, sum.RepoDigests = matching(im.Tags, f.References), matching(
				im.Digests, f.References,
			)
			if len(sum.RepoTags)+len(sum.RepoDigests) == 0 {
				continue
			}
		}
		if f.SharedSize {
			sum.SharedSize = 0
			for _, c := range im.Rec.Layers {
				if x.st.layerUse[c] > 1 {
					sum.SharedSize += x.st.layers[c].Size
				}
			}
		}
		out = append(out, sum)
	}
	slices.SortFunc(out, func(a, b Summary) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return out, nil
}

func matchLabels(have map[string]string, want, not []string) bool {
	for _, w := range want {
		if !hasLabel(have, w) {
			return false
		}
	}
	for _, n := range not {
		if hasLabel(have, n) {
			return false
		}
	}
	return true
}

func hasLabel(have map[string]string, want string) bool {
	k, v, withValue := strings.Cut(want, "=")
	got, ok := have[k]
	return ok && (!withValue || got == v)
}

// matching keeps the names that fit a pattern, which may be one of familiar or of complete names,
// with or without tag: busybox, busy*:1, docker.io/library/busybox.
func matching(names, patterns []string) []string {
	var out []string
	for _, n := range names {
		ref, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			continue
		}
		for _, p := range patterns {
			if fits(p, ref) {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

// fits says whether a reference or its name alone matches a pattern of path.Match.
func fits(pattern string, ref reference.Reference) bool {
	if ok, err := reference.FamiliarMatch(pattern, ref); err == nil && ok {
		return true
	}
	whole := []string{ref.String()}
	if named, ok := ref.(reference.Named); ok {
		whole = append(whole, named.Name())
	}
	return slices.ContainsFunc(whole, func(text string) bool {
		ok, err := path.Match(pattern, text)
		return err == nil && ok
	})
}
