package userland

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tarApplet writes, lists and extracts archives (tar(1): c, t, x with f, z, v, C, p, O, k, h, T,
// --exclude, --strip-components, --numeric-owner). Extraction never leaves its directory: names
// that are absolute or lead out of it, and links that would, are refused, not rewritten.
func tarApplet(ctx context.Context, c *Call) int {
	// The oldest form has no dash: tar xzf FILE.
	if len(c.Args) > 0 && c.Args[0] != "" && c.Args[0][0] != '-' {
		c.Args = oldTarArgs(c.Args)
	}
	o, names, status, ok := c.options(
		"ctxf:zvC:pOkhT:\x01:\x02:\x03mo",
		"create=c list=t extract=x get=x file=f gzip=z verbose=v directory=C "+
			"preserve-permissions=p to-stdout=O keep-old-files=k dereference=h files-from=T "+
			"exclude=\x01 strip-components=\x02 numeric-owner=\x03 touch=m no-same-owner=o",
	)
	if !ok {
		return status
	}
	modes := o.count('c') + o.count('t') + o.count('x')
	if modes != 1 {
		return c.usagef("exactly one of -c, -t and -x is needed")
	}
	t := &tarCall{c: c, o: o, file: o.value('f', "-"), dir: c.Dir}
	for _, d := range o.values('C') {
		sub := Call{Dir: t.dir}
		t.dir = sub.path(d)
	}
	for _, x := range o.values('\x01') {
		re, err := globPattern(x, false)
		if err != nil {
			return c.usagef("option --exclude: %v", err)
		}
		t.exclude = append(t.exclude, re.MatchString)
	}
	if o.has('\x02') {
		n, err := parseCount(o.value('\x02', ""))
		if err != nil {
			return c.usagef("option --strip-components: %v", err)
		}
		t.strip = int(n)
	}
	if o.has('T') {
		r, err := c.open(o.value('T', ""))
		if err != nil {
			return c.fault(o.value('T', ""), err)
		}
		err = lines(r, func(l []byte, _ bool) error {
			names = append(names, string(l))
			return nil
		})
		r.Close()
		if err != nil {
			return c.fault(o.value('T', ""), err)
		}
	}
	var err error
	if o.has('c') {
		err = t.create(ctx, names)
	} else {
		err = t.read(ctx, names)
	}
	if err != nil {
		return c.fault(t.file, err)
	}
	return t.status
}

// oldTarArgs turns "xzf FILE" into "-x -z -f FILE": each letter that takes a value takes the next
// argument.
func oldTarArgs(args []string) []string {
	letters, rest := args[0], args[1:]
	var out []string
	for _, l := range letters {
		out = append(out, "-"+string(l))
		if strings.ContainsRune("fCT", l) && len(rest) > 0 {
			out, rest = append(out, rest[0]), rest[1:]
		}
	}
	return append(out, rest...)
}

type tarCall struct {
	c       *Call
	o       options
	file    string
	dir     string
	strip   int
	exclude []func(string) bool
	status  int
}

func (t *tarCall) excluded(name string) bool {
	for _, x := range t.exclude {
		if x(name) || x(path.Base(name)) {
			return true
		}
	}
	return false
}

func (t *tarCall) create(ctx context.Context, names []string) (err error) {
	if len(names) == 0 {
		return errors.New("refusing to make an empty archive")
	}
	var out io.Writer = t.c.Stdout
	var own os.FileInfo
	if t.file != "-" {
		f, err := os.Create(t.c.path(t.file))
		if err != nil {
			return err
		}
		own, _ = f.Stat()
		defer func() {
			if err = errors.Join(err, f.Close()); err != nil {
				os.Remove(f.Name())
			}
		}()
		out = f
	}
	buf := bufio.NewWriterSize(out, 64<<10)
	var w io.Writer = buf
	var zip *gzip.Writer
	if t.o.has('z') {
		zip = gzip.NewWriter(buf)
		w = zip
	}
	tw := tar.NewWriter(w)
	a := accounts{}
	if !t.o.has('\x03') {
		a = readAccounts()
	}
	links := map[[2]uint64]string{}
	for _, n := range names {
		full := (&Call{Dir: t.dir}).path(n)
		walked := filepath.WalkDir(full, func(p string, d fs.DirEntry, err error) error {
			name := n + strings.TrimPrefix(p, full)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				t.status = t.c.fault(name, err)
				return nil
			}
			if t.excluded(name) {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if own != nil {
				if st, err := os.Lstat(p); err == nil && os.SameFile(st, own) {
					return nil // the archive itself
				}
			}
			return t.add(ctx, tw, p, name, a, links)
		})
		if walked != nil {
			return walked
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if zip != nil {
		if err := zip.Close(); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// add writes one file. Only what breaks the archive is an error; what cannot be read is reported
// and left out.
func (t *tarCall) add(
	ctx context.Context, tw *tar.Writer, p, name string, a accounts, links map[[2]uint64]string,
) error {
	var st unix.Stat_t
	stat := unix.Lstat
	if t.o.has('h') {
		stat = unix.Stat
	}
	if err := stat(p, &st); err != nil {
		t.status = t.c.fault(name, err)
		return nil
	}
	stored := strings.TrimLeft(name, "/")
	if stored == "" {
		stored = "."
	}
	h := &tar.Header{
		Name: stored, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatUnknown,
		Uname: nameOrEmpty(a.userName(int(st.Uid))), Gname: nameOrEmpty(a.groupName(int(st.Gid))),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, _ = os.Readlink(p)
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(
			unix.Minor(uint64(st.Rdev)),
		)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		if key := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 {
			if first, ok := links[key]; ok {
				h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			}
			links[key] = h.Name
		}
	default:
		t.c.errorf("%s: is a socket, left out", name)
		return nil
	}
	var in *os.File
	if h.Typeflag == tar.TypeReg {
		f, err := os.Open(p)
		if err != nil {
			t.status = t.c.fault(name, err)
			return nil
		}
		defer f.Close()
		in = f
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if t.o.has('v') {
		fmt.Fprintln(t.c.Stderr, h.Name)
	}
	if in == nil {
		return nil
	}
	n, err := io.Copy(tw, io.LimitReader(ctxReader{ctx, in}, h.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if n < h.Size {
		// The header promised more: zeros keep the archive whole, as other tars do.
		t.status = t.c.errorf("%s: shrank by %d bytes, filled with zeros", name, h.Size-n)
		_, err = io.CopyN(tw, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func nameOrEmpty(s string) string {
	if strings.Trim(s, "0123456789") == "" {
		return ""
	}
	return s
}

// read lists or extracts; names select members and what is below them.
func (t *tarCall) read(ctx context.Context, names []string) error {
	r, err := t.c.open(t.file)
	if err != nil {
		return err
	}
	defer r.Close()
	br := bufio.NewReaderSize(ctxReader{ctx, r}, 64<<10)
	var in io.Reader = br
	if magic, _ := br.Peek(2); t.o.has('z') || len(magic) == 2 && magic[0] == 0x1f &&
		magic[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return err
		}
		in = z
	}
	x := &extraction{t: t}
	if t.o.has('x') && !t.o.has('O') {
		dir := t.dir
		if dir == "" {
			dir = "."
		}
		if x.root, err = os.OpenRoot(dir); err != nil {
			return err
		}
		defer x.root.Close()
	}
	hit := make([]bool, len(names))
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if !selectMember(names, hit, h.Name) || t.excluded(strings.TrimSuffix(h.Name, "/")) {
			continue
		}
		if err := t.member(ctx, x, h, tr); err != nil {
			t.status = t.c.fault(h.Name, err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	x.finish()
	for i, n := range names {
		if !hit[i] {
			t.status = t.c.errorf("%s: not in the archive", n)
		}
	}
	return nil
}

func selectMember(names []string, hit []bool, member string) bool {
	if len(names) == 0 {
		return true
	}
	m := path.Clean(member)
	for i, n := range names {
		if n = path.Clean(n); m == n || strings.HasPrefix(m, n+"/") {
			hit[i] = true
			return true
		}
	}
	return false
}

func (t *tarCall) member(ctx context.Context, x *extraction, h *tar.Header, r io.Reader) error {
	switch {
	case t.o.has('t') && t.o.has('v'):
		owner := fmt.Sprintf("%d/%d", h.Uid, h.Gid)
		if h.Uname != "" && !t.o.has('\x03') {
			owner = h.Uname + "/" + h.Gname
		}
		link := ""
		if h.Typeflag == tar.TypeSymlink {
			link = " -> " + h.Linkname
		} else if h.Typeflag == tar.TypeLink {
			link = " link to " + h.Linkname
		}
		_, err := fmt.Fprintf(
			t.c.Stdout, "%s %s %9d %s %s%s\n", modeString(uint32(h.Mode&0o7777)|kindOf(h)), owner,
			h.Size, h.ModTime.Local().Format("2006-01-02 15:04"), h.Name, link,
		)
		return err
	case t.o.has('t'):
		_, err := fmt.Fprintln(t.c.Stdout, h.Name)
		return err
	}
	if t.o.has('v') {
		fmt.Fprintln(t.c.Stderr, h.Name)
	}
	if t.o.has('O') {
		_, err := io.Copy(t.c.Stdout, r)
		return err
	}
	return x.extract(ctx, h, r)
}

func kindOf(h *tar.Header) uint32 {
	switch h.Typeflag {
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeSymlink:
		return unix.S_IFLNK
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	case tar.TypeFifo:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}
