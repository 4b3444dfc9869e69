// Package spec turns the flags of `strake run` and `strake create` into the request that asks for
// the container.
//
// It promises that flags mean what they mean to Docker
// (docker/cli:docs/reference/commandline/container_run.md), that a wrong value is one error naming
// flag, value and what is allowed, and that nothing but files named by flags is read, through
// Source.
//
// Not for: deciding what only the engine can know (whether an image, a network or a device exists),
// or sending anything.
//
// Tested by golden requests, which a second test compares with what Docker's own client sends where
// one is installed.
package spec

import (
	"time"

	"github.com/spf13/pflag"

	"strake/cli/flagvalue"
)

// Flags are the flags of run and create that describe a container. Register fills them in; Create
// reads them.
type Flags struct {
	fs *pflag.FlagSet

	// Process.
	attach, env, envFile, labels, labelFile, groupAdd, annotations []string
	entrypoint, workdir, user, hostname, domainname, stopSignal    string
	stdin, tty, init                                               bool
	stopTimeout                                                    int

	// Security.
	capAdd, capDrop, securityOpt, deviceRules, devices, ulimits []string
	privileged, readOnly                                        bool

	// Namespaces.
	pid, ipc, uts, userns, cgroupns string

	// Resources.
	memory, memoryReservation, memorySwap, nanoCPUs, shmSize    int64
	cpuShares, cpuPeriod, cpuQuota, memorySwappiness, pidsLimit int64
	blkioWeight                                                 uint16
	cpusetCPUs, cpusetMems, cgroupParent                        string
	oomScoreAdj                                                 int
	oomKillDisable                                              bool
	sysctls, storageOpt, volumes, mounts, tmpfs, volumesFrom    []string
	volumeDriver                                                string
	publish, expose, networks, networkAliases, linkLocalIPs     []string
	addHost, dns, dnsSearch, dnsOpt, links                      []string
	publishAll                                                  bool
	ip, ip6, mac                                                string
	restart, logDriver, runtime, cidFile                        string
	logOpt                                                      []string
	autoRemove                                                  bool

	healthCmd                                                             string
	healthInterval, healthTimeout, healthStartPeriod, healthStartInterval time.Duration
	healthRetries                                                         int
	noHealthcheck                                                         bool
}

// Register adds the flags to a set.
func Register(fs *pflag.FlagSet) *Flags {
	f := &Flags{fs: fs}
	f.process(fs)
	f.security(fs)
	f.resources(fs)
	f.files(fs)
	f.network(fs)
	f.lifecycle(fs)
	fs.SetInterspersed(false) // what follows the image belongs to the container
	return f
}

func (f *Flags) process(fs *pflag.FlagSet) {
	fs.VarP(flagvalue.List(&f.attach), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.VarP(flagvalue.List(&f.env), "env", "e", "Set environment variables")
	fs.Var(flagvalue.List(&f.envFile), "env-file", "Read in a file of environment variables")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.Var(flagvalue.List(&f.groupAdd), "group-add", "Add additional groups to join")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.BoolVarP(&f.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVar(
		&f.init, "init", false,
		"Run an init inside the container that forwards signals and reaps processes",
	)
	fs.VarP(flagvalue.List(&f.labels), "label", "l", "Set meta data on a container")
	fs.Var(flagvalue.List(&f.labelFile), "label-file", "Read in a line delimited file of labels")
	fs.Var(
		flagvalue.List(&f.annotations), "annotation",
		"Add an annotation to the container (passed through to the OCI runtime)",
	)
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
}

func (f *Flags) security(fs *pflag.FlagSet) {
	fs.Var(flagvalue.List(&f.capAdd), "cap-add", "Add Linux capabilities")
	fs.Var(flagvalue.List(&f.capDrop), "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(flagvalue.List(&f.securityOpt), "security-opt", "Security options")
	fs.BoolVar(
		&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only",
	)
	fs.Var(flagvalue.List(&f.devices), "device", "Add a host device to the container")
	fs.Var(
		flagvalue.List(&f.deviceRules), "device-cgroup-rule",
		"Add a rule to the cgroup allowed devices list",
	)
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	fs.Var(flagvalue.List(&f.sysctls), "sysctl", "Sysctl options")
}

func (f *Flags) resources(fs *pflag.FlagSet) {
	fs.VarP(flagvalue.Bytes(&f.memory), "memory", "m", "Memory limit")
	fs.Var(flagvalue.Bytes(&f.memoryReservation), "memory-reservation", "Memory soft limit")
	fs.Var(
		flagvalue.BytesOrUnlimited(&f.memorySwap), "memory-swap",
		"Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
	)
	fs.Int64Var(
		&f.memorySwappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)",
	)
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Var(flagvalue.CPUs(&f.nanoCPUs), "cpus", "Number of CPUs")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.StringVar(&f.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Uint16Var(
		&f.blkioWeight, "blkio-weight", 0,
		"Block IO (relative weight), between 10 and 1000, or 0 to disable",
	)
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(flagvalue.Checked(&f.ulimits, "ulimit", checkUlimit), "ulimit", "Ulimit options")
	fs.Var(flagvalue.Bytes(&f.shmSize), "shm-size", "Size of /dev/shm")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.Var(flagvalue.List(&f.storageOpt), "storage-opt", "Storage driver options for the container")
}

func (f *Flags) files(fs *pflag.FlagSet) {
	fs.VarP(flagvalue.List(&f.volumes), "volume", "v", "Bind mount a volume")
	fs.Var(
		flagvalue.Checked(&f.mounts, "mount", checkMount), "mount",
		"Attach a filesystem mount to the container",
	)
	fs.Var(flagvalue.List(&f.tmpfs), "tmpfs", "Mount a tmpfs directory")
	fs.Var(
		flagvalue.List(&f.volumesFrom), "volumes-from",
		"Mount volumes from the specified container(s)",
	)
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
}

func (f *Flags) network(fs *pflag.FlagSet) {
	fs.VarP(flagvalue.List(&f.publish), "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(
		&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports",
	)
	fs.Var(flagvalue.List(&f.expose), "expose", "Expose a port or a range of ports")
	fs.Var(
		flagvalue.Checked(&f.networks, "network", checkNetwork), "network",
		"Connect a container to a network",
	)
	fs.Var(
		flagvalue.Checked(&f.networks, "network", checkNetwork), "net",
		"Connect a container to a network",
	)
	fs.Var(
		flagvalue.List(&f.networkAliases), "network-alias",
		"Add network-scoped alias for the container",
	)
	fs.Var(
		flagvalue.List(&f.networkAliases), "net-alias",
		"Add network-scoped alias for the container",
	)
	fs.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.Var(
		flagvalue.List(&f.linkLocalIPs), "link-local-ip",
		"Container IPv4/IPv6 link-local addresses",
	)
	fs.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.Var(flagvalue.List(&f.links), "link", "Add link to another container")
	fs.Var(flagvalue.List(&f.addHost), "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(flagvalue.List(&f.dns), "dns", "Set custom DNS servers")
	fs.Var(flagvalue.List(&f.dnsSearch), "dns-search", "Set custom DNS search domains")
	fs.Var(flagvalue.List(&f.dnsOpt), "dns-option", "Set DNS options")
	fs.Var(flagvalue.List(&f.dnsOpt), "dns-opt", "Set DNS options")
	for _, old := range []string{"net", "net-alias", "dns-opt"} {
		fs.Lookup(old).Hidden = true
	}
}

func (f *Flags) lifecycle(fs *pflag.FlagSet) {
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.BoolVar(
		&f.autoRemove, "rm", false,
		"Automatically remove the container and its associated anonymous volumes when it exits",
	)
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	fs.Var(flagvalue.List(&f.logOpt), "log-opt", "Log driver options")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(
		&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h)",
	)
	fs.DurationVar(
		&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)",
	)
	fs.DurationVar(
		&f.healthStartPeriod, "health-start-period", 0,
		"Start period for the container to initialize before starting health-retries countdown "+
			"(ms|s|m|h)",
	)
	fs.DurationVar(
		&f.healthStartInterval, "health-start-interval", 0,
		"Time between running the check during the start period (ms|s|m|h)",
	)
	fs.IntVar(
		&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy",
	)
	fs.BoolVar(
		&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK",
	)
}

// CIDFile returns the file that the container's ID goes into, or "".
func (f *Flags) CIDFile() string { return f.cidFile }
