package template

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/lxc/config"
)

// debian makes a Debian by debootstrap, from the mirror that the host itself uses.
func debian(ctx context.Context, t *Target) error {
	f := pflag.NewFlagSet("debian", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	release := f.StringP("release", "r", "bookworm", "")
	mirror := f.String("mirror", "", "")
	arch := f.StringP("arch", "a", "", "")
	packages := f.String("packages", "", "")
	if err := f.Parse(t.Args); err != nil {
		return fmt.Errorf("template debian: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	debootstrap, err := exec.LookPath("debootstrap")
	if err != nil {
		return fmt.Errorf("template debian: %w (Debian has it in package debootstrap)", err)
	}
	if *mirror == "" {
		if *mirror = hostMirror("/etc/apt"); *mirror == "" {
			return fmt.Errorf(
				"template debian: this host's apt has no Debian mirror: want --mirror: %w",
				errdefs.ErrFailedPrecondition,
			)
		}
	}
	include := "systemd-sysv,dbus,ifupdown,iproute2,isc-dhcp-client,procps,login,passwd"
	if *packages != "" {
		include += "," + *packages
	}
	args := []string{"--variant=minbase", "--include=" + include}
	if *arch != "" {
		args = append(args, "--arch="+*arch)
	}
	if err := t.run(ctx, debootstrap, append(args, *release, t.Root, *mirror)...); err != nil {
		return err
	}
	interfaces, err := t.interfaces()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/hostname":           t.Name + "\n",
		"etc/hosts":              "127.0.0.1 localhost\n127.0.1.1 " + t.Name + "\n::1 localhost ip6-localhost\n",
		"etc/fstab":              "# Mounts are in the container's configuration.\n",
		"etc/network/interfaces": interfaces,
		// There is no /dev/tty0, which stands for the terminal that a screen shows.
		"etc/systemd/system/getty@.service.d/container.conf": "[Unit]\nConditionPathExists=\n",
		// As on first boot: the machine gets an identity of its own.
		"etc/machine-id": "",
	} {
		if err := t.write(name, text, 0o644); err != nil {
			return err
		}
	}
	wants := filepath.Join(t.Root, "etc/systemd/system/getty.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for _, tty := range []string{"tty1", "tty2", "tty3", "tty4"} {
		link := filepath.Join(wants, "getty@"+tty+".service")
		err := os.Symlink("/lib/systemd/system/getty@.service", link)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return t.configure(system)
}

// interfaces is /etc/network/interfaces: those of the container's configuration that it does not
// give an address itself ask for one.
func (t *Target) interfaces() (string, error) {
	cfg, err := config.Load(filepath.Join(t.Dir, "config"))
	if err != nil {
		return "", err
	}
	text := "auto lo\niface lo inet loopback\n"
	for _, n := range cfg.Nets {
		name := n.Name
		if name == "" {
			name = fmt.Sprintf("eth%d", n.Index)
		}
		if n.Type != "empty" && n.Type != "none" && len(n.IPv4) == 0 {
			text += "\nauto " + name + "\niface " + name + " inet dhcp\n"
		}
	}
	return text, nil
}

// hostMirror is the first mirror of Debian itself in the configuration of apt (sources.list(5)).
func hostMirror(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	for _, file := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			for _, word := range f {
				if len(f) > 1 && (f[0] == "deb" || f[0] == "URIs:") &&
					strings.HasPrefix(word, "http") &&
					strings.HasSuffix(strings.TrimSuffix(word, "/"), "/debian") {
					return word
				}
			}
		}
	}
	return ""
}
