package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/internal/rawfile"
)

// wanted is a configuration turned into what has to be done, before anything is.
type wanted struct {
	intent
	devices *devicePolicy // for version 2; nil if nothing is said about devices
}

// want plans limits for a new group, or for one whose limits change.
func (h *Host) want(res *specs.LinuxResources, cur current) (w wanted, err error) {
	if res == nil {
		return w, nil
	}
	if w.intent, err = plan(res, h.places(), cur); err != nil || len(res.Devices) == 0 {
		return w, err
	}
	policy, err := reduceDevices(res.Devices)
	if err != nil {
		return w, err
	}
	if _, ok := h.mount("devices"); !ok {
		w.devices = &policy
		return w, nil
	}
	for i := range res.Devices {
		m, access, err := parseDeviceRule(&res.Devices[i])
		if err != nil {
			return w, err // reduceDevices has found it before
		}
		rule := "a"
		if m.kind != 'a' {
			rule = m.rule(access)
		}
		file := "devices.deny"
		if res.Devices[i].Allow {
			file = "devices.allow"
		}
		w.writes = append(w.writes, write{
			version: 1, controller: "devices", file: file, value: rule,
			field: fmt.Sprintf("%sdevices[%d]", field, i), given: rule, entry: true,
		})
	}
	return w, nil
}

// dir is the group's directory for a write.
func (g *Group) dir(w *write) string {
	if w.version == 1 {
		mount, _ := g.host.mount(w.controller)
		return mount + g.path
	}
	return g.host.unified() + g.path
}

// apply does what is wanted. With restore, a failure takes back what was done before it, as far as
// the files tell.
func (g *Group) apply(w *wanted, restore bool) (err error) {
	for i := range w.checks {
		c := &w.checks[i]
		raw, err := rawfile.Read(g.host.unified() + g.path + "/" + c.file)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.field, c.given, err)
		}
		if now := number(raw); now >= uint64(c.limit) {
			return fmt.Errorf(
				"%s: %s: %s: the group uses %d already: %w", c.field, c.given, c.what, now,
				errdefs.ErrFailedPrecondition,
			)
		}
	}
	type done struct {
		path string
		old  []byte
	}
	var undo []done
	defer func() {
		if err != nil {
			for _, d := range slices.Backward(undo) {
				writeFile(d.path, d.old)
			}
		}
	}()
	var file series
	defer file.close()
	var later []*write // of the knot of the write before
	for i := range w.writes {
		wr := &w.writes[i]
		if restore && !wr.entry {
			path := g.dir(wr) + "/" + wr.file
			if old, err := rawfile.Read(path); err == nil {
				undo = append(undo, done{path, bytes.TrimSpace(old)})
			}
		}
		err := g.put(&file, wr)
		if err != nil && wr.knot != "" &&
			(errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY)) {
			later = append(later, wr)
			continue
		}
		if err != nil {
			return explain(wr, err)
		}
	}
	for _, wr := range later {
		if err := g.put(&file, wr); err != nil {
			return explain(wr, err)
		}
	}
	if w.devices != nil {
		if err := attachDevices(g.host.unified()+g.path, w.devices); err != nil {
			return fmt.Errorf("%sdevices: %w", field, err)
		}
	}
	return nil
}

// put carries one write out.
func (g *Group) put(file *series, w *write) error {
	dir := g.dir(w)
	err := file.write(dir+"/"+w.file, []byte(w.value))
	if errors.Is(err, fs.ErrNotExist) && w.version == 2 && w.controller != "cgroup" &&
		g.host.enable(g.path, []string{w.controller}) == nil {
		err = file.write(dir+"/"+w.file, []byte(w.value))
	}
	if errors.Is(err, fs.ErrNotExist) && w.altFile != "" {
		err = file.write(dir+"/"+w.altFile, []byte(w.altValue))
	}
	if errors.Is(err, fs.ErrNotExist) && w.optional {
		return nil
	}
	return err
}

func explain(w *write, err error) error {
	class, reason := error(nil), ""
	switch {
	case errors.Is(err, unix.EBUSY) && w.controller == "memory":
		reason = ": the group uses more than that already"
	case errors.Is(err, fs.ErrNotExist):
		class, reason = errdefs.ErrFailedPrecondition, ": this kernel does not have the file"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EACCES):
		class, reason = errdefs.ErrInvalidArgument, ": the kernel does not take this value"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		class, reason = errdefs.ErrFailedPrecondition, ": the kernel cannot do this here"
	}
	if class == nil {
		return fmt.Errorf(
			"%s: %s=%s: %w%s", w.field, w.file, strings.TrimSpace(w.value), err, reason,
		)
	}
	return fmt.Errorf(
		"%s: %s=%s: %w%s: %w", w.field, w.file, strings.TrimSpace(w.value), err, reason, class,
	)
}

// now reads what an update depends on.
func (g *Group) now() (c current) {
	if g.host.Version() != 2 {
		return c
	}
	dir := g.host.unified() + g.path
	if raw, err := rawfile.Read(dir + "/cpu.max"); err == nil {
		c.cpuMax, _, _ = strings.Cut(strings.TrimSpace(string(raw)), " ")
	}
	if raw, err := rawfile.Read(dir + "/memory.max"); err == nil {
		c.memoryMax = -1
		if n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil {
			c.memoryMax = n
		}
	}
	return c
}
