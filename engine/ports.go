package engine

import (
	"context"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/plan"
	"strake/image"
	"strake/keeper"
)

// What the engine needs of its neighbours, so that tests can put something else in their place.

// images is what the engine needs of an image.Store.
type images interface {
	Resolve(ctx context.Context, ref string) (image.Image, error)
	Inspect(ctx context.Context, ref string) (image.Detail, error)
	Prepare(ctx context.Context, key string, id digest.Digest) (image.Rootfs, error)
	Rootfs(ctx context.Context, key string) (image.Rootfs, error)
	RootfsKeys(owner string) map[string]digest.Digest
	Release(ctx context.Context, key string) error
}

// Groups makes control groups for containers.
type Groups interface {
	// Create makes the group name below parent ("" for the engine's own) with limits. It is gone
	// again if there is an error.
	Create(ctx context.Context, parent, name string, res *specs.LinuxResources) (Cgroup, error)
	// Enforced takes out of the limits what this host can never enforce, and dockerd drops with a
	// warning: what only version 1 has.
	Enforced(res *specs.LinuxResources) (warnings []string)
	// At names a group by what Cgroup.Path returned, whether it exists or not.
	At(path string) (Cgroup, error)
	// Sweep removes the engine's groups for which keep says false, with the processes in them;
	// without keep all of them and the one above.
	Sweep(ctx context.Context, keep func(name string) bool) error
}

// CgroupEntry is how a process gets into a group.
type CgroupEntry struct {
	// Born is a cgroup2 directory to be born in, or -1.
	Born int
	// Tasks are version 1 files that the process writes itself to, below the directory Root
	// (plan.Options.TaskPaths).
	Tasks []string
	Root  int
}

// Cgroup is the control group of one container. Its methods may be called concurrently.
type Cgroup interface {
	// Path names the group for At and for specs.Linux.CgroupsPath.
	Path() string
	// Entry opens what a process enters the group by; release closes it.
	Entry() (entry CgroupEntry, release func(), err error)
	// Hierarchies describes the group for the container's own /sys/fs/cgroup.
	Hierarchies() []plan.Hierarchy
	Update(ctx context.Context, res *specs.LinuxResources) error
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Pids() ([]int, error)
	Stats() (Stats, error)
	// OOMKills counts the processes that the kernel killed for want of memory.
	OOMKills() (uint64, error)
	// Remove kills what is left in the group and removes it.
	Remove(ctx context.Context) error
}

// NetworkRequest asks for a container's place in the network.
type NetworkRequest struct {
	ID, Name, Hostname, Domainname string
	// Endpoints by network name; Primary is the one that is the way out and publishes ports.
	Endpoints  map[string]EndpointSpec
	Primary    string
	Ports      []PortBinding
	PublishAll bool
	Exposed    []string
	DNS        []string
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string
	// Recycle says that nothing in the container can change its network namespace, so that another
	// one may get it.
	Recycle bool
}

// NetworkPlace is a container's place in the network.
type NetworkPlace struct {
	// NetnsPath is the network namespace.
	NetnsPath string
	Endpoints map[string]EndpointInfo
	Ports     []BoundPort
	// Hosts and ResolvConf are the contents of the container's files.
	Hosts, ResolvConf []byte
}

// LivePlace is where a running container is.
type LivePlace struct {
	// NetnsPath is the network namespace.
	NetnsPath string
	Endpoints map[string]EndpointInfo
}

// Network gives containers a place in the network.
type Network interface {
	// Attach makes a namespace with everything that the request asks for. Nothing is left of it if
	// there is an error.
	Attach(ctx context.Context, req *NetworkRequest) (*NetworkPlace, error)
	// Detach undoes Attach. An unknown ID is no error.
	Detach(ctx context.Context, id string) error
	// Reconcile detaches all containers but those named, and those from all networks but the ones
	// they know of. It is called once, before the first Attach.
	Reconcile(ctx context.Context, live map[string]LivePlace) error
	// Spoil says that NetworkRequest.Recycle is no longer true.
	Spoil(id string)
	// Connect puts a running container into one more network, the only one of req.Endpoints;
	// Disconnect takes it out of one.
	Connect(ctx context.Context, req *NetworkRequest, network string) (EndpointInfo, error)
	Disconnect(ctx context.Context, endpointID string) error
	// HostFiles are hosts and resolv.conf for a container with the host's network, or with none
	// (none true).
	HostFiles(req *NetworkRequest, none bool) (hosts, resolvConf []byte, err error)
}

// Keeper is what the engine needs of a *keeper.Client.
type Keeper interface {
	Start(ctx context.Context, req *keeper.StartRequest) (*keeper.Process, error)
	List(ctx context.Context) ([]*keeper.Process, error)
	Attach(ctx context.Context, id string, at keeper.Attachment) (keeper.Attached, error)
	Detach(ctx context.Context, id string, subscription uint64) error
	Next(ctx context.Context) (keeper.Event, error)
	Forget(ctx context.Context, id string) error
	Abort(ctx context.Context, id string) error
	CloseStdin(ctx context.Context, id string) error
	Resize(ctx context.Context, id string, width, height uint16) error
	Adopt(
		ctx context.Context, p *keeper.Process, attach ...keeper.Attachment,
	) (*keeper.Process, error)
	Shutdown(ctx context.Context, force keeper.Force) error
	Close() error
	Pid() int
}
