package docker

import (
	"bufio"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/image"
)

// ping is what clients negotiate with.
func (s *server) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	h.Set("Content-Length", "2")
	w.Write([]byte("OK"))
	return nil
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (s *server) getVersion(w http.ResponseWriter, r *request) error {
	v := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "strake"}, Version: s.Version, APIVersion: MaxVersion,
		MinAPIVersion: MinVersion,
		Os:            runtime.GOOS, Arch: runtime.GOARCH, GitCommit: s.GitCommit,
		GoVersion: runtime.Version(), KernelVersion: kernel(),
	}
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: s.Version, Details: map[string]string{
			"ApiVersion": MaxVersion, "MinAPIVersion": MinVersion, "Arch": runtime.GOARCH,
			"Os": runtime.GOOS, "GoVersion": runtime.Version(),
			"KernelVersion": kernel(), "GitCommit": s.GitCommit, "Experimental": "false",
		}},
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *server) info(w http.ResponseWriter, r *request) error {
	list, err := s.Engine.List(r.Context())
	if err != nil {
		return err
	}
	images, err := s.Images.List(r.Context(), image.Filter{All: true})
	if err != nil {
		return err
	}
	i := system.Info{
		ID: s.Name, Name: s.Name, Containers: len(list), Images: len(images), Driver: "overlayfs",
		DriverStatus: [][2]string{{"driver-type", "strake"}},
		MemoryLimit:  true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true,
		CPUSet: true, PidsLimit: true, OomKillDisable: cgroupVersion() == "1",
		IPv4Forwarding: true, NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: s.LogDriver,
		CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(), KernelVersion: kernel(),
		OperatingSystem: osName(), OSType: runtime.GOOS,
		Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memTotal(),
		DockerRootDir: s.Root, ServerVersion: s.Version,
		Runtimes: map[string]system.RuntimeWithStatus{
			"strake": {Runtime: system.Runtime{Path: "strake-runtime"}},
		},
		DefaultRuntime:     "strake",
		LiveRestoreEnabled: true, InitBinary: "strake (built in)",
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		RegistryConfig:  registriesOf(s.Insecure), CDISpecDirs: []string{},
		Warnings: []string{}, Labels: []string{},
		IndexServerAddress: "https://index." + image.DefaultRegistry + "/v1/",
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null"},
			Log: []string{"json-file", "local", "none"},
		},
	}
	i.Swarm.LocalNodeState = "inactive"
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
		i.SecurityOptions = append([]string{"name=apparmor"}, i.SecurityOptions...)
	}
	for k := range list {
		switch list[k].State.Status {
		case engine.Running, engine.Restarting:
			i.ContainersRunning++
		case engine.Paused:
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
	if d, err := os.ReadDir("/proc/self/fd"); err == nil {
		i.NFd = len(d)
	}
	return writeJSON(w, http.StatusOK, infoOf(&i, r.version))
}

func cgroupVersion() string {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// machine is the processor's name as uname(1) has it.
func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func memTotal() int64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

// osName is PRETTY_NAME of os-release(5).
func osName() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
			if text, err := strconv.Unquote(v); err == nil {
				return text
			}
			return v
		}
	}
	return "Linux"
}

// auth answers a login. Credentials are checked by the registry when they are used.
func (s *server) auth(w http.ResponseWriter, r *request) error {
	var req struct{ Username, Password, ServerAddress, IdentityToken, RegistryToken string }
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.ServerAddress == "" {
		return invalid("serveraddress is missing: the registry to log in to")
	}
	err := s.Images.Login(r.Context(), req.ServerAddress, image.Auth{
		Username: req.Username, Password: req.Password, IdentityToken: req.IdentityToken,
		RegistryToken: req.RegistryToken,
	})
	if err != nil {
		return err
	}
	return writeJSON(
		w, http.StatusOK, map[string]string{"Status": "Login Succeeded", "IdentityToken": ""},
	)
}
