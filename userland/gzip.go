package userland

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// gzipApplet packs and unpacks (gzip(1): -c -d -f -k -t -v -n -1..-9; gunzip is -d, zcat is -dc).
func gzipApplet(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"cdfktnqv123456789",
		"stdout=c to-stdout=c decompress=d uncompress=d force=f keep=k test=t no-name=n quiet=q "+
			"verbose=v fast=1 best=9",
	)
	if !ok {
		return status
	}
	z := &gzipper{
		o: o, unpack: o.has('d') || c.Name == "gunzip" || c.Name == "zcat" || o.has('t'),
		toStdout: o.has('c') || c.Name == "zcat", level: gzip.DefaultCompression,
	}
	if l := o.last("123456789"); l != 0 {
		z.level = int(l - '0')
	}
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return exitFault
		}
		if s := z.file(ctx, c, n); s != exitOK {
			status = s
		}
	}
	return status
}

type gzipper struct {
	o                options
	unpack, toStdout bool
	level            int
}

func (z *gzipper) transform(w io.Writer, r io.Reader, name string, mod time.Time) error {
	if z.unpack {
		in, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return err
	}
	out, err := gzip.NewWriterLevel(w, z.level)
	if err != nil {
		return err
	}
	if !z.o.has('n') {
		out.Name, out.ModTime = name, mod
	}
	if _, err := io.Copy(out, r); err != nil {
		return err
	}
	return out.Close()
}

func (z *gzipper) file(ctx context.Context, c *Call, name string) (status int) {
	r, err := c.open(name)
	if err != nil {
		return c.fault(name, err)
	}
	defer r.Close()
	in := ctxReader{ctx, r}
	if name == "-" || z.toStdout || z.o.has('t') {
		w := io.Writer(c.Stdout)
		if z.o.has('t') {
			w = io.Discard
		}
		if err := z.transform(w, in, "", time.Time{}); err != nil {
			return c.fault(name, err)
		}
		return exitOK
	}
	to := name + ".gz"
	if z.unpack {
		switch {
		case strings.HasSuffix(name, ".gz"):
			to = strings.TrimSuffix(name, ".gz")
		case strings.HasSuffix(name, ".tgz"):
			to = strings.TrimSuffix(name, ".tgz") + ".tar"
		default:
			return c.errorf("%s: has neither the suffix .gz nor .tgz", name)
		}
	} else if strings.HasSuffix(name, ".gz") {
		return c.errorf("%s: has the suffix .gz already", name)
	}
	st, err := os.Stat(c.path(name))
	if err != nil {
		return c.fault(name, err)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if z.o.has('f') {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	out, err := os.OpenFile(c.path(to), flags, st.Mode().Perm())
	if err != nil {
		return c.fault(to, err)
	}
	err = z.transform(out, in, st.Name(), st.ModTime())
	if err = errors.Join(err, out.Close()); err != nil {
		os.Remove(c.path(to))
		return c.fault(name, err)
	}
	if err := os.Chtimes(c.path(to), st.ModTime(), st.ModTime()); err != nil {
		status = c.fault(to, err)
	}
	if z.o.has('v') {
		fmt.Fprintf(c.Stderr, "%s -> %s\n", name, to)
	}
	if !z.o.has('k') {
		if err := os.Remove(c.path(name)); err != nil {
			status = c.fault(name, err)
		}
	}
	return status
}
