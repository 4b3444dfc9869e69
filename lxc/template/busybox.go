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

	"strake/internal/early"
)

// busybox makes a system of the host's busybox alone, with init and a login on its terminals.
func busybox(ctx context.Context, t *Target) error {
	f := pflag.NewFlagSet("busybox", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	program := f.String("busybox-path", "", "")
	if err := f.Parse(t.Args); err != nil {
		return fmt.Errorf("template busybox: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if *program == "" {
		var err error
		if *program, err = exec.LookPath("busybox"); err != nil {
			return fmt.Errorf("template busybox: %w", err)
		}
	}
	for _, dir := range []string{
		"bin", "dev", "etc", "etc/init.d", "lib", "mnt", "proc", "root", "run", "sbin", "selinux",
		"sys", "usr/bin", "usr/sbin", "usr/lib", "var/log", "var/run", "home",
	} {
		if err := os.MkdirAll(filepath.Join(t.Root, dir), 0o755); err != nil {
			return err
		}
	}
	tmp := filepath.Join(t.Root, "tmp")
	if err := errors.Join(os.MkdirAll(tmp, 0o777), os.Chmod(tmp, 0o1777|os.ModeSticky)); err != nil {
		return err
	}
	own := filepath.Join(t.Root, "bin/busybox")
	if err := copyFile(*program, own); err != nil {
		return err
	}
	// For passwd, su and ping: busybox gives the privilege up for all else.
	if err := os.Chmod(own, 0o755|os.ModeSetuid); err != nil {
		return err
	}
	applets, err := appletsOf(ctx, *program)
	if err != nil {
		return err
	}
	for _, a := range applets {
		link := filepath.Join(t.Root, a)
		if err := os.Symlink("/bin/busybox", link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for name, text := range busyboxFiles {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := t.write(name, strings.ReplaceAll(text, "NAME", t.Name), mode); err != nil {
			return err
		}
	}
	return t.configure("lxc.signal.halt = SIGUSR1\nlxc.signal.reboot = SIGTERM\n" + `
lxc.tty.max = 1
lxc.pty.max = 1
lxc.cap.drop = sys_module mac_admin mac_override sys_time
lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed
lxc.mount.entry = shm dev/shm tmpfs defaults,create=dir 0 0
`)
}

// busyboxFiles are the files of the system; NAME stands for the container's.
var busyboxFiles = map[string]string{
	"etc/passwd":   "root:x:0:0:root:/root:/bin/sh\n",
	"etc/group":    "root:x:0:\n",
	"etc/shadow":   "root::0:0:99999:7:::\n",
	"etc/hostname": "NAME\n",
	"etc/hosts":    "127.0.0.1 localhost NAME\n",
	"etc/fstab":    "",
	"etc/inittab": "::sysinit:/etc/init.d/rcS\ntty1::respawn:/bin/busybox getty -L tty1 115200 vt100\n" +
		"console::askfirst:/bin/sh\n::ctrlaltdel:/sbin/reboot\n",
	"etc/init.d/rcS": "#!/bin/sh\n/bin/busybox syslogd\n/bin/busybox mount -a\n" +
		"/bin/busybox udhcpc -n -q -i eth0 >/dev/null 2>&1 &\n",
	"usr/share/udhcpc/default.script": `#!/bin/sh
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
renew | bound)
	ip addr add "$ip/${mask:-24}" dev "$interface"
	for r in $router; do ip route add default via "$r" dev "$interface" && break; done
	: >/etc/resolv.conf
	for d in $dns; do echo "nameserver $d" >>/etc/resolv.conf; done
	;;
esac
`,
}

// appletsOf lists the commands of a busybox with their directories.
func appletsOf(ctx context.Context, program string) ([]string, error) {
	defer early.Lock()()
	out, err := exec.CommandContext(ctx, program, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-full: %w", program, err)
	}
	return strings.Fields(string(out)), nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
