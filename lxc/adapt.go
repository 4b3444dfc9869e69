package lxc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"strake/lxc/config"
	"strake/lxc/ocispec"
)

// lxcHWAddr is what the hardware addresses of containers are made of.
const lxcHWAddr = "00:16:3e:xx:xx:xx"

// rewriteFor makes the configuration of one container that of its copy with another root file
// system. Hooks and the fstab in the container's directory are copied.
func rewriteFor(cfg *config.Config, from, to *Container, root string, o *CopyOptions) error {
	var failed error
	err := cfg.Rewrite(func(key, value string) string {
		next, err := adaptValue(from, to, o, key, value)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", key, err))
			return value
		case key == "lxc.rootfs.path":
			return root
		}
		return next
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	if cfg.Rootfs.Path != root {
		if err := cfg.Set("lxc.rootfs.path", root); err != nil {
			return err
		}
	}
	if !o.KeepName && cfg.Uts.Name != to.name {
		return cfg.Set("lxc.uts.name", to.name)
	}
	return nil
}

// adaptValue is what a setting of the original is in the copy.
func adaptValue(from, to *Container, o *CopyOptions, key, value string) (string, error) {
	own := from.dir + "/"
	switch {
	case value == "":
	case key == "lxc.uts.name" && !o.KeepName:
		return to.name, nil
	case strings.HasPrefix(key, "lxc.net.") && strings.HasSuffix(key, ".hwaddr") && !o.KeepMAC:
		// One with an x is another at each start.
		if !strings.ContainsAny(value, "xX") {
			return config.CompleteHWAddr(lxcHWAddr, rand.Reader)
		}
	case strings.HasPrefix(key, "lxc.hook.") && key != "lxc.hook.version",
		key == "lxc.mount.fstab":
		if !strings.HasPrefix(value, own) {
			return value, nil
		}
		program, args, _ := strings.Cut(value, " ")
		next := filepath.Join(to.dir, filepath.Base(program))
		if err := copyFile(program, next); err != nil {
			return "", err
		}
		return strings.TrimRight(next+" "+args, " "), nil
	case key == "lxc.mount.entry":
		return adaptEntry(from, to, value)
	}
	return value, nil
}

// adaptEntry gives an overlay that is mounted in the container directories of the copy's own.
func adaptEntry(from, to *Container, entry string) (string, error) {
	f := strings.Fields(entry)
	if len(f) < 4 || f[2] != "overlay" && f[2] != "overlayfs" {
		return entry, nil
	}
	for _, option := range strings.Split(f[3], ",") {
		key, dir, _ := strings.Cut(option, "=")
		inside, ok := strings.CutPrefix(dir, from.dir+"/")
		if key != "upperdir" && key != "workdir" || !ok {
			continue
		}
		next := filepath.Join(to.dir, inside)
		if err := os.MkdirAll(next, 0o755); err != nil {
			return "", err
		}
		entry = strings.Replace(entry, option, key+"="+next, 1)
	}
	return entry, nil
}

// copyFile copies a small file with its mode.
func copyFile(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, raw, 0o600), os.Chmod(to, st.Mode().Perm()))
}

// adapt runs the hooks of the kind clone, and gives the copy its host name.
func (k *copying) adapt(ctx context.Context) error {
	hooks := k.cfg.Hooks["clone"]
	if k.root == "" || len(hooks) == 0 && k.o.KeepName {
		return nil
	}
	root := k.target
	if k.kind == "overlay" {
		o, err := overlay(k.cfg, "")
		if err != nil {
			return err
		}
		tree, err := mountOverlay(o)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		root = proc(tree)
		if len(hooks) > 0 {
			// Hooks are other processes, which need a place in the file system.
			root = filepath.Join(k.to.dir, "rootfs")
			if err := unix.MoveMount(
				tree, "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH,
			); err != nil {
				return fmt.Errorf("move_mount to %q: %w", root, err)
			}
			defer unmountBelow(k.to.dir)
		}
	}
	in := &ocispec.Input{
		Name: k.to.name, Config: k.cfg, ConfigFile: filepath.Join(k.to.dir, "config"),
		LXCPath: k.to.path.dir, Environ: os.Environ(), Root: root,
	}
	for _, script := range hooks {
		args, env := ocispec.HookCall(in, "clone", script, ocispec.Moment{
			SrcName: k.from.name, Args: append([]string{k.kind}, k.o.HookArgs...),
		})
		if out, err := runHook(ctx, args, env); err != nil {
			return fmt.Errorf("lxc.hook.clone %q: %w: %s", script, err, out)
		}
	}
	if k.o.KeepName {
		return nil
	}
	return setHostname(root, k.to.name)
}

// setHostname replaces what the file /etc/hostname below a root directory says, if there is one.
// Links in the tree, which is not trusted, lead nowhere else.
func setHostname(root, name string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", root, err)
	}
	defer unix.Close(dir)
	// A handle first: to open a device or a FIFO would have effects.
	f, err := unix.Openat2(dir, "etc/hostname", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	return os.WriteFile(proc(f), []byte(name+"\n"), 0o644)
}
