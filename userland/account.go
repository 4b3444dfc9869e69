package userland

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// accounts are the names of /etc/passwd and /etc/group (passwd(5), group(5)). Package os/user is
// not used: its cache outlives changes, and here both files are read once per applet.
type accounts struct {
	users  []account
	groups []group
}

type account struct {
	name     string
	uid, gid int
	home     string
}

type group struct {
	name    string
	gid     int
	members []string
}

func readAccounts() accounts {
	var a accounts
	b, _ := os.ReadFile("/etc/passwd")
	for l := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), ":")
		if len(f) < 7 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil {
			a.users = append(a.users, account{f[0], uid, gid, f[5]})
		}
	}
	b, _ = os.ReadFile("/etc/group")
	for l := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), ":")
		if len(f) < 4 {
			continue
		}
		if gid, err := strconv.Atoi(f[2]); err == nil {
			a.groups = append(a.groups, group{f[0], gid, strings.Split(f[3], ",")})
		}
	}
	return a
}

// userName is the name of a user, or its number.
func (a accounts) userName(uid int) string {
	for _, u := range a.users {
		if u.uid == uid {
			return u.name
		}
	}
	return strconv.Itoa(uid)
}

func (a accounts) groupName(gid int) string {
	for _, g := range a.groups {
		if g.gid == gid {
			return g.name
		}
	}
	return strconv.Itoa(gid)
}

func (a accounts) user(name string) (account, error) {
	for _, u := range a.users {
		if u.name == name {
			return u, nil
		}
	}
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		for _, u := range a.users {
			if u.uid == int(uid) {
				return u, nil
			}
		}
		return account{name: name, uid: int(uid), gid: -1}, nil
	}
	return account{}, fmt.Errorf("unknown user %q", name)
}

func (a accounts) gid(name string) (int, error) {
	for _, g := range a.groups {
		if g.name == name {
			return g.gid, nil
		}
	}
	if gid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(gid), nil
	}
	return 0, fmt.Errorf("unknown group %q", name)
}

// groupsOf returns the group of a user, then those that list the user as a member.
func (a accounts) groupsOf(u account) []int {
	groups := []int{u.gid}
	for _, g := range a.groups {
		if slices.Contains(g.members, u.name) && g.gid != u.gid {
			groups = append(groups, g.gid)
		}
	}
	return groups
}

// id shows users and groups (id(1p)).
func id(_ context.Context, c *Call) int {
	o, names, status, ok := c.options("ugGnr", "user=u group=g groups=G name=n real=r")
	if !ok {
		return status
	}
	kinds := 0
	for _, k := range []byte("ugG") {
		if o.has(k) {
			kinds++
		}
	}
	switch {
	case len(names) > 1:
		return c.usagef("extra operand %q", names[1])
	case kinds > 1:
		return c.usagef("options -u, -g and -G exclude each other")
	case kinds == 0 && (o.has('n') || o.has('r')):
		return c.usagef("options -n and -r need one of -u, -g and -G")
	}
	a := readAccounts()
	uid, gid := os.Geteuid(), os.Getegid()
	if o.has('r') {
		uid, gid = os.Getuid(), os.Getgid()
	}
	groups := []int{gid}
	if len(names) == 1 {
		u, err := a.user(names[0])
		if err != nil || u.gid < 0 {
			return c.errorf("%q: no such user", names[0])
		}
		uid, gid, groups = u.uid, u.gid, a.groupsOf(u)
	} else {
		more, err := os.Getgroups()
		if err != nil {
			return c.errorf("groups: %s", reason(err))
		}
		for _, g := range more {
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	show := func(id int, name func(int) string) string {
		if o.has('n') {
			return name(id)
		}
		return strconv.Itoa(id)
	}
	switch {
	case o.has('u'):
		fmt.Fprintln(c.Stdout, show(uid, a.userName))
	case o.has('g'):
		fmt.Fprintln(c.Stdout, show(gid, a.groupName))
	case o.has('G'):
		var out []string
		for _, g := range groups {
			out = append(out, show(g, a.groupName))
		}
		fmt.Fprintln(c.Stdout, strings.Join(out, " "))
	default:
		pair := func(id int, name string) string {
			if name == strconv.Itoa(id) {
				return name
			}
			return fmt.Sprintf("%d(%s)", id, name)
		}
		var out []string
		for _, g := range groups {
			out = append(out, pair(g, a.groupName(g)))
		}
		fmt.Fprintf(
			c.Stdout, "uid=%s gid=%s groups=%s\n", pair(uid, a.userName(uid)),
			pair(gid, a.groupName(gid)), strings.Join(out, ","),
		)
	}
	return exitOK
}

func whoami(_ context.Context, c *Call) int {
	_, names, status, ok := c.options("", "")
	if !ok {
		return status
	}
	if len(names) > 0 {
		return c.usagef("extra operand %q", names[0])
	}
	fmt.Fprintln(c.Stdout, readAccounts().userName(os.Geteuid()))
	return exitOK
}
