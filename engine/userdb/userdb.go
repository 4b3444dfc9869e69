// Package userdb answers "which numbers does this user run with" from the passwd(5) and group(5)
// files of an image.
//
// The files are hostile: they come from the author of the image. Promises: reading is bounded; a
// number that does not fit a Linux user ID is an error and never wraps to another user
// (CVE-2024-40635); a user given as a number is always that number, also where an image has an
// account of that name (CVE-2016-3697).
//
// Not for: opening the files (the caller does it beneath the root of the container), NSS, shadow
// passwords.
//
// Tested by tables and by fuzzing Lookup.
package userdb

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

// MaxFile is the most of a passwd or group file that is looked at, in bytes.
const MaxFile = 4 << 20

// maxID is the greatest accepted user or group ID: what fits a signed 32-bit number, as dockerd and
// runc have it.
const maxID = 1<<31 - 1

// Identity is what a process runs as.
type Identity struct {
	UID, GID uint32
	// Groups are the supplementary groups, the primary one first so that a set-group-ID program
	// cannot shed it (CVE-2022-36109).
	Groups []uint32
	// Home is the home directory of the account, "/" without one.
	Home string
}

// Lookup resolves "", "user", "uid", "user:group" with the contents of passwd and group (either may
// be nil) and adds the groups of add, which are names or numbers. Errors are of class
// errdefs.ErrInvalidArgument and name what was not found.
func Lookup(spec string, add []string, passwd, group []byte) (Identity, error) {
	id := Identity{Home: "/"}
	userArg, groupArg, hasGroup := strings.Cut(spec, ":")
	if hasGroup && groupArg == "" {
		hasGroup = false
	}
	wantUID, numeric, err := number(userArg)
	if err != nil {
		return id, message.New(
			errdefs.ErrInvalidArgument, "user %q: uids and gids must be in range 0-%d", userArg,
			maxID,
		)
	}
	account, found := "", false
	err = lines(passwd, 7, func(f []string) (bool, error) {
		switch {
		case userArg == "" && f[2] != "0", userArg != "" && !numeric && f[0] != userArg:
			return true, nil
		}
		uid, ok, err := number(f[2])
		if err != nil || !ok {
			if numeric {
				return true, nil // some other, broken account
			}
			return false, message.New(
				errdefs.ErrInvalidArgument,
				"user %q has the user ID %q in the image's /etc/passwd, want 0-%d", f[0], f[2],
				maxID,
			)
		}
		if numeric && uid != wantUID {
			return true, nil
		}
		gid, ok, err := number(f[3])
		if err != nil || !ok {
			return false, message.New(
				errdefs.ErrInvalidArgument,
				"user %q has the group ID %q in the image's /etc/passwd, want 0-%d", f[0], f[3],
				maxID,
			)
		}
		account, found = f[0], true
		id.UID, id.GID = uid, gid
		if strings.HasPrefix(f[5], "/") {
			id.Home = f[5]
		}
		return false, nil
	})
	if err != nil {
		return Identity{}, err
	}
	if !found {
		switch {
		case numeric:
			id.UID = wantUID
		case userArg != "":
			return Identity{}, message.New(
				errdefs.ErrInvalidArgument,
				"unable to find user %s: no matching entries in passwd file", userArg,
			)
		}
	}
	var member []uint32
	if hasGroup {
		if id.GID, err = findGroup(groupArg, group); err != nil {
			return Identity{}, err
		}
	} else if account != "" {
		if member, err = memberships(account, group); err != nil {
			return Identity{}, err
		}
	}
	id.Groups = append([]uint32{id.GID}, member...)
	for _, a := range add {
		g, err := findGroup(a, group)
		if err != nil {
			return Identity{}, err
		}
		id.Groups = append(id.Groups, g)
	}
	id.Groups = unique(id.Groups)
	return id, nil
}

// number parses an ID. ok is false for what is not a number at all; a number out of range is an
// error.
func number(s string) (id uint32, ok bool, err error) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, nil
	}
	v, perr := strconv.ParseInt(s, 10, 64)
	if perr != nil || v < 0 || v > maxID {
		return 0, true, message.New(errdefs.ErrInvalidArgument, "%q is not within 0-%d", s, maxID)
	}
	return uint32(v), true, nil
}

func findGroup(arg string, group []byte) (uint32, error) {
	gid, numeric, err := number(arg)
	if err != nil {
		return 0, message.New(
			errdefs.ErrInvalidArgument, "group %q: uids and gids must be in range 0-%d", arg, maxID,
		)
	}
	if numeric {
		return gid, nil
	}
	found := false
	err = lines(group, 4, func(f []string) (bool, error) {
		if f[0] != arg {
			return true, nil
		}
		v, ok, err := number(f[2])
		if err != nil || !ok {
			return false, message.New(
				errdefs.ErrInvalidArgument,
				"group %q has the group ID %q in the image's /etc/group, want 0-%d", f[0], f[2],
				maxID,
			)
		}
		gid, found = v, true
		return false, nil
	})
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, message.New(
			errdefs.ErrInvalidArgument,
			"unable to find group %s: no matching entries in group file", arg,
		)
	}
	return gid, nil
}

// memberships lists the groups that name the account. Entries with a broken number are skipped:
// they grant nothing.
func memberships(account string, group []byte) ([]uint32, error) {
	var out []uint32
	err := lines(group, 4, func(f []string) (bool, error) {
		for m := range strings.SplitSeq(f[3], ",") {
			if m != account {
				continue
			}
			if gid, ok, err := number(f[2]); ok && err == nil {
				out = append(out, gid)
			}
			break
		}
		return true, nil
	})
	return out, err
}

// lines calls each with the fields of every entry, filled up to n, until it returns false or an
// error.
func lines(file []byte, n int, each func([]string) (bool, error)) error {
	if len(file) > MaxFile {
		file = file[:MaxFile]
	}
	sc := bufio.NewScanner(bytes.NewReader(file))
	sc.Buffer(nil, MaxFile+1)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' || line[0] == '+' || line[0] == '-' {
			continue // comments; entries that include NIS
		}
		f := strings.SplitN(line, ":", n)
		for len(f) < n {
			f = append(f, "")
		}
		if ok, err := each(f); err != nil || !ok {
			return err
		}
	}
	return nil
}

func unique(in []uint32) []uint32 {
	seen := make(map[uint32]bool, len(in))
	out := in[:0]
	for _, g := range in {
		if !seen[g] {
			seen[g] = true
			out = append(out, g)
		}
	}
	return out
}
