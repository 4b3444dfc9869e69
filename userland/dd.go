package userland

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// dd copies blocks (dd(1p)): if of bs ibs=obs=bs count skip seek
// conv=notrunc,noerror,sync,fsync,excl status=none,noxfer. Figures go to standard error.
func dd(ctx context.Context, c *Call) int {
	arg := map[string]string{}
	for _, a := range c.Args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || !strings.Contains(" if of bs count skip seek conv status ", " "+k+" ") {
			return c.usagef(
				"unknown operand %q (want if= of= bs= count= skip= seek= conv= status=)", a,
			)
		}
		arg[k] = v
	}
	num := map[string]int64{"bs": 512, "count": -1}
	for _, k := range []string{"bs", "count", "skip", "seek"} {
		if v, ok := arg[k]; ok {
			n, err := parseSize(v)
			if err != nil {
				return c.usagef("%s=: %v", k, err)
			}
			num[k] = n
		}
	}
	if num["bs"] < 1 || num["bs"] > 1<<30 {
		return c.usagef("bs=: %d bytes, want 1 to 1G", num["bs"])
	}
	conv := map[string]bool{}
	for _, k := range strings.FieldsFunc(arg["conv"], func(r rune) bool { return r == ',' }) {
		if !strings.Contains(" notrunc noerror sync fsync excl ", " "+k+" ") {
			return c.usagef("conv=: %q is none of notrunc, noerror, sync, fsync, excl", k)
		}
		conv[k] = true
	}
	if s := arg["status"]; s != "" && s != "none" && s != "noxfer" {
		return c.usagef("status=: %q is none of none, noxfer", s)
	}
	r := &ddRun{c: c, bs: num["bs"], count: num["count"], conv: conv}
	began := time.Now()
	status := r.run(ctx, arg, num["skip"], num["seek"])
	if arg["status"] != "none" {
		fmt.Fprintf(
			c.Stderr, "%d+%d records in\n%d+%d records out\n", r.inFull, r.inPart, r.outFull,
			r.outPart,
		)
		if arg["status"] != "noxfer" {
			took := time.Since(began).Seconds()
			fmt.Fprintf(
				c.Stderr, "%d bytes (%sB) copied, %.6f s, %sB/s\n", r.bytes,
				humanSize(uint64(r.bytes)), took,
				humanSize(uint64(float64(r.bytes)/max(took, 1e-9))),
			)
		}
	}
	return status
}

type ddRun struct {
	c                                *Call
	bs, count                        int64
	conv                             map[string]bool
	inFull, inPart, outFull, outPart int64
	bytes                            int64
}

func (r *ddRun) run(ctx context.Context, arg map[string]string, skip, seek int64) int {
	in, inName := r.c.Stdin, "standard input"
	if n := arg["if"]; n != "" {
		f, err := os.Open(r.c.path(n))
		if err != nil {
			return r.c.fault(n, err)
		}
		defer f.Close()
		in, inName = f, n
	}
	out, outName := r.c.Stdout, "standard output"
	if n := arg["of"]; n != "" {
		flags := os.O_WRONLY | os.O_CREATE
		if !r.conv["notrunc"] && seek == 0 {
			flags |= os.O_TRUNC
		}
		if r.conv["excl"] {
			flags |= os.O_EXCL
		}
		f, err := os.OpenFile(r.c.path(n), flags, 0o666)
		if err != nil {
			return r.c.fault(n, err)
		}
		defer f.Close()
		out, outName = f, n
		if seek > 0 {
			if !r.conv["notrunc"] {
				if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
					if err := f.Truncate(seek * r.bs); err != nil {
						return r.c.fault(n, err)
					}
				}
			}
			if _, err := f.Seek(seek*r.bs, io.SeekStart); err != nil {
				return r.c.fault(n, err)
			}
		}
	}
	if skip > 0 {
		if err := skipInput(in, skip*r.bs); err != nil {
			return r.c.fault(inName, err)
		}
	}
	if status := r.copy(ctx, in, inName, out, outName); status != exitOK {
		return status
	}
	if f, ok := out.(*os.File); ok && r.conv["fsync"] {
		if err := f.Sync(); err != nil {
			return r.c.fault(outName, err)
		}
	}
	return exitOK
}

func skipInput(in io.Reader, n int64) error {
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			_, err := f.Seek(n, io.SeekCurrent)
			return err
		}
	}
	_, err := io.CopyN(io.Discard, in, n)
	return eofIsFine(err)
}

func (r *ddRun) copy(
	ctx context.Context, in io.Reader, inName string, out io.Writer, outName string,
) int {
	buf := make([]byte, r.bs)
	status := exitOK
	for n := int64(0); r.count < 0 || n < r.count; n++ {
		if ctx.Err() != nil {
			return exitFault
		}
		k, err := in.Read(buf)
		if err == io.EOF || k == 0 && err == nil {
			break
		}
		if err != nil {
			status = r.c.fault(inName, err)
			if !r.conv["noerror"] || errors.Is(err, context.Canceled) {
				return status
			}
			// What cannot be read is skipped, and with sync written as zeros, so that the rest
			// keeps its place.
			if f, ok := in.(*os.File); ok {
				if _, err := f.Seek(r.bs, io.SeekCurrent); err != nil {
					return status
				}
			}
			k = 0
		}
		if int64(k) == r.bs {
			r.inFull++
		} else {
			r.inPart++
		}
		if r.conv["sync"] {
			clear(buf[k:])
			k = len(buf)
		}
		if _, err := out.Write(buf[:k]); err != nil {
			return r.c.fault(outName, err)
		}
		r.bytes += int64(k)
		if int64(k) == r.bs {
			r.outFull++
		} else {
			r.outPart++
		}
	}
	return status
}
