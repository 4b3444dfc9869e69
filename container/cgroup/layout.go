package cgroup

import (
	"bytes"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// locate finds the hierarchies that /proc/self/cgroup lists (cgroups(7)) at the places that every
// distribution gives them: the controllers with commas, or one of them, or what follows "name=",
// and "unified". probe is the type of a filesystem (statfs(2)). It says whether all of version 1
// were found. The table of mounts would tell as well, but grows with every container.
func locate(
	self []byte, root string, probe func(path string) int64,
) (list []Hierarchy, complete bool) {
	var two []Hierarchy
	for line := range bytes.Lines(self) {
		f := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(f) != 3 {
			continue
		}
		names := strings.Split(f[1], ",")
		if f[1] == "" {
			if dir := path.Join(root, unifiedName); probe(dir) == unix.CGROUP2_SUPER_MAGIC {
				two = []Hierarchy{{Name: unifiedName, Mount: dir}}
			}
			continue
		}
		h := Hierarchy{Name: names[0], Controllers: names, Options: names}
		places := names
		if name, named := strings.CutPrefix(f[1], "name="); named {
			h = Hierarchy{Name: name, Options: []string{"none", f[1]}}
			places = []string{name}
		} else if len(names) > 1 {
			places = append([]string{f[1]}, names...)
		}
		for _, p := range places {
			if dir := path.Join(root, p); probe(dir) == unix.CGROUP_SUPER_MAGIC {
				h.Mount = dir
				break
			}
		}
		if h.Mount == "" {
			return nil, false
		}
		list = append(list, h)
	}
	return append(list, two...), len(list) > 0
}

// filesystem is the type of the filesystem at a path, or 0.
func filesystem(path string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Type)
}
