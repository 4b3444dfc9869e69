package docker

import (
	"bufio"
	"context"
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

// systemAPI serves the endpoints about the engine and the host.
type systemAPI struct {
	engine lister
	images interface {
		imageLister
		Login(ctx context.Context, server string, auth image.Auth) error
	}
	// version is the product's, name the host's, root the data root.
	version, gitCommit, name, root, logDriver string
	insecure                                  []string
	host                                      host
}

func (a *systemAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /_ping":   a.ping,
		"HEAD /_ping":  a.ping,
		"GET /version": a.getVersion,
		"GET /info":    a.info,
		"POST /auth":   a.auth,
	}
}

// ping answers with the headers from which clients negotiate the version.
func (a *systemAPI) ping(w http.ResponseWriter, r *request) error {
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

func (a *systemAPI) getVersion(w http.ResponseWriter, r *request) error {
	v := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "strake"}, Version: a.version, APIVersion: MaxVersion,
		MinAPIVersion: MinVersion,
		Os:            runtime.GOOS, Arch: runtime.GOARCH, GitCommit: a.gitCommit,
		GoVersion: runtime.Version(), KernelVersion: kernel(),
	}
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: a.version, Details: map[string]string{
			"ApiVersion": MaxVersion, "MinAPIVersion": MinVersion, "Arch": runtime.GOARCH,
			"Os": runtime.GOOS, "GoVersion": runtime.Version(),
			"KernelVersion": kernel(), "GitCommit": a.gitCommit, "Experimental": "false",
		}},
	}
	return writeJSON(w, http.StatusOK, v)
}

func (a *systemAPI) info(w http.ResponseWriter, r *request) error {
	list, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	images, err := a.images.List(r.Context(), image.Filter{All: true})
	if err != nil {
		return err
	}
	i := system.Info{
		ID: a.name, Name: a.name, Containers: len(list), Images: len(images), Driver: "overlayfs",
		DriverStatus: [][2]string{{"driver-type", "strake"}},
		MemoryLimit:  true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true,
		CPUSet: true, PidsLimit: true, OomKillDisable: a.host.cgroups == "1",
		IPv4Forwarding: true, NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: a.logDriver,
		CgroupDriver: "cgroupfs", CgroupVersion: a.host.cgroups, KernelVersion: kernel(),
		OperatingSystem: osName(), OSType: runtime.GOOS,
		Architecture: machine(), NCPU: a.host.cpus, MemTotal: memTotal(),
		DockerRootDir: a.root, ServerVersion: a.version,
		Runtimes: map[string]system.RuntimeWithStatus{
			runtimes[0]: {Runtime: system.Runtime{Path: "strake-runtime"}},
		},
		DefaultRuntime:     runtimes[0],
		LiveRestoreEnabled: true, InitBinary: "strake (built in)",
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		RegistryConfig:  registriesOf(a.insecure), CDISpecDirs: []string{},
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

// auth answers a login: the image store presents the credentials to the registry.
func (a *systemAPI) auth(w http.ResponseWriter, r *request) error {
	var req struct{ Username, Password, ServerAddress, IdentityToken, RegistryToken string }
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.ServerAddress == "" {
		return invalid("serveraddress is missing: the registry to log in to")
	}
	err := a.images.Login(r.Context(), req.ServerAddress, image.Auth{
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
