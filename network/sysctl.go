package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"strake/network/link"
)

// sysctlPath is the file of a sysctl. Names are written with dots, so interface names that contain
// one are written with a slash in its place, as sysctl(8) does.
func sysctlPath(name string) string {
	swap := strings.NewReplacer(".", "/", "/", ".")
	return filepath.Join("/proc/sys", swap.Replace(name))
}

// confName is a per-interface sysctl.
func confName(family, device, key string) string {
	return "net." + family + ".conf." + strings.ReplaceAll(device, ".", "/") + "." + key
}

// interfaceSysctl takes "net.ipv4.conf.IFNAME.log_martians=1" apart, a setting of an interface in
// the form of dockerd's option com.docker.network.endpoint.sysctls, for a device.
func interfaceSysctl(text, device string) (name, value string, err error) {
	name, value, ok := strings.Cut(text, "=")
	part := strings.SplitN(name, ".", 5)
	// docker's command line makes lower case of IFNAME.
	if !ok || len(part) != 5 || part[0] != "net" || !strings.EqualFold(part[3], "IFNAME") ||
		part[1] != "ipv4" && part[1] != "ipv6" && part[1] != "mpls" ||
		strings.ContainsAny(name, "/") || part[2] == "" || part[4] == "" {
		return "", "", fmt.Errorf(
			"unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as "+
				"'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", text,
		)
	}
	part[3] = strings.ReplaceAll(device, ".", "/")
	return strings.Join(part, "."), value, nil
}

// writeSysctl sets a sysctl in the network namespace of the calling thread.
func writeSysctl(name, value string) error {
	f, err := os.OpenFile(sysctlPath(name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

// readSysctl reads a sysctl in the network namespace of the calling thread.
func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return "", fmt.Errorf("sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// hasIPv6 says whether the kernel of a network namespace has IPv6 and it is not switched off as a
// whole (ip-sysctl.rst, disable_ipv6).
func hasIPv6(ns *os.File) (has bool, err error) {
	err = link.Enter(ns, func() error {
		v, err := readSysctl("net.ipv6.conf.all.disable_ipv6")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		has = v == "0"
		return err
	})
	return has, err
}

// changeSysctl sets a sysctl of the host and records its former value before it does.
func (h *host) changeSysctl(name, value string) error {
	return h.enter(func() error {
		old, err := readSysctl(name)
		if err != nil || old == value {
			return err
		}
		if err := h.rememberSysctl(name, old); err != nil {
			return err
		}
		h.cfg.Fault("sysctl " + name)
		return writeSysctl(name, value)
	})
}

// rememberSysctl records the value that a sysctl had before its first change.
func (h *host) rememberSysctl(name, value string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.rec.Sysctls {
		if s.Name == name {
			return nil
		}
	}
	h.rec.Sysctls = append(h.rec.Sysctls, sysctlValue{name, value})
	return h.store.durable("host.json", h.rec)
}

// forward makes the host forward packets.
func (h *host) forward(v6 bool) error {
	if err := h.changeSysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	if !v6 {
		return nil
	}
	if err := h.keepRouterAdvertisements(); err != nil {
		return err
	}
	return h.changeSysctl("net.ipv6.conf.all.forwarding", "1")
}

// keepRouterAdvertisements prepares the host's interfaces for forwarding. A host that forwards
// ignores router advertisements where accept_ra is 1 (ip-sysctl.rst), and with them its own default
// route.
func (h *host) keepRouterAdvertisements() error {
	var devices []os.DirEntry
	err := h.enter(func() (err error) {
		devices, err = os.ReadDir("/proc/sys/net/ipv6/conf")
		return err
	})
	if err != nil {
		return fmt.Errorf("IPv6 is not available on this host: %w", err)
	}
	for _, d := range devices {
		if d.Name() == "all" || h.own.MatchString(d.Name()) {
			continue
		}
		name := confName("ipv6", d.Name(), "accept_ra")
		var ra, forwarding string
		err := h.enter(func() (err error) {
			if ra, err = readSysctl(name); err == nil {
				forwarding, err = readSysctl(confName("ipv6", d.Name(), "forwarding"))
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface went away
		}
		if err == nil && ra == "1" && forwarding == "0" {
			err = h.changeSysctl(name, "2")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restoreSysctls puts back what changeSysctl changed, the last change first.
func (h *host) restoreSysctls() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for i := len(h.rec.Sysctls) - 1; i >= 0; i-- {
		s := h.rec.Sysctls[i]
		err := h.enter(func() error { return writeSysctl(s.Name, s.Value) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
