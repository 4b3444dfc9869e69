package config

import (
	"bufio"
	"io"
	"slices"
	"strings"
)

// Update rewrites a configuration with the spellings from before LXC 2.1 as lxc-update-config does:
// keys get their current names, networks their numbers, lxc.rootfs.backend becomes the TYPE of
// lxc.rootfs.path, and what has no meaning any more goes. Comments, empty lines, and lines that
// need no change, stay as they are. Included files are neither read nor changed; one with networks
// of its own gives other numbers to those that follow it.
//
// Lines of a network before its type are reported as Errors, before anything is written.
func Update(r io.Reader, w io.Writer) error {
	u := updater{}
	var wrong Errors
	eachLine("", r, &wrong, u.line)
	if len(wrong) > 0 {
		return wrong
	}
	b := bufio.NewWriter(w)
	for _, text := range u.lines {
		b.WriteString(text)
		b.WriteByte('\n')
	}
	return b.Flush()
}

// updater is what an update has seen.
type updater struct {
	lines []string
	// nets is a configuration that has the networks seen so far.
	nets Config
	// root is the number of the line with the root file system, plus one.
	root    int
	backend string
}

// line rewrites one line.
func (u *updater) line(text string) *Error {
	key, value, ok := split(text)
	if !ok || key == "" {
		u.lines = append(u.lines, text)
		return nil
	}
	name, err := u.nets.modern(key, value)
	if err != nil {
		return &Error{Key: key, Value: value, Problem: err.Error()}
	}
	switch name {
	case "lxc.kmsg", "lxc.pivotdir":
		return nil
	case "lxc.rootfs.backend":
		u.backend = value
		u.join()
		return nil
	case "lxc.rootfs.path":
		u.root = len(u.lines) + 1
	}
	u.count(name, value)
	if name != key {
		text = strings.Replace(text, key, name, 1)
	}
	u.lines = append(u.lines, text)
	if name == "lxc.rootfs.path" {
		u.join()
	}
	return nil
}

// count keeps track of the networks that there are.
func (u *updater) count(name, value string) {
	c := &u.nets
	if name == "lxc.net" && value == "" {
		c.Nets = nil
	}
	digits, ok := strings.CutPrefix(name, "lxc.net.")
	if !ok {
		return
	}
	digits, word, _ := strings.Cut(digits, ".")
	index, err := netIndex(digits)
	i, found := c.findNet(index)
	switch {
	case err != nil:
	case value != "" && !found:
		c.Nets = slices.Insert(c.Nets, i, Net{Index: index})
	case value == "" && found && word == "":
		c.Nets = slices.Delete(c.Nets, i, i+1)
	}
}

// join gives the root file system's path the type that lxc.rootfs.backend names, if it has none.
func (u *updater) join() {
	if u.root == 0 || u.backend == "" {
		return
	}
	text := u.lines[u.root-1]
	_, value, _ := split(text)
	if storage, _ := cutStorage(value); storage != "" || value == "" {
		return
	}
	before, after, _ := strings.Cut(text, "=")
	u.lines[u.root-1] = before + "=" + strings.Replace(after, value, u.backend+":"+value, 1)
}
