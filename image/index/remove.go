package index

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"

	"strake/image/document"
	"strake/image/name"
)

// RemoveOptions are the parameters of Remove.
type RemoveOptions struct {
	// Force removes in spite of several tags and of stopped containers.
	Force bool
	// NoPrune keeps untagged parents.
	NoPrune bool
	// Later leaves the bytes to a following Collect, for callers that remove many images: a
	// collection looks at every image there is. A crash in between is made good by the next Open.
	Later bool
}

// Removed is one thing that a Remove did, in order: exactly one field is set. Untagged is a
// familiar reference, Deleted the ID of an image or the chain ID of a layer.
type Removed struct {
	Untagged string
	Deleted  string
}

// Use is one container that uses an image.
type Use struct {
	Container string
	Running   bool
}

// Users says who uses images. Both are called during a Remove or Forget.
type Users struct {
	// InUse names the containers that use an image, for the rules of dockerd. It is called without
	// the maps locked.
	InUse func(id digest.Digest) []Use
	// Held says whether a root file system stands on an image. It is called with the maps locked
	// and must not call the index.
	Held func(id digest.Digest) bool
}

// Remove removes a reference, or the image when it was the last one, with dockerd's rules (POST
// /images/{name}, "docker rmi"). An image that is held is concealed: it goes with Forget. garbage
// says that something may be collected now. Conflicts are ErrConflict.
func (x *Index) Remove(
	ctx context.Context, ref string, o RemoveOptions, u Users,
) (out []Removed, garbage bool, err error) {
	x.editMu.Lock() // keeps the index as the plan sees it
	defer x.editMu.Unlock()
	im, matched, err := x.Find(ref)
	if err != nil {
		return nil, false, err
	}
	x.mu.RLock()
	seen := viewOf(x.st)
	x.mu.RUnlock()
	// The engine's answer is asked without the index locked; it may take locks of its own.
	uses, recs := map[digest.Digest][]Use{}, map[digest.Digest]Record{}
	for a := im; a != nil && uses[a.ID] == nil; a = seen.images[a.Rec.Parent] {
		uses[a.ID], recs[a.ID] = append([]Use{}, u.InUse(a.ID)...), a.Rec
	}
	p := removal{view: seen, uses: uses}
	if err := p.run(im.ID, ref, matched, o); err != nil {
		return nil, false, err
	}
	c := change{images: map[digest.Digest]Record{}, dropRefs: p.dropRefs}
	for _, id := range p.drop {
		if !x.conceal(id, u.Held) {
			c.drop = append(c.drop, id)
			continue
		}
		rec := recs[id]
		rec.Removed = true
		c.images[id] = rec
	}
	orphans, err := x.apply(ctx, c)
	if err != nil {
		x.reveal(p.drop)
		return nil, false, err
	}
	for _, r := range p.out {
		out = append(out, r)
		if r.Deleted != "" && len(c.drop) > 0 && r.Deleted == string(c.drop[len(c.drop)-1]) {
			for _, l := range orphans {
				out = append(out, Removed{Deleted: l.String()})
			}
		}
	}
	return out, len(c.drop)+len(p.dropRefs) > 0, nil
}

// conceal makes an image invisible to Retain and says whether it is held all the same. From here on
// no new root file system can be made on it.
func (x *Index) conceal(id digest.Digest, held func(digest.Digest) bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.st.setRemoved(id, true)
	return held(id)
}

// reveal undoes conceal after a failed transaction.
func (x *Index) reveal(ids []digest.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		x.st.setRemoved(id, false)
	}
}

func (x *state) setRemoved(id digest.Digest, removed bool) {
	if old, ok := x.images[id]; ok {
		rec := old.Rec
		rec.Removed = removed
		x.putImage(id, rec)
	}
}

// Forget drops a removed image that is no longer held. One that is visible again is left alone.
// dropped says whether something may be collected now.
func (x *Index) Forget(ctx context.Context, id digest.Digest, u Users) (dropped bool, err error) {
	x.editMu.Lock()
	defer x.editMu.Unlock()
	im, ok := x.Image(id)
	if !ok || !im.Rec.Removed || u.Held(id) {
		return false, nil
	}
	_, err = x.apply(ctx, change{drop: []digest.Digest{id}})
	return err == nil, err
}

// view is the part of the index that a removal is planned on.
type view struct {
	images   map[digest.Digest]*Entry
	children map[digest.Digest]int
	refs     map[digest.Digest][]string // complete references by image, sorted
}

func viewOf(x *state) view {
	v := view{
		images: map[digest.Digest]*Entry{}, children: map[digest.Digest]int{},
		refs: map[digest.Digest][]string{},
	}
	for id, im := range x.images {
		if !im.Rec.Removed {
			v.images[id] = im
		}
	}
	for id, n := range x.children {
		v.children[id] = n
	}
	for ref, r := range x.refs {
		v.refs[r.ID] = append(v.refs[r.ID], ref)
	}
	for _, refs := range v.refs {
		slices.Sort(refs)
	}
	return v
}

// removal plans one Remove; it changes only its own view. The rules are those of moby's
// image_delete.go: what is hard cannot be forced.
type removal struct {
	view     view
	uses     map[digest.Digest][]Use
	out      []Removed
	dropRefs []string
	drop     []digest.Digest
}

func (p *removal) run(id digest.Digest, given, matched string, o RemoveOptions) error {
	byName := matched != ""
	if byName {
		refs := p.view.refs[id]
		if !o.Force && singleReference(refs) {
			if u := p.uses[id]; len(u) > 0 {
				return fmt.Errorf(
					"conflict: unable to remove repository reference %q (must force) - container "+
						"%s is using its referenced image %s: %w",
					given, shortID(u[0].Container), document.Short(id), errdefs.ErrConflict,
				)
			}
		}
		p.untag(id, matched)
		if named, err := reference.ParseNamed(matched); err == nil {
			if _, isDigest := named.(reference.Digested); !isDigest {
				p.untagDigests(id, named.Name())
			}
		}
		if len(p.view.refs[id]) > 0 {
			return nil
		}
	} else if refs := p.view.refs[id]; singleReference(refs) {
		if err := p.conflict(id, o.Force, false); err != nil {
			return err
		}
		for _, r := range slices.Clone(refs) {
			p.untag(id, r)
		}
	}
	return p.delete(id, o.Force, !o.NoPrune, byName)
}

func (p *removal) untag(id digest.Digest, ref string) {
	p.view.refs[id] = slices.DeleteFunc(slices.Clone(p.view.refs[id]), func(r string) bool {
		return r == ref
	})
	p.dropRefs = append(p.dropRefs, ref)
	p.out = append(p.out, Removed{Untagged: name.Familiar(ref)})
}

// untagDigests removes the digests of a repository once it has no tag of the image any more.
func (p *removal) untagDigests(id digest.Digest, repo string) {
	var digests []string
	for _, r := range p.view.refs[id] {
		named, err := reference.ParseNamed(r)
		if err != nil || named.Name() != repo {
			continue
		}
		if _, isDigest := named.(reference.Digested); !isDigest {
			return
		}
		digests = append(digests, r)
	}
	for _, r := range digests {
		p.untag(id, r)
	}
}

// delete removes the image itself and, when pruning, its untagged parents. quiet: something was
// done already, so that a conflict is no error.
func (p *removal) delete(id digest.Digest, force, prune, quiet bool) error {
	if err := p.conflict(id, force, true); err != nil {
		if dangling := len(p.view.refs[id]) == 0 && p.view.children[id] == 0; quiet &&
			(!dangling || len(p.uses[id]) > 0) {
			return nil
		}
		return err
	}
	for _, r := range slices.Clone(p.view.refs[id]) {
		p.untag(id, r)
	}
	im := p.view.images[id]
	delete(p.view.images, id)
	p.drop = append(p.drop, id)
	p.out = append(p.out, Removed{Deleted: id.String()})
	parent := im.Rec.Parent
	if parent == "" {
		return nil
	}
	p.view.children[parent]--
	if _, known := p.view.images[parent]; !known || !prune {
		return nil
	}
	return p.delete(parent, false, true, true)
}

// conflict says why an image cannot go.
func (p *removal) conflict(id digest.Digest, force, checkRefs bool) error {
	refuse := func(how, why string) error {
		return fmt.Errorf(
			"conflict: unable to delete %s (%s) - %s: %w", document.Short(id), how, why,
			errdefs.ErrConflict,
		)
	}
	const hard, soft = "cannot be forced", "must be forced"
	if p.view.children[id] > 0 {
		return refuse(hard, "image has dependent child images")
	}
	for _, u := range p.uses[id] {
		if u.Running {
			return refuse(hard, "image is being used by running container "+shortID(u.Container))
		}
	}
	if force {
		return nil
	}
	if checkRefs && len(p.view.refs[id]) > 0 {
		return refuse(soft, "image is referenced in multiple repositories")
	}
	if u := p.uses[id]; len(u) > 0 {
		return refuse(soft, "image is being used by stopped container "+shortID(u[0].Container))
	}
	return nil
}

// singleReference says whether the references are at most one tag, with digests of the same
// repository.
func singleReference(refs []string) bool {
	if len(refs) <= 1 {
		return true
	}
	repo, tags := "", 0
	for _, r := range refs {
		named, err := reference.ParseNamed(r)
		if err != nil {
			return false
		}
		if _, isDigest := named.(reference.Digested); !isDigest {
			tags++
		}
		if repo == "" {
			repo = named.Name()
		}
		if tags > 1 || named.Name() != repo {
			return false
		}
	}
	return true
}

// shortID abbreviates a container's ID as docker shows it.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
