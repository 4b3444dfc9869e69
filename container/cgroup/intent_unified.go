package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// coreFiles are the files of cgroup2 itself that limit something. The others of the kind move,
// freeze or kill processes or change what the group is; a configuration has no business with them.
var coreFiles = [...]string{"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"}

// unified sets files of cgroup2 by their names (config-linux.md, "Unified"). Last, so that they win
// over what was converted.
func (p *planner) unified(files map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		name := "unified[" + strconv.Quote(file) + "]"
		controller, rest, ok := strings.Cut(file, ".")
		if !ok || controller == "" || rest == "" || strings.ContainsAny(file, "/ ") ||
			!printable(file) {
			p.invalid(name, strconv.Quote(files[file]), "a name of the form controller.file")
			return
		}
		if controller == "cgroup" && !slices.Contains(coreFiles[:], file) {
			p.invalid(
				name, strconv.Quote(files[file]),
				"a limit; of the cgroup.* files "+strings.Join(coreFiles[:], ", "),
			)
			return
		}
		if controller == "cgroup" && !p.at.unified || controller != "cgroup" &&
			(p.at.two == nil || !slices.Contains(p.at.two(), controller)) {
			if p.err == nil {
				p.err = fmt.Errorf(
					"%s%s: invalid configuration: this host has no cgroup2 controller %q: %w",
					field, name, controller, errdefs.ErrFailedPrecondition,
				)
			}
			return
		}
		lines := strings.Split(strings.TrimSuffix(files[file], "\n"), "\n")
		for _, line := range lines {
			w := write{
				version: 2, controller: controller, file: file, value: line, field: field + name,
				given: strconv.Quote(line), entry: true,
			}
			if w.value == "" {
				w.value = "\n" // an empty write would not reach the kernel
			}
			if p.err == nil {
				p.writes = append(p.writes, w)
			}
		}
	}
}
