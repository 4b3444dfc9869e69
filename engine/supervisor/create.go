package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/engine/logattr"
	"strake/engine/naming"
	"strake/engine/ocispec"
	"strake/engine/record"
	"strake/engine/state"
	"strake/engine/userdb"
	"strake/image"
	"strake/internal/message"
	"strake/volume"
)

// undo collects what takes back the steps of an operation, for the case that a later one fails.
type undo []func(ctx context.Context) error

func (u *undo) add(f func(ctx context.Context) error) { *u = append(*u, f) }

// run takes everything back, last step first, also when ctx has ended, and joins the errors to err.
func (u undo) run(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	for _, f := range slices.Backward(u) {
		err = errors.Join(err, f(ctx))
	}
	return err
}

// Create implements Containers.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (id string, warnings []string, err error) {
	c := &container{
		id: newID(), op: newGate(), created: time.Now().UTC(), state: engine.State{Status: engine.Created},
	}
	c.dir = e.containerDir(c.id)
	facts := &ocispec.Image{}
	if spec.Image != "" {
		if c.res.ImageID, facts, err = e.imageFacts(ctx, spec.Image); err != nil {
			return "", nil, err
		}
	} else if !filepath.IsAbs(spec.RootFS) {
		return "", nil, message.New(
			errdefs.ErrInvalidArgument,
			"neither an image nor an absolute path of a root file system is given (rootfs %q)",
			spec.RootFS,
		)
	}
	e.logDefaults(&spec)
	warnings = e.cfg.Groups.Enforced(&spec.Resources)
	if err := e.resolve(&spec, facts, c); err != nil {
		return "", nil, err
	}
	chosen := spec.Name != ""
	if chosen {
		spec.Name = strings.TrimPrefix(spec.Name, "/")
		if err := naming.Check(spec.Name); err != nil {
			return "", nil, err
		}
	}
	var back undo
	defer func() {
		if err != nil {
			id, err = "", back.run(ctx, err)
		}
	}()
	c.spec = spec
	for range 10 {
		if !chosen {
			c.spec.Name = naming.Pick(e.taken)
		}
		if err = e.reserve(c.spec.Name, nil); err == nil || chosen || !errdefs.IsConflict(err) {
			break
		}
	}
	if err != nil {
		return "", nil, err
	}
	back.add(func(context.Context) error { e.release(c.spec.Name); return nil })
	if err := e.materialise(ctx, c, facts, &back); err != nil {
		return "", nil, err
	}
	if err := e.fault("create: publish"); err != nil {
		return "", nil, err
	}
	e.add(c)
	e.publish(c, "create", nil)
	return c.id, warnings, nil
}

// resolve fills in what the image says and refuses what can be seen to be wrong before anything is
// made.
func (e *Engine) resolve(spec *engine.Spec, facts *ocispec.Image, c *container) error {
	r := &c.res
	var err error
	if spec.Network == "host" && spec.Hostname == "" && spec.UTSMode != "host" {
		if spec.Hostname, err = os.Hostname(); err != nil {
			return fmt.Errorf("host name of this machine: %w", err)
		}
	}
	if r.Args, r.Env, r.Cwd, err = ocispec.ResolveProcess(spec, facts, c.id); err != nil {
		return err
	}
	r.User, r.StopSignal, r.Shell, r.Health = spec.User, spec.StopSignal, facts.Shell, state.MergeHealth(spec.Health, facts.Health)
	if r.User == "" {
		r.User = facts.User
	}
	if r.StopSignal == "" {
		r.StopSignal = facts.StopSignal
	}
	if r.StopSignal == "" {
		r.StopSignal = "SIGTERM"
	}
	if _, err := parseSignal(r.StopSignal); err != nil {
		return err
	}
	r.Exposed = union(spec.Exposed, facts.Exposed)
	if err := logattr.Check(&spec.Log); err != nil {
		return err
	}
	r.LogAttributes = logAttributes(spec, facts.Labels, r.Env)
	if err := checkPolicy(spec); err != nil {
		return err
	}
	if r.Mounts, err = mountPoints(spec, facts.Volumes); err != nil {
		return err
	}
	// The configuration is made once with placeholders, so that what it would refuse at the start
	// is refused now.
	probe := &ocispec.Input{
		ID: c.id, Spec: spec, Args: r.Args, Env: r.Env, Cwd: r.Cwd, Host: e.host.facts(spec),
		Identity: userdb.Identity{UID: 1},
	}
	for i := range r.Mounts {
		probe.Mounts = append(probe.Mounts, ocispec.Mount{Mount: r.Mounts[i].Mount, HostPath: "/"})
	}
	for _, mode := range []*string{&spec.PIDMode, &spec.IPCMode, &spec.UTSMode} {
		if name, ok := strings.CutPrefix(*mode, "container:"); ok {
			other, err := e.find(name)
			if err != nil {
				return err
			}
			// By ID from now on, so that a later bearer of the name is not meant.
			*mode = "container:" + other.id
		}
	}
	if name, ok := strings.CutPrefix(spec.Network, "container:"); ok {
		other, err := e.find(name)
		if err != nil {
			return err
		}
		spec.Network = "container:" + other.id
	}
	probe.PIDPath, probe.IPCPath, probe.UTSPath = "/", "/", "/"
	_, err = e.host.ociSpec(probe)
	return err
}

func checkPolicy(spec *engine.Spec) error {
	switch spec.Restart.Name {
	case "", "no", state.PolicyAlways, state.PolicyUnlessStopped, state.PolicyOnFailure:
	default:
		return message.New(
			errdefs.ErrInvalidArgument,
			"invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
			spec.Restart.Name,
		)
	}
	if spec.Restart.MaxRetries < 0 || spec.Restart.MaxRetries > 0 &&
		spec.Restart.Name != state.PolicyOnFailure {
		return message.New(
			errdefs.ErrInvalidArgument,
			"invalid restart policy: maximum retry count %d can only be used with 'on-failure' and cannot be negative",
			spec.Restart.MaxRetries,
		)
	}
	if spec.AutoRemove && spec.Restart.Name != "" && spec.Restart.Name != "no" {
		return message.New(
			errdefs.ErrInvalidArgument, "can't create 'AutoRemove' container with restart policy",
		)
	}
	switch spec.Log.Driver {
	case "", "json-file", "local", "none":
	default:
		return message.New(
			errdefs.ErrInvalidArgument,
			"logger: no log driver named '%s' is registered: want json-file, local or none",
			spec.Log.Driver,
		)
	}
	if spec.Log.MaxBytes < 0 || spec.Log.MaxFiles < 0 {
		return message.New(
			errdefs.ErrInvalidArgument,
			"log: maximum size %d and number of files %d cannot be negative", spec.Log.MaxBytes,
			spec.Log.MaxFiles,
		)
	}
	if h := spec.Health; h != nil {
		if len(h.Test) > 0 &&
			(!slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, h.Test[0]) || h.Test[0] != "NONE" && len(h.Test) < 2) {
			return message.New(
				errdefs.ErrInvalidArgument,
				"health check %q: want [\"NONE\"], [\"CMD\", …] or [\"CMD-SHELL\", …]", h.Test,
			)
		}
		for _, d := range []struct {
			name string
			d    time.Duration
		}{
			{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod},
			{"StartInterval", h.StartInterval},
		} {
			if d.d != 0 && d.d < time.Millisecond {
				return message.New(
					errdefs.ErrInvalidArgument, "%s in Healthcheck cannot be less than 1ms", d.name,
				)
			}
		}
		if h.Retries < 0 {
			return message.New(
				errdefs.ErrInvalidArgument, "Retries in Healthcheck cannot be negative",
			)
		}
	}
	return nil
}

// logAttributes are the labels, of the container and its image, and the variables that are written
// beside each line of the container's log.
func logAttributes(spec *engine.Spec, image map[string]string, env []string) map[string]string {
	l := &spec.Log
	if l.Labels == "" && l.LabelsRegex == "" && l.Env == "" && l.EnvRegex == "" {
		return nil
	}
	labels := maps.Clone(image)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, spec.Labels)
	return logattr.Select(l, labels, env)
}

func (e *Engine) logDefaults(spec *engine.Spec) {
	d, l := e.cfg.LogDefaults, &spec.Log
	if l.Driver == "" {
		l.Driver = d.Driver
	}
	if l.Driver == "" {
		l.Driver = "json-file"
	}
	for _, o := range []struct{ to, from *string }{
		{&l.Labels, &d.Labels}, {&l.LabelsRegex, &d.LabelsRegex}, {&l.Env, &d.Env},
		{&l.EnvRegex, &d.EnvRegex}, {&l.Tag, &d.Tag},
	} {
		*o.to = cmp.Or(*o.to, *o.from)
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = d.MaxBytes
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = 20 << 20
	}
	if l.MaxFiles == 0 {
		l.MaxFiles = d.MaxFiles
	}
	if l.MaxFiles == 0 {
		l.MaxFiles = 5
	}
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// mountPoints merges the user's mounts with the anonymous volumes of the user and the image. A
// volume of the image gives way to any mount of the user at the same place.
func mountPoints(spec *engine.Spec, imageVolumes []string) ([]record.MountPoint, error) {
	var out []record.MountPoint
	taken := map[string]bool{}
	for dst := range spec.Tmpfs {
		taken[path.Clean(dst)] = true
	}
	for _, m := range spec.Mounts {
		mp := record.MountPoint{Mount: m}
		switch m.Type {
		case "bind":
			if !filepath.IsAbs(m.Source) {
				return nil, message.New(
					errdefs.ErrInvalidArgument,
					"invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute",
					m.Source,
				)
			}
		case "volume":
			mp.Volume, mp.Anonymous = m.Source, m.Source == ""
		}
		taken[path.Clean(m.Target)] = true
		out = append(out, mp)
	}
	for _, dst := range union(spec.Volumes, imageVolumes) {
		if !path.IsAbs(dst) {
			return nil, message.New(
				errdefs.ErrInvalidArgument,
				"volume %q: invalid mount path: mount path must be absolute", dst,
			)
		}
		if clean := path.Clean(dst); !taken[clean] {
			taken[clean] = true
			out = append(
				out, record.MountPoint{Mount: engine.Mount{Type: "volume", Target: clean}, Anonymous: true},
			)
		}
	}
	return out, nil
}

// materialise makes what a container consists of while it does not run: the writable layer, its
// volumes, and last its record. When the record is there the container exists.
func (e *Engine) materialise(
	ctx context.Context, c *container, facts *ocispec.Image, back *undo,
) error {
	if err := e.fault("create: layer"); err != nil {
		return err
	}
	if c.res.ImageID != "" {
		key, err := image.Key(e.cfg.Owner, c.id)
		if err != nil {
			return err
		}
		c.res.RootfsKey = key
		if _, err := e.images.Prepare(ctx, c.rootfsKey(), digest.Digest(c.res.ImageID)); err != nil {
			return err
		}
		back.add(func(ctx context.Context) error { return e.images.Release(ctx, c.rootfsKey()) })
	}
	if err := e.fault("create: volumes"); err != nil {
		return err
	}
	if err := e.makeVolumes(ctx, c, back); err != nil {
		return err
	}
	if err := e.fault("create: record"); err != nil {
		return err
	}
	if err := os.Mkdir(c.dir, 0o710); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	back.add(func(context.Context) error { return os.RemoveAll(c.dir) })
	if err := e.fault("create: write record"); err != nil {
		return err
	}
	if err := e.saveSpec(c); err != nil {
		return err
	}
	for i := range c.res.Mounts {
		if v := c.res.Mounts[i].Volume; v != "" {
			if err := e.volumes.Confirm(v, c.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeVolumes makes or finds the volumes of a container and fills new ones from the image.
func (e *Engine) makeVolumes(ctx context.Context, c *container, back *undo) error {
	var root *os.File
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	for i := range c.res.Mounts {
		m := &c.res.Mounts[i]
		if m.Type != "volume" {
			continue
		}
		v, made, err := e.volumes.Acquire(volume.CreateOptions{
			Name: m.Volume, Driver: m.Driver, Options: m.Options, Labels: m.Labels,
			Anonymous: m.Anonymous,
		}, c.id)
		if err != nil {
			return err
		}
		back.add(func(context.Context) error {
			e.volumes.Release(v.Name, c.id)
			if made {
				return e.volumes.Remove(v.Name)
			}
			return nil
		})
		m.Volume, m.Source = v.Name, v.Path
		if made {
			e.events.publish(
				engine.Event{
					Type: "volume", Action: "create", ID: v.Name,
					Attributes: map[string]string{"driver": "local"},
				},
			)
		}
		if m.NoCopy {
			continue
		}
		if root == nil {
			if root, err = e.openRoot(ctx, c); err != nil {
				return err
			}
		}
		src, err := openIn(root, m.Target, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // the image has nothing there
		}
		if err != nil {
			return fmt.Errorf("fill volume %q from %q of the image: %w", v.Name, m.Target, err)
		}
		if m.Subpath != "" {
			err = e.volumes.FillBelow(v.Name, m.Subpath, src)
		} else {
			err = e.volumes.Fill(v.Name, c.id, src)
		}
		src.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
