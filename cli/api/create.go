// Package api holds the JSON of the Docker Engine API (moby/moby:api/swagger.yaml) as far as the
// commands write and read it. Field names are those of the wire; units are the API's (bytes,
// nanoseconds, seconds since 1970).
//
// moby's own types say the same, but they import packages that initialise before main runs: the
// regular expressions of go-digest alone take a quarter of a millisecond (GODEBUG=inittrace=1). A
// test compares the two. What a command only passes on (inspect) stays JSON and is not described
// here.
//
// Not for: behaviour, or fields that no command uses.
//
// Tested by a comparison of each field with moby's types; that the fields are used as meant, by the
// golden requests of package spec and by the scripts of package cli.
package api

// CreateRequest is the body of POST /containers/create. Absent fields mean the engine's defaults.
type CreateRequest struct {
	Config
	HostConfig       HostConfig
	NetworkingConfig *NetworkingConfig `json:",omitempty"`
}

// Config is what a container runs.
type Config struct {
	Hostname     string              `json:",omitempty"`
	Domainname   string              `json:",omitempty"`
	User         string              `json:",omitempty"`
	AttachStdin  bool                `json:",omitempty"`
	AttachStdout bool                `json:",omitempty"`
	AttachStderr bool                `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"` // "80/tcp"
	Tty          bool                `json:",omitempty"`
	OpenStdin    bool                `json:",omitempty"`
	StdinOnce    bool                `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Healthcheck  *Health             `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	StopTimeout  *int                `json:",omitempty"` // seconds
}

// Health is a health check; durations are nanoseconds.
type Health struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// HostConfig is what a container gets of the host.
type HostConfig struct {
	Binds           []string                 `json:",omitempty"`
	ContainerIDFile string                   `json:",omitempty"`
	Links           []string                 `json:",omitempty"`
	LogConfig       *LogConfig               `json:",omitempty"`
	NetworkMode     string                   `json:",omitempty"`
	PortBindings    map[string][]PortBinding `json:",omitempty"`
	RestartPolicy   *RestartPolicy           `json:",omitempty"`
	AutoRemove      bool                     `json:",omitempty"`
	VolumeDriver    string                   `json:",omitempty"`
	VolumesFrom     []string                 `json:",omitempty"`
	ConsoleSize     *[2]uint                 `json:",omitempty"` // height, width
	Annotations     map[string]string        `json:",omitempty"`
	CapAdd          []string                 `json:",omitempty"`
	CapDrop         []string                 `json:",omitempty"`
	CgroupnsMode    string                   `json:",omitempty"`
	DNS             []string                 `json:"Dns,omitempty"`
	DNSOptions      []string                 `json:"DnsOptions,omitempty"`
	DNSSearch       []string                 `json:"DnsSearch,omitempty"`
	ExtraHosts      []string                 `json:",omitempty"`
	GroupAdd        []string                 `json:",omitempty"`
	IpcMode         string                   `json:",omitempty"`
	OomScoreAdj     int                      `json:",omitempty"`
	PidMode         string                   `json:",omitempty"`
	Privileged      bool                     `json:",omitempty"`
	PublishAllPorts bool                     `json:",omitempty"`
	ReadonlyRootfs  bool                     `json:",omitempty"`
	SecurityOpt     []string                 `json:",omitempty"`
	StorageOpt      map[string]string        `json:",omitempty"`
	Tmpfs           map[string]string        `json:",omitempty"`
	UTSMode         string                   `json:",omitempty"`
	UsernsMode      string                   `json:",omitempty"`
	ShmSize         int64                    `json:",omitempty"` // bytes
	Sysctls         map[string]string        `json:",omitempty"`
	Runtime         string                   `json:",omitempty"`
	Resources
	Mounts        []Mount   `json:",omitempty"`
	MaskedPaths   *[]string `json:",omitempty"` // nil: the default ones
	ReadonlyPaths *[]string `json:",omitempty"` // nil: the default ones
	Init          *bool     `json:",omitempty"`
}

// Resources are limits. Memory sizes are bytes; -1 for MemorySwap is no limit.
type Resources struct {
	CPUShares         int64           `json:"CpuShares,omitempty"`
	Memory            int64           `json:",omitempty"`
	NanoCPUs          int64           `json:"NanoCpus,omitempty"`
	CgroupParent      string          `json:",omitempty"`
	BlkioWeight       uint16          `json:",omitempty"`
	CPUPeriod         int64           `json:"CpuPeriod,omitempty"` // microseconds
	CPUQuota          int64           `json:"CpuQuota,omitempty"`  // microseconds
	CpusetCpus        string          `json:",omitempty"`
	CpusetMems        string          `json:",omitempty"`
	Devices           []Device        `json:",omitempty"`
	DeviceCgroupRules []string        `json:",omitempty"`
	DeviceRequests    []DeviceRequest `json:",omitempty"`
	MemoryReservation int64           `json:",omitempty"`
	MemorySwap        int64           `json:",omitempty"`
	MemorySwappiness  *int64          `json:",omitempty"`
	OomKillDisable    *bool           `json:",omitempty"`
	PidsLimit         *int64          `json:",omitempty"`
	Ulimits           []Ulimit        `json:",omitempty"`
}

// Device is a device node given to a container.
type Device struct{ PathOnHost, PathInContainer, CgroupPermissions string }

// DeviceRequest asks a device driver ("cdi") for devices.
type DeviceRequest struct {
	Driver    string   `json:",omitempty"`
	DeviceIDs []string `json:",omitempty"`
}

// Ulimit is a resource limit; -1 is none.
type Ulimit struct {
	Name       string
	Hard, Soft int64
}

// LogConfig chooses where output goes.
type LogConfig struct {
	Type   string            `json:",omitempty"`
	Config map[string]string `json:",omitempty"`
}

// RestartPolicy says when an ended container starts again.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int `json:",omitempty"`
}

// PortBinding is the host's side of a published port; an empty HostPort lets the engine choose.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// Mount is a bind mount, volume or tmpfs.
type Mount struct {
	Type          string         `json:",omitempty"`
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	Consistency   string         `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
}

// BindOptions of a bind mount.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions of a volume.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *VolumeDriver     `json:",omitempty"`
}

// VolumeDriver makes a volume that does not exist yet.
type VolumeDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// TmpfsOptions of a tmpfs.
type TmpfsOptions struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

// NetworkingConfig says which networks a new container joins.
type NetworkingConfig struct {
	EndpointsConfig map[string]*Endpoint
}

// Endpoint is a container's place in a network: what is asked for in requests, what it has in answers.
type Endpoint struct {
	IPAMConfig        *EndpointIPAM     `json:",omitempty"`
	Links             []string          `json:",omitempty"`
	Aliases           []string          `json:",omitempty"`
	DriverOpts        map[string]string `json:",omitempty"`
	GwPriority        int               `json:",omitempty"`
	MacAddress        string            `json:",omitempty"`
	NetworkID         string            `json:",omitempty"`
	IPAddress         string            `json:",omitempty"`
	GlobalIPv6Address string            `json:",omitempty"`
}

// EndpointIPAM asks for addresses.
type EndpointIPAM struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}
