package image

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image/backend"
	"strake/image/name"
	"strake/image/progress"
	"strake/image/registry"
)

// PullOptions are the parameters of Pull.
type PullOptions struct {
	// Platform selects from multi-platform images; nil means this host's.
	Platform *ocispec.Platform
	Auth     *Auth
	Progress Progress
}

// pullWords are dockerd's.
var pullWords = words{
	begun: "Pulling fs layer", fetching: "Downloading", verifying: "Verifying Checksum",
	fetched: "Download complete", unpacking: "Extracting", existed: "Already exists",
	done: "Pull complete",
}

// Pull fetches an image from its registry (distribution-spec, "Pull") and unpacks it. Layers are
// fetched and unpacked in parallel; blobs that are here already are not fetched, interrupted ones
// are continued, those for which the disk had no room are not kept. Errors: ErrNotFound,
// ErrPermissionDenied, ErrInvalidArgument (the reference, or what the registry sent), ENOSPC, and
// those of the network.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	named, err := name.Parse(ref)
	if err != nil {
		return Image{}, err
	}
	err = s.run(ctx, func(ctx context.Context, op *backend.Operation) error {
		return s.pull(ctx, op, named, o)
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull %q: %w", reference.FamiliarString(named), err)
	}
	return s.Resolve(ctx, named.String())
}

func (s *Store) pull(
	ctx context.Context, op *backend.Operation, named reference.Named, o PullOptions,
) error {
	report := progress.New(o.Progress)
	src, err := s.registry.Pull(ctx, named, registry.PullOptions{
		Platform: o.Platform, Auth: o.Auth, Report: report,
		Local: func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
			return readHeld(ctx, s.backend, op, d)
		},
	})
	if err != nil {
		return err
	}
	defer src.Close()
	report.Send(progress.Event{
		ID: tagOrDigest(named), Status: "Pulling from " + reference.Path(named),
	})
	target := src.Target()
	refs := []string{named.String()}
	if byDigest, err := reference.WithDigest(
		reference.TrimNamed(named), target.Digest,
	); err == nil && byDigest.String() != named.String() {
		refs = append(refs, byDigest.String())
	}
	p := publication{
		s: s, o: op, src: src, refs: refs, report: report, words: pullWords, slots: s.downloads,
		labels: map[string]string{registry.SourceLabel(named): reference.Path(named)},
	}
	before, berr := s.Resolve(ctx, named.String())
	out, err := p.run(ctx)
	if err != nil {
		return err
	}
	report.Send(progress.Event{Status: "Digest: " + target.Digest.String()})
	status := "Status: Image is up to date for "
	if berr != nil || before.ID != out.id { // also if the image is here under other names
		status = "Status: Downloaded newer image for "
	}
	report.Send(progress.Event{Status: status + reference.FamiliarString(named)})
	return nil
}

// tagOrDigest is what dockerd puts before the first line.
func tagOrDigest(named reference.Named) string {
	switch n := named.(type) {
	case reference.Tagged:
		return n.Tag()
	case reference.Digested:
		return n.Digest().String()
	}
	return ""
}

// Login asks a registry whether it accepts credentials; see registry.Client.Login.
func (s *Store) Login(ctx context.Context, server string, auth Auth) error {
	return s.registry.Login(ctx, server, auth)
}

// Tags lists the tags of a repository in its registry, in the registry's order; see
// registry.Client.Tags.
func (s *Store) Tags(ctx context.Context, repository string, auth *Auth) ([]string, error) {
	return s.registry.Tags(ctx, repository, auth)
}

// Description is what a registry says of an image.
type Description = registry.Description

// Describe asks the registry of an image for its descriptor and platforms. Errors are those of Pull.
func (s *Store) Describe(ctx context.Context, ref string, auth *Auth) (Description, error) {
	named, err := name.Parse(ref)
	if err != nil {
		return Description{}, err
	}
	out, err := s.registry.Describe(ctx, named, auth)
	if err != nil {
		err = fmt.Errorf("%s: %w", reference.FamiliarString(named), err)
	}
	return out, err
}
