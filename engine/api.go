package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/network/place"
	"strake/task"
)

// Spec is what a container is created from: what the user asked for, with every default already
// decided by the front end (which knows whose defaults apply) except those that only the engine can
// know (image configuration, addresses, paths).
//
// It is stored as given and never changed, except by Update and Rename.
type Spec struct {
	// Name is unique among all containers; empty lets the engine choose one.
	Name string `json:"name"`
	// Image is a reference or ID as image.Store.Resolve takes it; empty with RootFS set runs from a
	// directory.
	Image  string `json:"image,omitempty"`
	RootFS string `json:"rootfs,omitempty"`
	// Front belongs to the front end that created the container (api/docker keeps Docker's Config,
	// HostConfig and NetworkingConfig there) and comes back unchanged. The engine never looks
	// inside.
	Front  json.RawMessage   `json:"front,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`

	// Process. Entrypoint, Cmd, Env, WorkingDir and User that are nil or empty are taken from the
	// image as Docker does it: a given Entrypoint clears the image's Cmd.
	Entrypoint []string `json:"entrypoint,omitempty"`
	// ClearEntrypoint says that an empty Entrypoint is meant (docker run --entrypoint "").
	ClearEntrypoint bool                `json:"clearEntrypoint,omitempty"`
	Cmd             []string            `json:"cmd,omitempty"`
	Env             []string            `json:"env,omitempty"`
	WorkingDir      string              `json:"workingDir,omitempty"`
	User            string              `json:"user,omitempty"`
	GroupAdd        []string            `json:"groupAdd,omitempty"`
	Hostname        string              `json:"hostname,omitempty"`
	Domainname      string              `json:"domainname,omitempty"`
	TTY             bool                `json:"tty,omitempty"`
	ConsoleSize     *ConsoleSize        `json:"consoleSize,omitempty"` // of a TTY; nil: none
	OpenStdin       bool                `json:"openStdin,omitempty"`
	StdinOnce       bool                `json:"stdinOnce,omitempty"`
	Init            bool                `json:"init,omitempty"` // a PID 1 reaper in front of the process
	StopSignal      string              `json:"stopSignal,omitempty"`
	StopTimeout     *int                `json:"stopTimeout,omitempty"` // seconds
	Rlimits         []specs.POSIXRlimit `json:"rlimits,omitempty"`
	OOMScoreAdj     int                 `json:"oomScoreAdj,omitempty"`

	// Security.
	Privileged      bool     `json:"privileged,omitempty"`
	CapAdd          []string `json:"capAdd,omitempty"`
	CapDrop         []string `json:"capDrop,omitempty"`
	NoNewPrivileges bool     `json:"noNewPrivileges,omitempty"`
	// Seccomp is "" for the default profile, "unconfined", or a profile's JSON text.
	Seccomp string `json:"seccomp,omitempty"`
	// AppArmor is "" for the default where the kernel has it, "unconfined", or a loaded profile's
	// name.
	AppArmor        string    `json:"apparmor,omitempty"`
	ReadonlyRootfs  bool      `json:"readonlyRootfs,omitempty"`
	MaskedPaths     *[]string `json:"maskedPaths,omitempty"`   // nil: default
	ReadonlyPaths   *[]string `json:"readonlyPaths,omitempty"` // nil: default
	SystemPathsOpen bool      `json:"systemPathsOpen,omitempty"`
	// WritableCgroups lets the container make groups below its own and change their limits.
	WritableCgroups bool `json:"writableCgroups,omitempty"`

	// Umask is that of the container's processes; nil is 022.
	Umask *uint32 `json:"umask,omitempty"`

	// Namespaces: "" is the default (private), else "host", "none" (ipc), "private", "shareable"
	// (ipc), or "container:NAME".
	PIDMode    string `json:"pidMode,omitempty"`
	IPCMode    string `json:"ipcMode,omitempty"`
	UTSMode    string `json:"utsMode,omitempty"`
	CgroupMode string `json:"cgroupMode,omitempty"`
	UsernsMode string `json:"usernsMode,omitempty"`

	// Resources in runtime-spec terms; devices are added to it by the engine from Devices and
	// Privileged.
	Resources    specs.LinuxResources `json:"resources"`
	CgroupParent string               `json:"cgroupParent,omitempty"`
	Devices      []Device             `json:"devices,omitempty"`
	DeviceRules  []string             `json:"deviceRules,omitempty"` // "c 1:3 rwm"
	Sysctls      map[string]string    `json:"sysctls,omitempty"`
	ShmSizeBytes int64                `json:"shmSizeBytes,omitempty"` // 0: 64 MiB

	Mounts  []Mount           `json:"mounts,omitempty"`
	Tmpfs   map[string]string `json:"tmpfs,omitempty"`   // target → options
	Volumes []string          `json:"volumes,omitempty"` // anonymous volumes at these targets, beside the image's

	// Network: "" or "bridge" or a network's name, "none", "host", "container:NAME".
	Network    string                  `json:"network,omitempty"`
	Endpoints  map[string]EndpointSpec `json:"endpoints,omitzero"` // by network name; nil: the primary one
	Ports      []PortBinding           `json:"ports,omitempty"`
	PublishAll bool                    `json:"publishAll,omitempty"`
	Exposed    []string                `json:"exposed,omitempty"` // "80/tcp"
	DNS        []string                `json:"dns,omitempty"`
	DNSSearch  []string                `json:"dnsSearch,omitempty"`
	DNSOptions []string                `json:"dnsOptions,omitempty"`
	ExtraHosts []string                `json:"extraHosts,omitempty"` // "name:address" or "name:host-gateway"

	AutoRemove bool          `json:"autoRemove,omitempty"`
	Restart    RestartPolicy `json:"restart"`
	Log        LogConfig     `json:"log"`
	Health     *HealthConfig `json:"health,omitempty"` // nil: the image's
}

// ConsoleSize is the size of a terminal in characters.
type ConsoleSize struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Device is a device node of the host given to the container.
type Device struct {
	HostPath      string `json:"hostPath"`
	ContainerPath string `json:"containerPath"`
	Permissions   string `json:"permissions"` // subset of "rwm"
}

// Mount is a bind mount, a named or anonymous volume, or a tmpfs.
type Mount struct {
	Type        string `json:"type"` // "bind", "volume", "tmpfs"
	Source      string `json:"source,omitempty"`
	Target      string `json:"target"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
	Propagation string `json:"propagation,omitempty"`
	// CreateSource makes a missing bind source a directory, as -v does; otherwise it is an error.
	CreateSource bool `json:"createSource,omitempty"`
	// Subpath is the part of a volume that is mounted, a path without a way out of it; empty means
	// the whole.
	Subpath string `json:"subpath,omitempty"`
	// NoCopy leaves a new volume empty instead of filling it from the image.
	NoCopy       bool   `json:"noCopy,omitempty"`
	SizeBytes    int64  `json:"sizeBytes,omitempty"` // tmpfs
	Mode         uint32 `json:"mode,omitempty"`      // tmpfs
	NonRecursive bool   `json:"nonRecursive,omitempty"`
	// ReadOnlyNonRecursive leaves what is mounted below a read-only bind writable.
	ReadOnlyNonRecursive bool              `json:"readOnlyNonRecursive,omitempty"`
	Driver               string            `json:"driver,omitempty"`
	Options              map[string]string `json:"options,omitempty"`
	Labels               map[string]string `json:"labels,omitempty"`
}

// What a container asks of networks and gets from them has one type from the front end down.
type (
	EndpointSpec = place.EndpointSpec
	EndpointInfo = place.Endpoint
	PortBinding  = place.Port
	BoundPort    = place.Bound
)

// RestartPolicy is Docker's.
type RestartPolicy struct {
	Name       string `json:"name,omitempty"` // "", "no", "always", "unless-stopped", "on-failure"
	MaxRetries int    `json:"maxRetries,omitempty"`
}

// LogConfig chooses the log driver: "json-file" (default), "local" (the same file), or "none".
type LogConfig struct {
	Driver   string `json:"driver,omitempty"`
	MaxBytes int64  `json:"maxBytes,omitempty"` // per file; 0: the default of 20 MiB
	MaxFiles int    `json:"maxFiles,omitempty"` // 0: the default of 5
	// What is written beside each line: labels and variables, named in lists separated by commas
	// and by regular expressions, and a tag, a template (package logattr).
	Labels      string `json:"labels,omitempty"`
	LabelsRegex string `json:"labelsRegex,omitempty"`
	Env         string `json:"env,omitempty"`
	EnvRegex    string `json:"envRegex,omitempty"`
	Tag         string `json:"tag,omitempty"`
}

// HealthConfig is Docker's HEALTHCHECK. Test is ["NONE"], ["CMD", …] or ["CMD-SHELL", …].
type HealthConfig struct {
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// Status is the life of a container as Docker names it.
type Status string

const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead"
)

// State is the changing part of a container.
type State struct {
	Status       Status    `json:"status"`
	Pid          int       `json:"pid,omitempty"`
	ExitCode     int       `json:"exitCode"`
	Error        string    `json:"error,omitempty"`
	OOMKilled    bool      `json:"oomKilled,omitempty"`
	StartedAt    time.Time `json:"startedAt,omitzero"`
	FinishedAt   time.Time `json:"finishedAt,omitzero"`
	RestartCount int       `json:"restartCount,omitempty"`
	// Lost says that the container was running when the machine, or the keeper with the engine,
	// went down, and how it ended is not known.
	Lost bool `json:"lost,omitempty"`
	// StoppedByUser keeps restart policies from undoing a stop.
	StoppedByUser bool   `json:"stoppedByUser,omitempty"`
	Health        string `json:"health,omitempty"` // "", "starting", "healthy", "unhealthy"
	FailingStreak int    `json:"failingStreak,omitempty"`
}

// Info is a consistent copy of everything known about a container; it is the caller's.
type Info struct {
	ID      string
	Created time.Time
	Spec    Spec
	State   State
	ImageID string
	// LayerKey names the container's writable layer in the image store; empty without an image.
	LayerKey string
	// Path and Args are the process as resolved with the image.
	Path                                             string
	Args                                             []string
	Env                                              []string
	User, WorkingDir                                 string
	Networks                                         map[string]EndpointInfo
	Ports                                            []BoundPort
	SandboxKey                                       string // path of the network namespace
	Mounts                                           []MountInfo
	LogPath, ResolvConfPath, HostnamePath, HostsPath string
	ExecIDs                                          []string
	HealthLog                                        []HealthResult
}

// MountInfo is a mount as `inspect` shows it.
type MountInfo struct {
	Type, Name, Source, Destination, Driver, Mode, Propagation string
	RW                                                         bool
}

// HealthResult is one run of a health check.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// ExecSpec is a process to run in a running container.
type ExecSpec struct {
	Args       []string
	Env        []string
	User       string
	WorkingDir string
	TTY        bool
	Stdin      bool // attach standard input
	Privileged bool
	DetachKeys string
	// ConsoleSize is that of a TTY if the start names none; nil: none.
	ConsoleSize *ConsoleSize `json:",omitempty"`
}

// ExecInfo describes an exec.
type ExecInfo struct {
	ID, ContainerID string
	Spec            ExecSpec
	Running         bool
	Pid             int
	ExitCode        *int // nil while it has not ended
}

// Streams connects a caller to a process. Fields may be nil. Output of a TTY goes to Stdout.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	DetachKeys     []byte
}

// AttachOptions says what an attach wants.
type AttachOptions struct {
	Streams
	Logs   bool // what was written before, first
	Stream bool // what is written from now on
	// Attached, if not nil, is called once when everything written from now on will be delivered.
	Attached func()
}

// WaitCondition is Docker's.
type WaitCondition string

const (
	// WaitNotRunning is met at once by a container that neither runs nor waits for its restart, else
	// by its next exit, also if a restart policy starts it again.
	WaitNotRunning WaitCondition = "not-running"
	// WaitNextExit is met by the next exit.
	WaitNextExit WaitCondition = "next-exit"
	// WaitRemoved is met by the removal.
	WaitRemoved WaitCondition = "removed"
)

// ExitStatus is how a container ended.
type ExitStatus struct {
	Code      int
	Error     string
	OOMKilled bool
}

// LogOptions selects from a container's log.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Since, Until   time.Time
	Tail           int // lines; negative: all
}

// LogLine is one entry of a log. Partial lines are delivered as they were written.
type LogLine struct {
	Stream string // "stdout" or "stderr"
	Time   time.Time
	Line   []byte // with its newline, if it had one
	// Attributes are what was written beside the line (LogConfig.Labels and so on).
	Attributes map[string]string
}

// Event is Docker's event message without its wire form.
type Event struct {
	Type, Action, ID string
	Attributes       map[string]string
	Time             time.Time
}

// Containers is what a front end may do with containers. *Engine implements it. Every name may be
// a name, an ID or an unambiguous prefix of an ID. Errors are of the classes of
// github.com/containerd/errdefs; messages are the user's.
type Containers interface {
	Create(ctx context.Context, spec Spec) (id string, warnings []string, err error)
	// Start returns when the container's process executes. A process that cannot be executed is an
	// *ExecError.
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string, signal string, timeout *int) error
	Kill(ctx context.Context, name string, signal string) error
	Restart(ctx context.Context, name string, signal string, timeout *int) error
	Pause(ctx context.Context, name string) error
	Unpause(ctx context.Context, name string) error
	Remove(ctx context.Context, name string, opt RemoveOptions) error
	Rename(ctx context.Context, name, to string) error
	// Update puts what is set in res and restart over the container's. front, if it is not nil,
	// gives what the front end keeps with the container from then on, or an error that leaves
	// everything as it is.
	Update(
		ctx context.Context, name string, res specs.LinuxResources, restart *RestartPolicy,
		front func(json.RawMessage) (json.RawMessage, error),
	) (warnings []string, err error)
	// Wait returns how the container ended when cond is met. registered, if it is not nil, is called
	// once when no exit will be missed any more. At the return the exit is recorded and what the
	// container occupied is given back.
	Wait(
		ctx context.Context, name string, cond WaitCondition, registered func(),
	) (ExitStatus, error)
	Inspect(ctx context.Context, name string) (Info, error)
	// List returns all containers, newest first. It reads memory only.
	List(ctx context.Context) ([]Info, error)
	// Usage returns the bytes of the writable layer and of the whole root filesystem.
	Usage(ctx context.Context, name string) (rw, root int64, err error)
	Changes(ctx context.Context, name string) ([]Change, error)
	// Attach returns nil when the user has detached, or when the output is delivered, the exit is
	// recorded and what the container occupied is given back. Without Stream it returns when the log
	// is delivered.
	Attach(ctx context.Context, name string, opt AttachOptions) error
	Resize(ctx context.Context, name string, width, height uint16) error
	Logs(ctx context.Context, name string, opt LogOptions, emit func(LogLine) error) error
	Stats(ctx context.Context, name string) (Stats, error)
	Top(ctx context.Context, name string) ([]Process, error)
	ExecCreate(ctx context.Context, name string, spec ExecSpec) (id string, err error)
	// ExecStart returns when the process executes, with detach; else when its output is delivered and
	// its exit status is recorded, or the user has detached. size is the width and height of a
	// terminal; nil: that of ExecSpec.
	ExecStart(ctx context.Context, id string, streams Streams, size *[2]uint16, detach bool) error
	ExecInspect(ctx context.Context, id string) (ExecInfo, error)
	ExecResize(ctx context.Context, id string, width, height uint16) error
	// ConnectNetwork puts a container into one more network: at once if it runs, else at its next
	// start. A second time is errdefs.ErrConflict.
	ConnectNetwork(ctx context.Context, name, network string, ep EndpointSpec) error
	// DisconnectNetwork takes a container out of a network, by name. If it is not in it, that is
	// errdefs.ErrNotFound.
	DisconnectNetwork(ctx context.Context, name, network string) error
}

// RemoveOptions of Containers.Remove.
type RemoveOptions struct{ Force, Volumes bool }

// Change is one difference to the image: Kind 0 modified, 1 added, 2 deleted.
type Change struct {
	Path string
	Kind int
}

// Process is one line of `top`. UID and GID are the effective ones.
type Process struct {
	UID, PID, PPID, CPUPercent int
	StartedAt                  time.Time
	TTY, Command               string
	CPUTime                    time.Duration
	// Name is that of the executable as the kernel shortens it; State as ps(1) shows STAT.
	Name, State                 string
	RUID, GID, RGID             int
	PGID, SID, TPGID            int // TPGID is -1 without a terminal
	Nice, Priority              int // as in proc_pid_stat(5)
	Threads, Processor          int
	VirtualBytes, ResidentBytes int64
}

// ExecError is a process that could not be executed. Code is the exit status by the shell's
// convention: 126 not executable, 127 not found, 128 otherwise.
type ExecError struct {
	Code int
	Err  error
}

func (e *ExecError) Error() string { return e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// The readings of a running container are its task's.
type (
	Stats        = task.Stats
	CPUStats     = task.CPUStats
	MemoryStats  = task.MemoryStats
	IOEntry      = task.IOEntry
	NetworkStats = task.NetworkStats
)

// EventQuery selects events.
type EventQuery struct {
	// Since asks for past events from then on, as far as they are remembered (256 of them); zero
	// for none.
	Since time.Time
	// Until ends the past events; the live ones are the caller's to end.
	Until time.Time
	// Match says which events are wanted; nil: all. It is called with a lock held and must be
	// quick.
	Match func(Event) bool
}

// ErrNotStarted is returned by Attach for a container whose start, which it waited for, failed.
// The caller of Start has the reason.
var ErrNotStarted = errors.New("the container has not been started")
