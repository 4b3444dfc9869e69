// Package wire is the language between engine and keeper: messages on a SOCK_SEQPACKET socket, one
// packet each, with descriptors as ancillary data (unix(7)). The same encoding holds the state that
// a keeper hands to its successor.
//
// Promise: decoding never panics, reads nothing beyond the packet, allocates no more than a small
// multiple of it, and accepts exactly what encoding produces (no trailing bytes, no overlong
// fields).
//
// Not for: talking to anything but a peer of the same user; there is no secrecy and no negotiation
// beyond a version number.
//
// Tested by round trips of every message and by fuzzing.
package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
)

// Coder encodes or decodes, so that one function describes a message in both directions. After the
// first error it does nothing more.
type Coder struct {
	buf      []byte
	decoding bool
	err      error
}

// NewEncoder makes a Coder that appends to buf.
func NewEncoder(buf []byte) *Coder { return &Coder{buf: buf} }

// NewDecoder makes a Coder that reads buf, and refers to it only while it decodes.
func NewDecoder(buf []byte) *Coder { return &Coder{buf: buf, decoding: true} }

// Decoding says whether fields are being read.
func (c *Coder) Decoding() bool { return c.decoding }

// Bytes returns what has been encoded.
func (c *Coder) Bytes() []byte { return c.buf }

// Finish returns the first error; bytes that are left over are one. Its class is
// errdefs.ErrInvalidArgument.
func (c *Coder) Finish() error {
	if c.err == nil && c.decoding && len(c.buf) > 0 {
		c.Fail("%d bytes left over", len(c.buf))
	}
	return c.err
}

// Fail makes the coder fail, unless it has already.
func (c *Coder) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(
			"message: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument,
		)
	}
	c.buf = nil
}

func (c *Coder) take(n int) []byte {
	if c.err != nil || n > len(c.buf) {
		c.Fail("%d bytes, want %d more", len(c.buf), n)
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// Uint codes an unsigned number of 1, 2, 4 or 8 bytes, as wide as its type, little-endian.
func Uint[T ~uint8 | ~uint16 | ~uint32 | ~uint64](c *Coder, v *T) {
	width := 1
	for m := uint64(^T(0)); m > 0xff; m >>= 8 {
		width++
	}
	var b [8]byte
	if c.decoding {
		copy(b[:], c.take(width))
		*v = T(binary.LittleEndian.Uint64(b[:]))
		return
	}
	binary.LittleEndian.PutUint64(b[:], uint64(*v))
	c.buf = append(c.buf, b[:width]...)
}

// Int codes a signed number in 8 bytes.
func Int[T ~int | ~int32 | ~int64](c *Coder, v *T) {
	u := uint64(*v)
	Uint(c, &u)
	if c.decoding {
		if *v = T(u); uint64(*v) != u {
			c.Fail("number %d out of range", int64(u))
		}
	}
}

// Bool codes a truth value in one byte.
func Bool(c *Coder, v *bool) {
	var u uint8
	if *v {
		u = 1
	}
	Uint(c, &u)
	if c.decoding {
		if u > 1 {
			c.Fail("truth value %d", u)
		}
		*v = u == 1
	}
}

// Flags codes up to eight truth values in one byte, the first in the lowest bit: as Bool codes the
// first alone if the others are false.
func Flags(c *Coder, flags ...*bool) {
	var u uint8
	for i, f := range flags {
		if *f {
			u |= 1 << i
		}
	}
	Uint(c, &u)
	if !c.decoding {
		return
	}
	if u>>len(flags) != 0 {
		c.Fail("flags %#x, %d are known", u, len(flags))
		u = 0
	}
	for i, f := range flags {
		*f = u>>i&1 != 0
	}
}

// More says whether the encoding goes on: when encoding if there is something, when decoding while
// bytes are left. It is for what the older version of a format does not have at its end.
func (c *Coder) More(has bool) bool {
	if c.decoding {
		return len(c.buf) > 0
	}
	return has
}

// Enum codes an enumeration whose last value is last.
func Enum[T ~uint8](c *Coder, v *T, last T) {
	Uint(c, v)
	if *v > last {
		c.Fail("value %d of an enumeration up to %d", *v, last)
		*v = 0
	}
}

// Text codes a string or bytes of at most limit bytes.
func Text[T ~string | ~[]byte](c *Coder, v *T, limit int) {
	n := uint32(len(*v))
	Uint(c, &n)
	if uint64(n) > uint64(limit) {
		c.Fail("text of %d bytes, at most %d are allowed", n, limit)
		return
	}
	if c.decoding {
		*v = T(string(c.take(int(n))))
		return
	}
	c.buf = append(c.buf, *v...)
}

// List codes a slice of at most limit elements.
func List[T any](c *Coder, v *[]T, limit int, element func(*T)) {
	n := uint32(len(*v))
	Uint(c, &n)
	// Every element takes at least a byte, so a short packet cannot claim many.
	if uint64(n) > uint64(limit) || c.decoding && int(n) > len(c.buf) {
		c.Fail("list of %d elements, at most %d are allowed", n, limit)
		return
	}
	if c.decoding {
		*v = make([]T, n)
		if n == 0 {
			*v = nil
		}
	}
	for i := range *v {
		element(&(*v)[i])
	}
}
