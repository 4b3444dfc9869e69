package userland

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// modeChange is a parsed mode of chmod(1p): a function of the old permission bits (07777) and of
// whether the file is a directory.
type modeChange func(old uint32, dir bool) uint32

func parseMode(s string, umask uint32) (modeChange, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil && s[0] >= '0' && s[0] <= '7' {
		if n > 0o7777 {
			return nil, fmt.Errorf("mode %q is larger than 7777", s)
		}
		return func(old uint32, dir bool) uint32 {
			if dir && len(s) <= 4 {
				// As GNU: an octal mode of up to four digits keeps a directory's set-id bits unless
				// it sets them.
				return uint32(n) | old&0o6000
			}
			return uint32(n)
		}, nil
	}
	bad := fmt.Errorf(
		"mode %q is not understood (want octal digits, or clauses such as u+x,go-w,a=rX)", s,
	)
	var steps []modeChange
	for clause := range strings.SplitSeq(s, ",") {
		i := 0
		var who uint32
		for i < len(clause) && strings.IndexByte("ugoa", clause[i]) >= 0 {
			who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[clause[i]]
			i++
		}
		if i == len(clause) {
			return nil, bad
		}
		for i < len(clause) {
			op := clause[i]
			if strings.IndexByte("+-=", op) < 0 {
				return nil, bad
			}
			i++
			start := i
			for i < len(clause) && strings.IndexByte("rwxXstugo", clause[i]) >= 0 {
				i++
			}
			perms := clause[start:i]
			if strings.ContainsAny(perms, "ugo") && len(perms) != 1 {
				return nil, bad
			}
			steps = append(steps, modeStep(who, op, perms, umask))
		}
	}
	return func(old uint32, dir bool) uint32 {
		for _, f := range steps {
			old = f(old, dir)
		}
		return old
	}, nil
}

func modeStep(who uint32, op byte, perms string, umask uint32) modeChange {
	return func(old uint32, dir bool) uint32 {
		var bits uint32
		for _, p := range perms {
			switch p {
			case 'r':
				bits |= 0o444
			case 'w':
				bits |= 0o222
			case 'x':
				bits |= 0o111
			case 'X':
				if dir || old&0o111 != 0 {
					bits |= 0o111
				}
			case 's':
				bits |= 0o6000
			case 't':
				bits |= 0o1000
			case 'u':
				bits |= old >> 6 & 7 * 0o111
			case 'g':
				bits |= old >> 3 & 7 * 0o111
			case 'o':
				bits |= old & 7 * 0o111
			}
		}
		mask := who
		if who == 0 {
			mask = 0o7777 &^ (umask & 0o777)
		}
		bits &= mask
		switch op {
		case '+':
			return old | bits
		case '-':
			return old &^ bits
		}
		if who == 0 {
			mask = 0o7777
		}
		if dir {
			mask &^= 0o6000 &^ bits // as GNU: = keeps a directory's set-id bits
		}
		return old&^mask | bits
	}
}

// currentUmask reads the umask without changing it (proc(5), status).
func currentUmask() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for l := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(l, "Umask:"); ok {
				if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
					return uint32(n)
				}
			}
		}
	}
	return 0o022
}

// chmod changes modes (chmod(1p); octal and symbolic).
func chmod(ctx context.Context, c *Call) int {
	// A mode such as -x looks like an option: it is taken out before the options are read.
	args := c.Args
	mode := ""
	for i, a := range args {
		if a == "--" {
			break
		}
		if len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "rwxXstugo,+=-") == "" && a[1] != '-' {
			mode = a
			c.Args = append(append([]string{}, args[:i]...), args[i+1:]...)
			break
		}
	}
	o, names, status, ok := c.options("Rvf", "recursive=R verbose=v quiet=f silent=f")
	if !ok {
		return status
	}
	if mode == "" {
		if len(names) == 0 {
			return c.usagef("no mode given")
		}
		mode, names = names[0], names[1:]
	}
	if len(names) == 0 {
		return c.usagef("no file given")
	}
	change, err := parseMode(mode, currentUmask())
	if err != nil {
		return c.errorf("%v", err)
	}
	one := func(name string) error {
		var st unix.Stat_t
		if err := unix.Stat(c.path(name), &st); err != nil {
			return err
		}
		next := change(st.Mode&0o7777, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		if o.has('v') {
			fmt.Fprintf(c.Stdout, "%s: %04o to %04o\n", name, st.Mode&0o7777, next)
		}
		return unix.Chmod(c.path(name), next)
	}
	return c.eachFile(ctx, names, o.has('R'), func(name string, d fs.DirEntry) error {
		if d != nil && d.Type()&fs.ModeSymlink != 0 {
			return nil // found while walking: its target may be anywhere
		}
		err := one(name)
		if err != nil && o.has('f') {
			return nil
		}
		return err
	})
}

// eachFile calls fn for the operands and, when recursive, for what is below them; then d is known.
// Faults are reported by operand and path.
func (c *Call) eachFile(
	ctx context.Context, names []string, recursive bool, fn func(name string, d fs.DirEntry) error,
) int {
	status := exitOK
	for _, n := range names {
		if ctx.Err() != nil {
			return exitFault
		}
		st, err := os.Lstat(c.path(n))
		if err == nil && recursive && st.IsDir() {
			walked := filepath.WalkDir(c.path(n), func(p string, d fs.DirEntry, err error) error {
				shown := n + strings.TrimPrefix(p, c.path(n))
				if err == nil {
					err = fn(shown, d)
				}
				if err != nil {
					status = c.fault(shown, err)
				}
				return ctx.Err()
			})
			if walked != nil {
				return exitFault
			}
			continue
		}
		if err == nil {
			err = fn(n, nil)
		}
		if err != nil {
			status = c.fault(n, err)
		}
	}
	return status
}

// chown changes owners (chown(1p)); chgrp groups.
func chown(ctx context.Context, c *Call) int {
	o, names, status, ok := c.options(
		"Rhvf", "recursive=R no-dereference=h verbose=v quiet=f silent=f",
	)
	if !ok {
		return status
	}
	if len(names) < 2 {
		return c.usagef("an owner and at least one file are needed")
	}
	uid, gid, err := parseOwner(names[0], c.Name == "chgrp")
	if err != nil {
		return c.errorf("%v", err)
	}
	return c.eachFile(ctx, names[1:], o.has('R'), func(name string, d fs.DirEntry) error {
		call := os.Chown
		if o.has('h') || d != nil {
			call = os.Lchown
		}
		err := call(c.path(name), uid, gid)
		if err == nil && o.has('v') {
			fmt.Fprintf(c.Stdout, "%s: owner is %s\n", name, names[0])
		}
		if err != nil && o.has('f') {
			return nil
		}
		return err
	})
}

// parseOwner reads USER, USER:GROUP, USER: (its login group) or :GROUP; -1 leaves one as it is.
func parseOwner(s string, groupOnly bool) (uid, gid int, err error) {
	a := readAccounts()
	uid, gid = -1, -1
	if groupOnly {
		gid, err = a.gid(s)
		return uid, gid, err
	}
	user, group, both := strings.Cut(s, ":")
	if user != "" {
		u, err := a.user(user)
		if err != nil {
			return 0, 0, err
		}
		uid = u.uid
		if both && group == "" {
			if u.gid < 0 {
				return 0, 0, fmt.Errorf("user %q has no login group", user)
			}
			gid = u.gid
		}
	}
	if group != "" {
		if gid, err = a.gid(group); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}
