package supervisor

import (
	"context"

	digest "github.com/opencontainers/go-digest"

	"strake/image"
	"strake/image/layer"
	"strake/network/place"
	"strake/sandbox"
)

// What the engine needs of its neighbours, so that tests can put something else in their place.
// Processes are a task.Isolation, control groups a task.Groups.

// Images is what the engine needs of an image.Store.
type Images interface {
	Resolve(ctx context.Context, ref string) (image.Image, error)
	Inspect(ctx context.Context, ref string) (image.Detail, error)
	Prepare(ctx context.Context, key string, id digest.Digest) (image.Rootfs, error)
	Rootfs(ctx context.Context, key string) (image.Rootfs, error)
	RootfsKeys(owner string) map[string]digest.Digest
	Release(ctx context.Context, key string) error
	Usage(ctx context.Context, key string) (image.Usage, error)
	Changes(ctx context.Context, key string) ([]layer.Change, error)
}

// Network gives containers a place in the network.
type Network interface {
	sandbox.Network
	// Reconcile detaches all sandboxes of an owner but those named, and those from all networks
	// but the ones they know of. It is called once for each owner, before the first Attach.
	Reconcile(ctx context.Context, owner string, live map[string]place.Live) error
	// Spoil says that place.Request.Recycle is no longer true.
	Spoil(id string)
	// Connect puts a running container into one more network, the only one of req.Endpoints;
	// Disconnect takes it out of one.
	Connect(ctx context.Context, req *place.Request, network string) (place.Endpoint, error)
	Disconnect(ctx context.Context, endpointID string) error
}
