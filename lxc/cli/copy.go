package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"strake/lxc"
	"strake/lxc/config"
	"strake/task"
)

// copier is one run of lxc-copy.
type copier struct {
	*call
	o                    lxc.CopyOptions
	newName, newPath     string
	ephemeral, keepData  bool
	foreground           bool
	mounts               []string
	rename, noForeground bool
	size                 string
}

func copyContainer(f *pflag.FlagSet) action {
	k := &copier{}
	f.StringVarP(&k.newName, "newname", "N", "", "the copy's name")
	f.StringVarP(&k.newPath, "newpath", "p", "", "the copy's directory of containers")
	f.BoolVarP(&k.rename, "rename", "R", false, "rename the container")
	f.BoolVarP(&k.o.Snapshot, "snapshot", "s", false, "make an overlay over the original")
	f.BoolVarP(&k.o.AllowRunning, "allowrunning", "a", false, "copy a container that runs")
	f.BoolVarP(&k.foreground, "foreground", "F", false, "with -e: stay attached to the console")
	f.BoolVarP(&k.noForeground, "daemon", "d", false, "with -e: start in the background (default)")
	f.BoolVarP(&k.ephemeral, "ephemeral", "e", false, "start a copy that its end destroys")
	f.StringArrayVarP(
		&k.mounts, "mount", "m", nil, "with -e: {bind,overlay}=SRC[:DST], bind=SRC[:DST][:ro|rw]",
	)
	f.StringVarP(&k.o.Backing, "backingstorage", "B", "", "dir, or with -s or -e overlay")
	f.BoolVarP(&k.o.Tmpfs, "tmpfs", "t", false, "with -e: keep the changes in memory")
	f.StringVarP(&k.size, "fssize", "L", "", "the size of a block device (there is none)")
	f.BoolVarP(&k.keepData, "keepdata", "D", false, "with -e: keep the copy")
	f.BoolVarP(&k.o.KeepName, "keepname", "K", false, "keep the host name")
	f.BoolVarP(&k.o.KeepMAC, "keepmac", "M", false, "keep the hardware addresses")
	return func(ctx context.Context, c *call) (code int, err error) {
		k.call = c
		switch {
		case k.newName == "" && !k.ephemeral:
			return 1, errors.New("the copy needs a name: -N NEWNAME")
		case k.size != "":
			return 1, errors.New("fssize: a directory has no size of its own")
		case !k.ephemeral && (len(k.mounts) > 0 || k.keepData || k.o.Tmpfs || k.foreground):
			return 1, errors.New("-m, -t, -D and -F are for ephemeral copies: want -e")
		case k.keepData && k.o.Tmpfs:
			return 1, errors.New("what is on a tmpfs cannot be kept: want -D or -t")
		}
		from, err := c.path.Container(c.name)
		if err != nil {
			return 1, err
		}
		if k.rename {
			to, err := c.path.Container(k.newName)
			if err != nil {
				return 1, err
			}
			return 0, from.Rename(ctx, to)
		}
		if err := from.Exists(ctx); err != nil {
			return 1, err
		}
		place := c.path
		if k.newPath != "" {
			place, err = lxc.Open(k.newPath, lxc.Options{Run: c.run, End: c.endCommand})
			if err != nil {
				return 1, err
			}
			defer func() { err = errors.Join(err, place.Close()) }()
		}
		if k.ephemeral {
			return k.start(ctx, from, place)
		}
		k.o.HookArgs = c.args
		to, err := place.Container(k.newName)
		if err != nil {
			return 1, err
		}
		return 0, from.Copy(ctx, to, &k.o)
	}
}

// start makes an ephemeral copy and starts it, with a command if there is one.
func (k *copier) start(ctx context.Context, from *lxc.Container, place *lxc.Path) (int, error) {
	name := k.newName
	if name == "" {
		name = from.Name() + "_" + rand.Text()[:6]
	}
	to, err := place.Container(name)
	if err != nil {
		return 1, err
	}
	k.o.Snapshot = true
	k.o.Edit = func(cfg *config.Config) error {
		if !k.keepData {
			if err := cfg.Set("lxc.ephemeral", "1"); err != nil {
				return err
			}
		}
		for _, list := range k.mounts {
			for spec := range strings.SplitSeq(list, ",") {
				entry, err := mountEntry(to.Dir(), spec)
				if err != nil {
					return err
				}
				if err := cfg.Set("lxc.mount.entry", entry); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := from.Copy(ctx, to, &k.o); err != nil {
		return 1, err
	}
	if !k.quiet {
		fmt.Fprintf(k.Out, "Created %s as clone of %s\n", name, from.Name())
		if k.o.Tmpfs {
			fmt.Fprint(
				k.Out, "Container is placed on tmpfs.\nRebooting will cause all changes made to it to "+
					"be lost!\n",
			)
		}
	}
	code, err := k.run(ctx, to)
	if err != nil && !k.keepData {
		err = errors.Join(
			err, to.Destroy(context.WithoutCancel(ctx), lxc.DestroyOptions{Force: true}),
		)
	}
	return code, err
}

// run starts the copy.
func (k *copier) run(ctx context.Context, to *lxc.Container) (int, error) {
	var o lxc.StartOptions
	if k.foreground && len(k.args) == 0 {
		return k.call.foreground(ctx, to, &o, "")
	}
	if _, err := to.Start(ctx, &o); err != nil || len(k.args) == 0 {
		return 0, err
	}
	_, err := k.converse(ctx, func(s *streams) (task.Process, error) {
		return to.Attach(ctx, &lxc.AttachOptions{
			Command: k.args, Env: environment(true, nil, nil), Terminal: s.terminal, Width: s.width,
			Height: s.height, Stdin: true, Stdout: s.out, Stderr: s.err,
		})
	})
	return 0, errors.Join(err, to.Stop(context.WithoutCancel(ctx), lxc.StopOptions{Kill: true}))
}

// mountEntry is a line of lxc.mount.entry for the word of a flag -m. An overlay gets directories in
// the copy's own.
func mountEntry(dir, spec string) (string, error) {
	kind, rest, _ := strings.Cut(spec, "=")
	f := strings.Split(rest, ":")
	src := path.Clean("/" + f[0])
	wrong := fmt.Errorf("mount %q: want bind=SRC[:DST][:ro|rw] or overlay=SRC[:DST]", spec)
	if rest == "" || len(f) > 3 || strings.ContainsAny(rest, " \t") {
		return "", wrong
	}
	dst, mode := src, "rw"
	if kind == "bind" && len(f) > 1 && (f[len(f)-1] == "ro" || f[len(f)-1] == "rw") {
		mode, f = f[len(f)-1], f[:len(f)-1]
	}
	if len(f) == 2 {
		dst = path.Clean("/" + f[1])
	} else if len(f) > 2 {
		return "", wrong
	}
	dst = strings.TrimPrefix(dst, "/")
	switch kind {
	case "bind":
		create := "create=file"
		if st, err := os.Stat(src); err == nil && st.IsDir() {
			create = "create=dir"
		}
		return fmt.Sprintf("%s %s none bind,optional,%s,%s 0 0", src, dst, mode, create), nil
	case "overlay":
		upper, err := os.MkdirTemp(dir, "delta#")
		if err != nil {
			return "", err
		}
		work, err := os.MkdirTemp(dir, "work#")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf(
			"%s %s overlay lowerdir=%s,upperdir=%s,workdir=%s,create=dir", src, dst, src,
			filepath.Clean(upper), filepath.Clean(work),
		), nil
	}
	return "", wrong
}
