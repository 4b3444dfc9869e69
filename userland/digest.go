package userland

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
)

// sums prints or checks checksums (sha256sum(1) and its siblings).
func sums(ctx context.Context, c *Call) int {
	var make func() hash.Hash
	switch c.Name {
	case "md5sum":
		make = md5.New
	case "sha1sum":
		make = sha1.New
	case "sha512sum":
		make = sha512.New
	default:
		make = sha256.New
	}
	o, names, status, ok := c.options(
		"cbtsw\x01", "check=c binary=b text=t status=s warn=w quiet=\x01",
	)
	if !ok {
		return status
	}
	sum := func(r io.Reader) (string, error) {
		h := make()
		_, err := io.Copy(h, r)
		return hex.EncodeToString(h.Sum(nil)), err
	}
	if !o.has('c') {
		return c.inputs(ctx, names, func(name string, r io.Reader) error {
			s, err := sum(r)
			if err == nil {
				_, err = fmt.Fprintf(c.Stdout, "%s  %s\n", s, name)
			}
			return err
		})
	}
	bad := 0
	status = c.inputs(ctx, names, func(list string, r io.Reader) error {
		malformed, good := 0, 0
		err := lines(r, func(l []byte, _ bool) error {
			want, name, ok := strings.Cut(string(l), " ")
			if !ok || len(want) != make().Size()*2 || len(name) < 2 {
				malformed++
				return nil
			}
			good++
			name = name[1:]
			in, err := c.open(name)
			var got string
			if err == nil {
				got, err = sum(ctxReader{ctx, in})
				in.Close()
			}
			verdict := "OK"
			if err != nil {
				c.fault(name, err)
				verdict = "FAILED open or read"
			} else if !strings.EqualFold(got, want) {
				verdict = "FAILED"
			}
			if verdict != "OK" {
				bad++
			}
			if !o.has('s') && !(verdict == "OK" && o.has('\x01')) {
				fmt.Fprintf(c.Stdout, "%s: %s\n", name, verdict)
			}
			return nil
		})
		if err == nil && good == 0 {
			err = fmt.Errorf("no line is a checksum of this kind")
		}
		if malformed > 0 && o.has('w') {
			c.errorf("%s: %d lines are no checksums", list, malformed)
		}
		return err
	})
	if bad > 0 {
		if !o.has('s') {
			c.errorf("%d checksums did not match", bad)
		}
		status = exitFault
	}
	return status
}

// base64Applet encodes or decodes (base64(1) of coreutils: -d, -i, -w).
func base64Applet(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options("diw:", "decode=d ignore-garbage=i wrap=w")
	if !ok {
		return status
	}
	width, err := parseCount(o.value('w', "76"))
	if err != nil {
		return c.usagef("option -w: %v", err)
	}
	if len(names) > 1 {
		return c.usagef("extra operand %q", names[1])
	}
	w := c.buffered()
	status = c.inputs(ctx, names, func(_ string, r io.Reader) error {
		if o.has('d') {
			_, err := io.Copy(w, base64.NewDecoder(base64.StdEncoding, onlyAlphabet{r, o.has('i')}))
			return err
		}
		wrap := &wrapper{w: w, width: int(width)}
		enc := base64.NewEncoder(base64.StdEncoding, wrap)
		if _, err := io.Copy(enc, r); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		return wrap.end()
	})
	return c.finish(w, status)
}

// onlyAlphabet drops line breaks, and with garbage everything that is no base64.
type onlyAlphabet struct {
	r       io.Reader
	garbage bool
}

func (a onlyAlphabet) Read(p []byte) (int, error) {
	for {
		n, err := a.r.Read(p)
		k := 0
		for _, b := range p[:n] {
			alphabet := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' ||
				b == '+' || b == '/' || b == '='
			if alphabet || !a.garbage && b != '\n' && b != '\r' {
				p[k] = b
				k++
			}
		}
		if k > 0 || err != nil {
			return k, err
		}
	}
}

// wrapper breaks lines after width bytes; 0 never.
type wrapper struct {
	w          io.Writer
	width, col int
}

func (w *wrapper) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := len(p)
		if w.width > 0 {
			if w.col == w.width {
				if _, err := w.w.Write([]byte{'\n'}); err != nil {
					return 0, err
				}
				w.col = 0
			}
			n = min(n, w.width-w.col)
		}
		if _, err := w.w.Write(p[:n]); err != nil {
			return 0, err
		}
		w.col += n
		p = p[n:]
	}
	return total, nil
}

func (w *wrapper) end() error {
	if w.width == 0 || w.col == 0 {
		return nil
	}
	_, err := w.w.Write([]byte{'\n'})
	return err
}
