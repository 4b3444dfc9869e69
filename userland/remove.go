package userland

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// rm removes files (rm(1p); -v as GNU). It never asks; "/", "." and ".." are refused.
func rm(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("rRfvd", "recursive=r force=f verbose=v dir=d")
	if !ok {
		return status
	}
	if len(names) == 0 && !o.has('f') {
		return c.usagef("no file given")
	}
	r := &remover{c: c, o: o, recursive: o.has('r') || o.has('R')}
	for _, n := range names {
		base := filepath.Base(strings.TrimRight(n, "/"))
		if trimmed := strings.TrimRight(n, "/"); n != "" && trimmed == "" || base == "." &&
			n != "" || base == ".." {
			r.status = c.errorf("%s: refusing to remove it", n)
			continue
		}
		r.remove(ctx, n)
	}
	return r.status
}

type remover struct {
	c         *Call
	o         options
	recursive bool
	status    int
}

func (r *remover) remove(ctx context.Context, name string) {
	if ctx.Err() != nil {
		r.status = exitFault
		return
	}
	path := r.c.path(name)
	st, err := os.Lstat(path)
	if err != nil {
		if !(r.o.has('f') && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR))) ||
			name == "" && !r.o.has('f') {
			r.status = r.c.fault(name, err)
		}
		return
	}
	if st.IsDir() {
		if !r.recursive && !r.o.has('d') {
			r.status = r.c.errorf("%s: is a directory (-r removes directories)", name)
			return
		}
		if r.recursive {
			list, err := os.ReadDir(path)
			if err != nil {
				r.status = r.c.fault(name, err)
				return
			}
			for _, e := range list {
				r.remove(ctx, strings.TrimRight(name, "/")+"/"+e.Name())
			}
		}
	}
	if err := os.Remove(path); err != nil && !(r.o.has('f') && errors.Is(err, os.ErrNotExist)) {
		r.status = r.c.fault(name, err)
		return
	}
	if r.o.has('v') {
		fmt.Fprintf(r.c.Stdout, "removed %s\n", name)
	}
}

// mkdir makes directories (mkdir(1p); -v as GNU).
func mkdir(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("pm:v", "parents=p mode=m verbose=v")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no directory given")
	}
	var mode uint32
	if o.has('m') {
		change, err := parseMode(o.value('m', ""), currentUmask())
		if err != nil {
			return c.usagef("option -m: %v", err)
		}
		mode = change(0o777, false)
	}
	for _, n := range names {
		_, before := os.Lstat(c.path(n))
		var err error
		if o.has('p') {
			err = os.MkdirAll(c.path(n), 0o777)
		} else {
			err = os.Mkdir(c.path(n), 0o777)
		}
		if err == nil && o.has('m') && before != nil {
			err = syscall.Chmod(c.path(n), mode)
		}
		if err != nil {
			status = c.fault(n, err)
			continue
		}
		if o.has('v') && before != nil {
			fmt.Fprintf(c.Stdout, "created directory %s\n", n)
		}
	}
	return status
}

// rmdir removes empty directories (rmdir(1p)).
func rmdir(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("pv", "parents=p verbose=v")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no directory given")
	}
	for _, n := range names {
		for {
			if err := syscall.Rmdir(c.path(n)); err != nil {
				status = c.fault(n, err)
				break
			}
			if o.has('v') {
				fmt.Fprintf(c.Stdout, "removed directory %s\n", n)
			}
			up := filepath.Dir(strings.TrimRight(n, "/"))
			if !o.has('p') || up == "." || up == "/" {
				break
			}
			n = up
		}
	}
	return status
}

// ln makes links (ln(1p); -n, -v, -t, -T as GNU).
func ln(_ context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"sfnvt:T",
		"symbolic=s force=f no-dereference=n verbose=v target-directory=t no-target-directory=T",
	)
	if !ok {
		return status
	}
	if len(names) == 1 && !o.has('t') {
		names = append(names, ".")
	}
	noDir := o.has('T')
	if o.has('n') && len(names) == 2 {
		st, err := os.Lstat(c.path(names[1]))
		noDir = noDir || err == nil && st.Mode()&os.ModeSymlink != 0
	}
	pairs, err := c.targets(names, o.value('t', ""), o.has('t'), noDir)
	if err != nil {
		return c.usagef("%v", err)
	}
	for _, p := range pairs {
		from, at := p[0], c.path(p[1])
		link := os.Symlink
		if !o.has('s') {
			link, from = os.Link, c.path(from)
			a, errA := os.Lstat(from)
			b, errB := os.Lstat(at)
			if errA != nil {
				status = c.fault(p[0], errA)
				continue
			}
			if errB == nil && os.SameFile(a, b) && o.has('f') {
				continue
			}
		}
		err := link(from, at)
		if errors.Is(err, os.ErrExist) && o.has('f') {
			if err = os.Remove(at); err == nil {
				err = link(from, at)
			}
		}
		if err != nil {
			status = c.fault(p[1], err)
			continue
		}
		if o.has('v') {
			fmt.Fprintf(c.Stdout, "%s -> %s\n", p[1], p[0])
		}
	}
	return status
}

// mktemp makes a file or directory with a name that is not taken (mktemp(1) of GNU).
func mktemp(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("dqup:t", "directory=d quiet=q dry-run=u tmpdir=p")
	if !ok {
		return status
	}
	if len(names) > 1 {
		return c.usagef("extra operand %q", names[1])
	}
	tmp := c.env("TMPDIR")
	if tmp == "" {
		tmp = "/tmp"
	}
	template, inTmp := "tmp.XXXXXXXXXX", true
	if len(names) == 1 {
		template, inTmp = names[0], o.has('p') || o.has('t')
	}
	dir := ""
	if inTmp {
		dir = o.value('p', tmp)
		if strings.Contains(template, "/") && o.has('t') {
			return c.errorf("template %q has a slash, which -t does not allow", template)
		}
	}
	name := template
	if dir != "" {
		name = strings.TrimSuffix(dir, "/") + "/" + template
	}
	end := strings.LastIndexByte(name, 'X') + 1
	start := end
	for start > 0 && name[start-1] == 'X' {
		start--
	}
	if end-start < 3 {
		return c.errorf("template %q has fewer than three X", template)
	}
	for range 100 {
		made := name[:start] + randomLetters(end-start) + name[end:]
		var err error
		switch {
		case o.has('u'):
			_, err = os.Lstat(c.path(made))
			if err == nil {
				continue
			}
			err = nil
		case o.has('d'):
			err = os.Mkdir(c.path(made), 0o700)
		default:
			var f *os.File
			if f, err = os.OpenFile(
				c.path(made), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600,
			); err == nil {
				err = f.Close()
			}
		}
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			if o.has('q') {
				return exitFault
			}
			return c.fault(made, err)
		}
		fmt.Fprintln(c.Stdout, made)
		return exitOK
	}
	return c.errorf("template %q: a hundred names are taken", template)
}

// mkfifo makes named pipes (mkfifo(1p)).
func mkfifo(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("m:", "mode=m")
	if !ok {
		return status
	}
	if len(names) == 0 {
		return c.usagef("no name given")
	}
	mode := uint32(0o666)
	if o.has('m') {
		change, err := parseMode(o.value('m', ""), currentUmask())
		if err != nil {
			return c.usagef("option -m: %v", err)
		}
		mode = change(0o666, false)
	}
	for _, n := range names {
		err := syscall.Mkfifo(c.path(n), mode)
		if err == nil && o.has('m') {
			err = syscall.Chmod(c.path(n), mode)
		}
		if err != nil {
			status = c.fault(n, err)
		}
	}
	return status
}
