package ocispec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/lxc/config"
)

// defaultPath is for a program without a slash in its name; execvp(3) has a default too, OCI none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Words splits a command at white space. Single and double quotes keep white space together; there
// is no escape character, as in LXC. It fails for a quote that is not closed.
func Words(command string) (words []string, ok bool) {
	var word strings.Builder
	quote, inside := rune(0), false
	for _, r := range command {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if inside {
		words = append(words, word.String())
	}
	return words, quote == 0
}

// process is the container's init, or what lxc-execute runs below a small one.
func (m *maker) process() error {
	conf := m.in.Config
	args, err := m.args()
	if err != nil {
		return err
	}
	proc := m.spec.Process
	proc.Args = args
	proc.Cwd = conf.Init.Cwd
	if proc.Cwd == "" {
		proc.Cwd = "/"
	} else if proc.Cwd[0] != '/' {
		return refuse("lxc.init.cwd", proc.Cwd, "want an absolute path")
	}
	for _, id := range []struct {
		key  string
		list []int
	}{
		{"lxc.init.uid", []int{conf.Init.UID}}, {"lxc.init.gid", []int{conf.Init.GID}},
		{"lxc.init.groups", conf.Init.Groups},
	} {
		for _, n := range id.list {
			if n < 0 || int64(n) >= 1<<32-1 {
				return refuse(id.key, strconv.Itoa(n), "want 0 to 4294967294")
			}
		}
	}
	proc.User = specs.User{UID: uint32(conf.Init.UID), GID: uint32(conf.Init.GID)}
	for _, g := range conf.Init.Groups {
		proc.User.AdditionalGids = append(proc.User.AdditionalGids, uint32(g))
	}
	proc.Terminal = conf.Console.Path == ""
	proc.NoNewPrivileges = conf.NoNewPrivs
	m.environment()
	if err := m.rlimits(); err != nil {
		return err
	}
	return m.procFiles()
}

func (m *maker) args() ([]string, error) {
	key, command := "lxc.init.cmd", m.in.Config.Init.Cmd
	if m.made.Init {
		if len(m.in.Command) > 0 {
			return slices.Clone(m.in.Command), nil
		}
		key, command = "lxc.execute.cmd", m.in.Config.ExecuteCmd
		if command == "" {
			return nil, refuse(key, "", "missing: there is no command to execute")
		}
	}
	if command == "" {
		return []string{"/sbin/init"}, nil
	}
	words, ok := Words(command)
	if !ok {
		return nil, refuse(key, command, "a quote is not closed")
	}
	if len(words) == 0 || words[0] == "" {
		return nil, refuse(key, command, "want a program")
	}
	return words, nil
}

// environment is what LXC leaves of it: the caller's is not inherited.
func (m *maker) environment() {
	conf := m.in.Config
	env := variables{caller: m.in.Environ}
	env.add(conf.Environment...)
	env.add(conf.EnvironmentRuntime...)
	for _, name := range env.missing {
		m.warn("lxc.environment", name, "left out, because the caller has no such variable")
	}
	env.add("container=lxc")
	if len(m.ttys) > 0 {
		env.add("container_ttys=" + strings.Join(m.ttys, " "))
	}
	if _, ok := env.get("PATH"); !ok && !strings.Contains(m.spec.Process.Args[0], "/") {
		env.add(defaultPath)
	}
	m.spec.Process.Env = env.list
}

// variables is an environment in which each name stands once, at its first place.
type variables struct {
	list    []string
	caller  []string
	missing []string // names without a value that the caller does not have
}

// add sets variables; a name without a value takes the caller's.
func (v *variables) add(list ...string) {
	for _, s := range list {
		name, _, ok := strings.Cut(s, "=")
		if !ok {
			i := find(v.caller, name)
			if i < 0 {
				v.missing = append(v.missing, name)
				continue
			}
			s = v.caller[i]
		}
		if i := find(v.list, name); i >= 0 {
			v.list[i] = s
		} else {
			v.list = append(v.list, s)
		}
	}
}

func (v *variables) get(name string) (string, bool) {
	i := find(v.list, name)
	if i < 0 {
		return "", false
	}
	return v.list[i][len(name)+1:], true
}

// find is the place of a variable in an environment, or -1.
func find(env []string, name string) int {
	return slices.IndexFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
}

// rlimitNames are those of getrlimit(2) as LXC spells them.
var rlimitNames = [...]string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}

// rlimits: the last line about a limit counts.
func (m *maker) rlimits() error {
	proc := m.spec.Process
	for _, l := range m.in.Config.Prlimit {
		value := strconv.FormatUint(l.Soft, 10) + ":" + strconv.FormatUint(l.Hard, 10)
		if !slices.Contains(rlimitNames[:], l.Name) {
			return refuse(
				"lxc.prlimit."+l.Name, value, "want one of %s", strings.Join(rlimitNames[:], ", "),
			)
		}
		if l.Soft > l.Hard {
			return refuse("lxc.prlimit."+l.Name, value, "the soft limit exceeds the hard limit")
		}
		limit := specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(l.Name), Soft: l.Soft, Hard: l.Hard,
		}
		i := slices.IndexFunc(proc.Rlimits, func(r specs.POSIXRlimit) bool {
			return r.Type == limit.Type
		})
		if i >= 0 {
			proc.Rlimits[i] = limit
		} else {
			proc.Rlimits = append(proc.Rlimits, limit)
		}
	}
	return nil
}

// procFiles sets what the library knows, and leaves the other files of /proc/PID to the caller.
func (m *maker) procFiles() error {
	for _, f := range m.in.Config.Proc {
		if f.Name != "oom_score_adj" {
			if f.Name == "" || strings.HasPrefix(f.Name, "/") || strings.Contains(f.Name, "..") {
				return refuse("lxc.proc."+f.Name, f.Value, "want the name of a file of /proc/PID")
			}
			m.made.Proc = append(m.made.Proc, f)
			continue
		}
		score, err := strconv.Atoi(strings.TrimSpace(f.Value))
		if err != nil || score < -1000 || score > 1000 {
			return refuse("lxc.proc.oom_score_adj", f.Value, "want -1000 to 1000")
		}
		m.spec.Process.OOMScoreAdj = &score
	}
	return nil
}

// sysctls are those that a namespace of the container has (sysctl(8), network_namespaces(7)).
func (m *maker) sysctls() error {
	for _, s := range m.in.Config.Sysctl {
		key := "lxc.sysctl." + s.Name
		name := strings.ReplaceAll(s.Name, "/", ".")
		need := specs.IPCNamespace
		switch {
		case strings.HasPrefix(name, "net."):
			need = specs.NetworkNamespace
		case name == "kernel.hostname":
			return refuse(key, s.Value, "set lxc.uts.name instead")
		case name == "kernel.domainname":
			need = specs.UTSNamespace
		case strings.HasPrefix(name, "fs.mqueue."), name == "kernel.sem",
			strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"):
		default:
			return refuse(
				key, s.Value,
				"the host and all containers share this parameter; want net.*, fs.mqueue.*, "+
					"kernel.domainname or one of the kernel's IPC limits",
			)
		}
		if _, own := m.namespace(need); !own {
			return refuse(key, s.Value, "the container has the host's %s namespace", need)
		}
		if m.spec.Linux.Sysctl == nil {
			m.spec.Linux.Sysctl = map[string]string{}
		}
		m.spec.Linux.Sysctl[s.Name] = s.Value
	}
	return nil
}

// Architectures as lxc.arch spells them (confile.c, lxc_config_parse_arch).
var (
	arch32 = [...]string{
		"arm", "armel", "armhf", "armv7l", "athlon", "i386", "i486", "i586", "i686", "linux32",
		"mips", "mipsel", "powerpc", "ppc", "x32", "x86",
	}
	arch64 = [...]string{
		"aarch64", "amd64", "arm64", "linux64", "loong64", "loongarch64", "mips64", "mips64el",
		"powerpc64", "ppc64", "ppc64el", "ppc64le", "riscv64", "s390x", "x86_64",
	}
)

// personality says to 32-bit containers that the machine is one (personality(2), PER_LINUX32).
func personality(arch string, linux *specs.Linux) error {
	switch {
	case slices.Contains(arch32[:], arch):
		linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	case arch != "" && !slices.Contains(arch64[:], arch):
		return refuse(
			"lxc.arch", arch, "want one of %s",
			strings.Join(slices.Concat(arch32[:], arch64[:]), ", "),
		)
	}
	return nil
}

// signals are the ones that end the container. Halt and reboot depend on its init.
func signals(conf *config.Config, made *Made) error {
	made.Stop = syscall.SIGKILL
	for _, s := range []struct {
		key    string
		number int
		to     *syscall.Signal
	}{
		{"lxc.signal.halt", conf.Signal.Halt, &made.Halt},
		{"lxc.signal.reboot", conf.Signal.Reboot, &made.Reboot},
		{"lxc.signal.stop", conf.Signal.Stop, &made.Stop},
	} {
		const last = 64 // SIGRTMAX
		if s.number < 0 || s.number > last {
			return refuse(s.key, strconv.Itoa(s.number), "want a signal from 1 to %d", last)
		}
		if s.number != 0 {
			*s.to = syscall.Signal(s.number)
		}
	}
	return nil
}

// rootOptions splits lxc.rootfs.options into what OCI has words for and what the caller mounts the
// root with.
func (m *maker) rootOptions() error {
	options := m.in.Config.Rootfs.Options
	for opt := range strings.SplitSeq(options, ",") {
		switch opt {
		case "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable",
			"runbindable":
			m.spec.Linux.RootfsPropagation = opt
		case "", "defaults", "rw":
		case "ro":
			m.spec.Root.Readonly = true
		default:
			if strings.HasPrefix(opt, "idmap=") {
				if _, user := m.namespace(specs.UserNamespace); !user {
					return refuse(
						"lxc.rootfs.options", options, "the container has no user namespace",
					)
				}
				if opt != "idmap=container" {
					return refuse(
						"lxc.rootfs.options", options, `option %q: want "idmap=container"`, opt,
					)
				}
			}
			m.made.RootOptions = append(m.made.RootOptions, opt)
		}
	}
	return nil
}

// extras are settings that OCI has no words for and the caller honours.
func extras(conf *config.Config, made *Made) {
	made.NoNewKeyring = conf.KeyringSession != nil && !*conf.KeyringSession
	made.SchedCore = conf.SchedCore
}

// warn keeps a sentence about a setting that LXC goes on without.
func (m *maker) warn(key, value, why string) {
	m.made.Warnings = append(m.made.Warnings, setting(key, value)+": "+why)
}

// refuse is an error about a setting that names the setting.
func refuse(key, value, format string, args ...any) error {
	return fmt.Errorf(
		"%s: %w: %w", setting(key, value), fmt.Errorf(format, args...), errdefs.ErrInvalidArgument,
	)
}

func setting(key, value string) string {
	if value == "" {
		return key
	}
	return key + " = " + value
}
