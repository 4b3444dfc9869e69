package api

// Created answers POST /containers/create.
type Created struct {
	ID       string `json:"Id"`
	Warnings []string
}

// Waited answers POST /containers/{id}/wait.
type Waited struct {
	StatusCode int
	Error      *struct{ Message string }
}

// Container is an entry of GET /containers/json.
type Container struct {
	ID              string `json:"Id"`
	Names           []string
	Image, ImageID  string
	Command         string
	Created         int64
	Ports           []Port
	SizeRw          int64
	SizeRootFs      int64
	Labels          map[string]string
	State, Status   string
	NetworkSettings struct{ Networks map[string]Endpoint }
	Mounts          []struct{ Type, Name, Source, Destination string }
}

// Port is a port of a listed container.
type Port struct {
	IP          string
	PrivatePort uint16
	PublicPort  uint16
	Type        string
}

// ContainerState is what the commands read of GET /containers/{id}/json.
type ContainerState struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status                      string
		Running, Paused, Restarting bool
		ExitCode                    int
	}
	Config          struct{ Tty, OpenStdin, StdinOnce, AttachStdin bool }
	HostConfig      struct{ AutoRemove bool }
	NetworkSettings struct{ Ports map[string][]PortBinding }
}

// ExecRequest is the body of POST /containers/{id}/exec.
type ExecRequest struct {
	User         string   `json:",omitempty"`
	Privileged   bool     `json:",omitempty"`
	Tty          bool     `json:",omitempty"`
	ConsoleSize  *[2]uint `json:",omitempty"`
	AttachStdin  bool     `json:",omitempty"`
	AttachStderr bool     `json:",omitempty"`
	AttachStdout bool     `json:",omitempty"`
	DetachKeys   string   `json:",omitempty"`
	Env          []string `json:",omitempty"`
	WorkingDir   string   `json:",omitempty"`
	Cmd          []string
}

// ExecStart is the body of POST /exec/{id}/start.
type ExecStart struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint `json:",omitempty"`
}

// ExecState answers GET /exec/{id}/json.
type ExecState struct {
	Running  bool
	ExitCode *int
}

// Image is an entry of GET /images/json.
type Image struct {
	ID          string `json:"Id"`
	RepoTags    []string
	RepoDigests []string
	Created     int64
	Size        int64
	SharedSize  int64
	Containers  int64
	Labels      map[string]string
}

// ImageDeleted is an entry of the answer to DELETE /images/{name}.
type ImageDeleted struct{ Untagged, Deleted string }

// Layer is an entry of GET /images/{name}/history.
type Layer struct {
	ID        string `json:"Id"`
	Created   int64
	CreatedBy string
	Tags      []string
	Size      int64
	Comment   string
}

// Network is an entry of GET /networks.
type Network struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 *bool
	EnableIPv6 bool
	Internal   bool
	Labels     map[string]string
}

// NetworkCreate is the body of POST /networks/create.
type NetworkCreate struct {
	Name       string
	Driver     string            `json:",omitempty"`
	EnableIPv4 *bool             `json:",omitempty"`
	EnableIPv6 *bool             `json:",omitempty"`
	Internal   bool              `json:",omitempty"`
	Attachable bool              `json:",omitempty"`
	IPAM       *IPAM             `json:",omitempty"`
	Options    map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// IPAM is how a network's addresses are given out.
type IPAM struct {
	Driver  string            `json:",omitempty"`
	Config  []IPAMPool        `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// IPAMPool is a subnet.
type IPAMPool struct {
	Subnet             string            `json:",omitempty"`
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"`
}

// NetworkConnect is the body of POST /networks/{id}/connect and, without EndpointConfig, of
// disconnect.
type NetworkConnect struct {
	Container      string
	Force          bool      `json:",omitempty"`
	EndpointConfig *Endpoint `json:",omitempty"`
}

// Volume is an entry of GET /volumes.
type Volume struct {
	Name, Driver, Mountpoint, Scope, CreatedAt string
	Labels, Options                            map[string]string
	UsageData                                  *struct{ Size, RefCount int64 }
}

// Volumes answers GET /volumes.
type Volumes struct {
	Volumes  []Volume
	Warnings []string
}

// VolumeCreate is the body of POST /volumes/create.
type VolumeCreate struct {
	Name       string            `json:",omitempty"`
	Driver     string            `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
}

// Pruned answers the prune requests.
type Pruned struct {
	ContainersDeleted []string
	ImagesDeleted     []ImageDeleted
	NetworksDeleted   []string
	VolumesDeleted    []string
	SpaceReclaimed    int64
}

// Top answers GET /containers/{id}/top.
type Top struct {
	Titles    []string
	Processes [][]string
}

// Change is an entry of GET /containers/{id}/changes: kind 0 modified, 1 added, 2 deleted.
type Change struct {
	Path string
	Kind int
}

// Update is the body of POST /containers/{id}/update.
type Update struct {
	Resources
	RestartPolicy *RestartPolicy `json:",omitempty"`
}

// Event is an entry of GET /events.
type Event struct {
	Type, Action string
	Actor        struct {
		ID         string
		Attributes map[string]string
	}
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

// Version answers GET /version.
type Version struct {
	Version, MinAPIVersion, GitCommit, GoVersion, Os, Arch, KernelVersion, BuildTime string

	APIVersion string `json:"ApiVersion"`
	Platform   struct{ Name string }
	Components []struct {
		Name, Version string
		Details       map[string]string
	}
}

// DiskUsage answers GET /system/df?verbose=1. The first five are for engines before 1.52; Lists
// gives one form for both.
type DiskUsage struct {
	LayersSize int64
	Images     []Image
	Containers []Container
	Volumes    []Volume
	BuildCache []BuildRecord

	ImageUsage *struct {
		TotalSize int64
		Items     []Image
	}
	ContainerUsage  *struct{ Items []Container }
	VolumeUsage     *struct{ Items []Volume }
	BuildCacheUsage *struct{ Items []BuildRecord }
}

// BuildRecord is an entry of a build cache. Size is in bytes.
type BuildRecord struct {
	ID, Type, Description string
	Size                  int64
	InUse, Shared         bool
	CreatedAt, LastUsedAt string
	UsageCount            int
}

// Lists puts what new engines answer where old ones have it.
func (u *DiskUsage) Lists() {
	if n := u.ImageUsage; n != nil {
		u.LayersSize, u.Images = n.TotalSize, n.Items
	}
	if n := u.ContainerUsage; n != nil {
		u.Containers = n.Items
	}
	if n := u.VolumeUsage; n != nil {
		u.Volumes = n.Items
	}
	if n := u.BuildCacheUsage; n != nil {
		u.BuildCache = n.Items
	}
}

// Stats is an entry of GET /containers/{id}/stats. Times are nanoseconds, sizes bytes.
type Stats struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Read     string `json:"read"`
	CPU      CPU    `json:"cpu_stats"`
	PreCPU   CPU    `json:"precpu_stats"`
	Memory   Memory `json:"memory_stats"`
	Blkio    Blkio  `json:"blkio_stats"`
	Pids     Pids   `json:"pids_stats"`
	Networks map[string]struct {
		RxBytes uint64 `json:"rx_bytes"`
		TxBytes uint64 `json:"tx_bytes"`
	} `json:"networks"`
}

// Pids is the number of tasks, threads among them.
type Pids struct {
	Current uint64 `json:"current"`
}

// CPU is processor time used, by the container and by the whole host.
type CPU struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage"`
	} `json:"cpu_usage"`
	System uint64 `json:"system_cpu_usage"`
	Online uint32 `json:"online_cpus"`
}

// Memory is memory in use.
type Memory struct {
	Usage uint64            `json:"usage"`
	Limit uint64            `json:"limit"`
	Stats map[string]uint64 `json:"stats"`
}

// Blkio is bytes read from and written to block devices.
type Blkio struct {
	Bytes []struct {
		Op    string `json:"op"`
		Value uint64 `json:"value"`
	} `json:"io_service_bytes_recursive"`
}

// AuthConfig is a registry login, as X-Registry-Auth carries it.
type AuthConfig struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// AuthStatus answers POST /auth.
type AuthStatus struct{ Status, IdentityToken string }
