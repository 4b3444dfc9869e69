package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"strake/cli/api"
)

func (f *Flags) putSecurity(r *api.CreateRequest, src Source) error {
	h := &r.HostConfig
	h.CapAdd, h.CapDrop = capabilities(f.capAdd), capabilities(f.capDrop)
	h.Privileged, h.ReadonlyRootfs = f.privileged, f.readOnly
	for _, opt := range f.securityOpt {
		if opt == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = &[]string{}, &[]string{}
			continue
		}
		opt, err := securityOpt(opt, src)
		if err != nil {
			return err
		}
		h.SecurityOpt = append(h.SecurityOpt, opt)
	}
	for _, m := range []struct {
		flag, mode string
		to         *string
		allowed    []string
		container  bool
	}{
		{"pid", f.pid, &h.PidMode, []string{"", "host"}, true},
		{"ipc", f.ipc, &h.IpcMode, []string{"", "none", "private", "shareable", "host"}, true},
		{"uts", f.uts, &h.UTSMode, []string{"", "host"}, false},
		{"userns", f.userns, &h.UsernsMode, []string{"", "host"}, false},
		{"cgroupns", f.cgroupns, &h.CgroupnsMode, []string{"", "host", "private"}, false},
	} {
		if err := checkMode(m.flag, m.mode, m.allowed, m.container); err != nil {
			return err
		}
		*m.to = m.mode
	}
	var err error
	if h.Sysctls, err = Pairs("sysctl", f.sysctls); err != nil {
		return err
	}
	h.DeviceCgroupRules = f.deviceRules
	for _, d := range f.devices {
		if isCDI(d) {
			h.DeviceRequests = append(
				h.DeviceRequests, api.DeviceRequest{Driver: "cdi", DeviceIDs: []string{d}},
			)
			continue
		}
		dev, err := device(d)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, dev)
	}
	return nil
}

// capabilities writes names as capabilities(7) does.
func capabilities(names []string) []string {
	var out []string
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func checkMode(flag, mode string, allowed []string, container bool) error {
	if name, ok := strings.CutPrefix(mode, "container:"); ok && container && name != "" {
		return nil
	}
	for _, a := range allowed {
		if mode == a {
			return nil
		}
	}
	want := strings.Join(allowed[1:], ", ")
	if container {
		want += ", container:NAME"
	}
	return fmt.Errorf("--%s: invalid mode %q: want %s", flag, mode, want)
}

// securityOpt puts the text of a seccomp profile in the place of its file name: the engine may not
// see the file.
func securityOpt(opt string, src Source) (string, error) {
	key, v, ok := strings.Cut(opt, "=")
	if !ok && key != "no-new-privileges" && key != "writable-cgroups" {
		// The form with a colon is older than 1.12.
		if key, v, ok = strings.Cut(opt, ":"); !ok {
			return "", fmt.Errorf("--security-opt %q: want NAME=value", opt)
		}
		opt = key + "=" + v
	}
	if key != "seccomp" || v == "unconfined" || v == "builtin" {
		return opt, nil
	}
	raw, err := src.ReadFile(v)
	if err != nil {
		return "", fmt.Errorf("--security-opt seccomp: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", fmt.Errorf("--security-opt seccomp=%s: compact the profile: %w", v, err)
	}
	return "seccomp=" + b.String(), nil
}

// isCDI says whether a device is a qualified name of the Container Device Interface,
// vendor/class=name (cdi:SPEC.md).
func isCDI(d string) bool {
	kind, name, ok := strings.Cut(d, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && vendor != "" && class != "" && name != "" && !strings.Contains(class, "/")
}

// device reads HOST[:CONTAINER][:PERMISSIONS].
func device(d string) (api.Device, error) {
	parts := strings.Split(d, ":")
	dev := api.Device{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch {
	case len(parts) == 2 && isPermissions(parts[1]):
		dev.CgroupPermissions = parts[1]
	case len(parts) == 2:
		dev.PathInContainer = parts[1]
	case len(parts) == 3 && isPermissions(parts[2]):
		dev.PathInContainer, dev.CgroupPermissions = parts[1], parts[2]
		if dev.PathInContainer == "" {
			dev.PathInContainer = dev.PathOnHost
		}
	case len(parts) != 1:
		return dev, fmt.Errorf(
			"--device %q: want HOST[:CONTAINER][:PERMISSIONS] with permissions of r, w and m", d,
		)
	}
	if !strings.HasPrefix(dev.PathOnHost, "/") || !strings.HasPrefix(dev.PathInContainer, "/") {
		return dev, fmt.Errorf("--device %q: want absolute paths", d)
	}
	return dev, nil
}

func isPermissions(s string) bool {
	return s != "" && len(s) <= 3 && strings.Trim(s, "rwm") == ""
}

func (f *Flags) putResources(r *api.CreateRequest, _ Source) error {
	h := &r.HostConfig
	h.Resources = api.Resources{
		Memory: f.memory, MemoryReservation: f.memoryReservation, MemorySwap: f.memorySwap,
		NanoCPUs:  f.nanoCPUs,
		CPUShares: f.cpuShares, CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota,
		CpusetCpus: f.cpusetCPUs, CpusetMems: f.cpusetMems,
		BlkioWeight: f.blkioWeight, CgroupParent: f.cgroupParent,
		Devices: h.Devices, DeviceRequests: h.DeviceRequests,
		DeviceCgroupRules: h.DeviceCgroupRules,
	}
	if f.fs.Changed("memory-swappiness") && f.memorySwappiness != -1 {
		if f.memorySwappiness < 0 || f.memorySwappiness > 100 {
			return fmt.Errorf(
				"--memory-swappiness %d: want 0 to 100, or -1 for the kernel's default",
				f.memorySwappiness,
			)
		}
		h.MemorySwappiness = &f.memorySwappiness
	}
	if f.oomKillDisable {
		h.OomKillDisable = &f.oomKillDisable
	}
	if f.fs.Changed("pids-limit") {
		h.PidsLimit = &f.pidsLimit
	}
	h.OomScoreAdj, h.ShmSize = f.oomScoreAdj, f.shmSize
	for _, s := range f.ulimits {
		u, err := ulimit(s)
		if err != nil {
			return err
		}
		// The last one of a name counts.
		h.Ulimits = slices.DeleteFunc(h.Ulimits, func(old api.Ulimit) bool {
			return old.Name == u.Name
		})
		h.Ulimits = append(h.Ulimits, u)
	}
	slices.SortFunc(h.Ulimits, func(a, b api.Ulimit) int { return strings.Compare(a.Name, b.Name) })
	var err error
	h.StorageOpt, err = Pairs("storage-opt", f.storageOpt)
	return err
}

func checkUlimit(s string) error { _, err := ulimit(s); return err }

// ulimits are the names of getrlimit(2) in small letters.
const ulimits = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime " +
	"sigpending stack"

// ulimit reads NAME=SOFT[:HARD].
func ulimit(s string) (api.Ulimit, error) {
	name, limits, ok := strings.Cut(s, "=")
	u := api.Ulimit{Name: name}
	if !ok {
		return u, fmt.Errorf("%q: want NAME=SOFT[:HARD]", s)
	}
	known := false
	for n := range strings.FieldsSeq(ulimits) {
		known = known || n == name
	}
	if !known {
		return u, fmt.Errorf("%q: no ulimit of this name: want one of %s", name, ulimits)
	}
	soft, hard, two := strings.Cut(limits, ":")
	if !two {
		hard = soft
	}
	var err, err2 error
	u.Soft, err = strconv.ParseInt(soft, 10, 64)
	u.Hard, err2 = strconv.ParseInt(hard, 10, 64)
	switch {
	case err != nil || err2 != nil || u.Soft < -1 || u.Hard < -1:
		return u, fmt.Errorf("%q: want numbers, or -1 for no limit", s)
	case u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1):
		return u, fmt.Errorf("%q: the soft limit is above the hard one", s)
	}
	return u, nil
}
