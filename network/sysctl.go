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

// changeSysctl sets a sysctl of the host and remembers its former value before it does.
func (m *Manager) changeSysctl(name, value string) error {
	return link.Enter(m.cfg.NetNS, func() error {
		old, err := readSysctl(name)
		if err != nil || old == value {
			return err
		}
		m.mu.Lock()
		known := false
		for _, s := range m.host.Sysctls {
			known = known || s.Name == name
		}
		if !known {
			m.host.Sysctls = append(m.host.Sysctls, sysctlValue{name, old})
			err = m.store.durable("host.json", m.host)
		}
		m.mu.Unlock()
		if err != nil {
			return err
		}
		m.cfg.Fault("sysctl " + name)
		return writeSysctl(name, value)
	})
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

// forward makes the host forward packets.
func (m *Manager) forward(v6 bool) error {
	if err := m.changeSysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	if !v6 {
		return nil
	}
	// A host that forwards ignores router advertisements where accept_ra is 1 (ip-sysctl.rst), and
	// with them its own default route.
	devices, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if m.cfg.NetNS != nil {
		err = link.Enter(m.cfg.NetNS, func() (err error) {
			devices, err = os.ReadDir("/proc/sys/net/ipv6/conf")
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("IPv6 is not available on this host: %w", err)
	}
	for _, d := range devices {
		if d.Name() == "all" || m.own.MatchString(d.Name()) {
			continue
		}
		name := confName("ipv6", d.Name(), "accept_ra")
		var ra, forwarding string
		err := link.Enter(m.cfg.NetNS, func() (err error) {
			if ra, err = readSysctl(name); err == nil {
				forwarding, err = readSysctl(confName("ipv6", d.Name(), "forwarding"))
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue // the interface went away
		}
		if err == nil && ra == "1" && forwarding == "0" {
			err = m.changeSysctl(name, "2")
		}
		if err != nil {
			return err
		}
	}
	return m.changeSysctl("net.ipv6.conf.all.forwarding", "1")
}

// restoreSysctls puts back what changeSysctl changed, the last change first.
func (m *Manager) restoreSysctls() error {
	var errs []error
	for i := len(m.host.Sysctls) - 1; i >= 0; i-- {
		s := m.host.Sysctls[i]
		err := link.Enter(m.cfg.NetNS, func() error { return writeSysctl(s.Name, s.Value) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
