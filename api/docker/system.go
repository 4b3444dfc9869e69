package docker

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"runtime"
	"slices"
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
		Platform: system.PlatformInfo{Name: "strake"}, Version: s.Version, APIVersion: MaxVersion, MinAPIVersion: MinVersion,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GitCommit: s.GitCommit, GoVersion: runtime.Version(), KernelVersion: kernel(),
	}
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: s.Version, Details: map[string]string{
			"ApiVersion": MaxVersion, "MinAPIVersion": MinVersion, "Arch": runtime.GOARCH, "Os": runtime.GOOS, "GoVersion": runtime.Version(),
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
		MemoryLimit:  true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true, OomKillDisable: cgroupVersion() == "1",
		IPv4Forwarding: true, NGoroutines: runtime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: s.LogDriver,
		CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(), KernelVersion: kernel(), OperatingSystem: osName(), OSType: runtime.GOOS,
		Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memTotal(), DockerRootDir: s.Root, ServerVersion: s.Version,
		Runtimes:           map[string]system.RuntimeWithStatus{"strake": {Runtime: system.Runtime{Path: "strake-runtime"}}},
		DefaultRuntime:     "strake",
		LiveRestoreEnabled: true, InitBinary: "strake (built in)", SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		Warnings:        []string{}, Labels: []string{}, IndexServerAddress: "https://index." + image.DefaultRegistry + "/v1/",
		Plugins: system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{"json-file", "local", "none"}},
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
	return writeJSON(w, http.StatusOK, i)
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
		Username: req.Username, Password: req.Password, IdentityToken: req.IdentityToken, RegistryToken: req.RegistryToken,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"Status": "Login Succeeded", "IdentityToken": ""})
}

// usage is what one kind of object takes on disk (moby/moby/api, types/*/disk_usage.go), in bytes.
type usage struct {
	ActiveCount int   `json:",omitempty"`
	Items       []any `json:",omitempty"`
	Reclaimable int64 `json:",omitempty"`
	TotalCount  int   `json:",omitempty"`
	TotalSize   int64 `json:",omitempty"`
}

// diskUsage adds up what the engine keeps on disk.
func (s *server) diskUsage(w http.ResponseWriter, r *request) error {
	du, err := s.Images.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	list, err := s.Engine.List(r.Context())
	if err != nil {
		return err
	}
	images, err := s.Images.List(r.Context(), image.Filter{SharedSize: true})
	if err != nil {
		return err
	}
	uses := map[string]int{}
	containers := make([]any, 0, len(list))
	inContainers := usage{TotalCount: len(list)}
	for i := range list {
		uses[list[i].ImageID]++
		sum := s.summary(&list[i])
		if rw, root, err := s.Engine.Usage(r.Context(), list[i].ID); err == nil {
			sum.SizeRw, sum.SizeRootFs = rw, root
		}
		inContainers.TotalSize += sum.SizeRw
		switch list[i].State.Status {
		case engine.Running, engine.Paused, engine.Restarting:
			inContainers.ActiveCount++
		default:
			inContainers.Reclaimable += sum.SizeRw
		}
		containers = append(containers, sum)
	}
	imgs := make([]any, 0, len(images))
	inImages := usage{TotalCount: len(images), TotalSize: du.LayerBytes + du.BlobBytes + du.PartialBytes}
	for i := range images {
		m := &images[i]
		if uses[m.ID.String()] > 0 {
			inImages.ActiveCount++
		} else {
			inImages.Reclaimable += m.Size - max(m.SharedSize, 0)
		}
		imgs = append(imgs, map[string]any{
			"Id": m.ID.String(), "ParentId": m.Parent.String(), "RepoTags": orEmpty(m.RepoTags), "RepoDigests": orEmpty(m.RepoDigests),
			"Created": m.Created.Unix(), "Size": m.Size, "SharedSize": m.SharedSize, "Labels": m.Labels, "Containers": uses[m.ID.String()],
		})
	}
	vols := []any{}
	inVolumes := usage{}
	for _, v := range s.Volumes.List() {
		inVolumes.TotalCount++
		if len(v.Users) > 0 {
			inVolumes.ActiveCount++
		}
		one := volumeOf(&v)
		raw, err := json.Marshal(one)
		if err != nil {
			return err
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		m["UsageData"] = map[string]int{"RefCount": len(v.Users), "Size": -1}
		vols = append(vols, m)
	}
	out := map[string]any{}
	verbose := r.version >= 52 && r.flag("verbose")
	if r.version < 53 && !verbose {
		out["LayersSize"], out["Images"], out["Containers"], out["Volumes"], out["BuildCache"] = inImages.TotalSize, imgs, containers, vols, []any{}
	}
	if r.version >= 52 {
		if verbose {
			inImages.Items, inContainers.Items, inVolumes.Items = imgs, containers, vols
		}
		out["ImageUsage"], out["ContainerUsage"], out["VolumeUsage"], out["BuildCacheUsage"] = inImages, inContainers, inVolumes, usage{}
	}
	return writeJSON(w, http.StatusOK, out)
}

// events streams what happens, beginning with what is remembered since a time.
func (s *server) events(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume")
	if err != nil {
		return err
	}
	var q engine.EventQuery
	if q.Since, err = timestamp(r.form("since")); err != nil {
		return invalid("since: %v", err)
	}
	if q.Until, err = timestamp(r.form("until")); err != nil {
		return invalid("until: %v", err)
	}
	q.Match = func(e engine.Event) bool { return eventMatches(f, &e) }
	past, live, cancel := s.Engine.Events(q)
	defer cancel()
	kind := eventStream(r)
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	out := newFlusher(w)
	out.flush()
	send := func(e *engine.Event) error {
		raw, err := json.Marshal(messageOf(e, r.version))
		if err != nil {
			return err
		}
		if kind == jsonSequence {
			raw = append([]byte{0x1e}, raw...)
		}
		_, err = out.Write(append(raw, '\n'))
		return err
	}
	for i := range past {
		if send(&past[i]) != nil {
			return nil
		}
	}
	var end <-chan time.Time
	if !q.Until.IsZero() {
		t := time.NewTimer(time.Until(q.Until))
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-end:
			return nil
		case e, ok := <-live:
			if !ok || send(&e) != nil {
				return nil
			}
		}
	}
}

func eventMatches(f filters, e *engine.Event) bool {
	action, _, _ := strings.Cut(e.Action, ":")
	object := func(key string) bool {
		return !f.has(key) || e.Type == key && (f.exact(key, e.ID, e.Attributes["name"]) || prefixed(f[key], e.ID))
	}
	return f.exact("type", e.Type) && f.exact("event", e.Action, action) && f.labels(e.Attributes) && f.exact("scope", "local") &&
		(object("container") || e.Type != "container" && f.exact("container", e.Attributes["container"])) &&
		(!f.has("image") || f.exact("image", e.Attributes["image"], e.ID, e.Attributes["name"])) && object("volume") && object("network") && object("daemon") &&
		!f.has("plugin") && !f.has("service") && !f.has("node") && !f.has("secret") && !f.has("config")
}

// jsonSequence has a record separator in front of each object (RFC 7464); in the other forms of a stream of events each object is a line.
const jsonSequence = "application/json-seq"

// eventStream is the first form that the client accepts, of those that its version has.
func eventStream(r *request) string {
	offers := []string{"application/json"}
	if r.version >= 52 {
		offers = append(offers, "application/x-ndjson", jsonSequence)
	}
	if r.version >= 53 {
		offers = append(offers, "application/jsonl")
	}
	for _, accepted := range strings.Split(r.Header.Get("Accept"), ",") {
		name, _, _ := strings.Cut(accepted, ";")
		if name = strings.ToLower(strings.TrimSpace(name)); slices.Contains(offers, name) {
			return name
		}
	}
	return offers[0]
}

// messageOf is an event: new clients read Type, Action and Actor; status, id and from are for those before 1.52.
func messageOf(e *engine.Event, v version) map[string]any {
	attributes := e.Attributes
	if attributes == nil {
		attributes = map[string]string{}
	}
	m := map[string]any{
		"Type": e.Type, "Action": e.Action, "Actor": map[string]any{"ID": e.ID, "Attributes": attributes}, "scope": "local",
		"time": e.Time.Unix(), "timeNano": e.Time.UnixNano(),
	}
	if v < 52 && (e.Type == "container" || e.Type == "image") {
		m["status"], m["id"] = e.Action, e.ID
		if from := attributes["image"]; from != "" {
			m["from"] = from
		}
	}
	return m
}
