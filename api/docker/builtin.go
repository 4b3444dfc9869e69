package docker

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Builtin is an image that the program has in itself. Where the store lacks it, a request to create
// a container of it or to pull it unpacks it again, and no registry is asked.
type Builtin struct {
	// Ref is its name with its tag. Empty means that there is none.
	Ref string
	// Load puts the image into the store, if it is not there. It may be called concurrently. An
	// error of the class errdefs.ErrNotFound says that this program was built without it.
	Load func(ctx context.Context) error
}

// restore loads the image that is built in if ref is its name and the store lacks it. It says
// whether that image is in the store now. Errors are those of Load, but for ErrNotFound.
func (b *Builtin) restore(ctx context.Context, images imageResolver, ref string) (bool, error) {
	if b.Ref == "" || !sameName(b.Ref, ref) {
		return false, nil
	}
	if _, err := images.Resolve(ctx, ref); !errdefs.IsNotFound(err) {
		return err == nil, err
	}
	err := b.Load(ctx)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// sameName says whether two references name one image, whatever of it is left to defaults.
func sameName(a, b string) bool {
	first, err := reference.ParseNormalizedNamed(a)
	if err != nil {
		return false
	}
	second, err := reference.ParseNormalizedNamed(b)
	return err == nil &&
		reference.TagNameOnly(first).String() == reference.TagNameOnly(second).String()
}
