package docker

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

func (a *viewAPI) list(w http.ResponseWriter, r *request) error {
	known := []string{
		"ancestor", "before", "exited", "expose", "health", "id", "isolation", "is-task", "label",
		"name", "network", "publish", "since", "status", "volume",
	}
	if r.version >= 56 {
		known = append(known, "annotation")
	}
	f, err := filtersOf(r, known...)
	if err != nil {
		return err
	}
	all, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	sel, err := a.selection(r, f, all)
	if err != nil {
		return err
	}
	limit := 0
	if text := r.form("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return invalid("limit %q: want a number", text)
		}
	}
	sized := r.flag("size")
	out := make([]*container.Summary, 0, len(all))
	for i := range all {
		info := &all[i]
		if !sel(info) {
			continue
		}
		sum := summary(info, r.version)
		if r.version >= 48 {
			sum.ImageManifestDescriptor = manifestOf(r.Context(), a.images, info.ImageID)
		}
		if sized {
			rw, root, err := a.engine.Usage(r.Context(), info.ID)
			if err == nil {
				sum.SizeRw, sum.SizeRootFs = rw, root
			}
		}
		out = append(out, sum)
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// selection builds the filter of a list from its parameters.
func (a *viewAPI) selection(
	r *request, f filters, all []engine.Info,
) (func(*engine.Info) bool, error) {
	everything := r.flag("all") || r.form("limit") != "" && r.form("limit") != "0" &&
		r.form("limit") != "-1"
	statusGiven := f.has("status") || f.has("exited")
	for _, st := range f["status"] {
		if err := container.ValidateContainerState(container.ContainerState(st)); err != nil {
			return nil, invalid("%v", err)
		}
	}
	var codes []int
	for _, text := range f["exited"] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, invalid("invalid filter 'exited=%s'", text)
		}
		codes = append(codes, n)
	}
	bound := func(key string) (time.Time, error) {
		if !f.has(key) {
			return time.Time{}, nil
		}
		info, err := a.engine.Inspect(r.Context(), f[key][0])
		return info.Created, err
	}
	before, err := bound("before")
	if err != nil {
		return nil, err
	}
	since, err := bound("since")
	if err != nil {
		return nil, err
	}
	ancestors := map[string]bool{}
	for _, ref := range f["ancestor"] {
		if img, err := a.images.Resolve(r.Context(), ref); err == nil {
			ancestors[img.ID.String()] = true
		}
	}
	return func(c *engine.Info) bool {
		st := c.State.Status
		if !everything && !statusGiven && st != engine.Running && st != engine.Paused &&
			st != engine.Restarting {
			return false
		}
		if len(codes) > 0 {
			ok := false
			for _, n := range codes {
				ok = ok || st == engine.Exited && c.State.ExitCode == n
			}
			if !ok {
				return false
			}
		}
		if !before.IsZero() && !c.Created.Before(before) || !since.IsZero() &&
			!c.Created.After(since) {
			return false
		}
		if f.has("ancestor") && !ancestors[c.ImageID] {
			return false
		}
		health := c.State.Health
		if health == "" {
			health = "none"
		}
		return f.exact("status", string(st)) && f.exact("health", health) &&
			prefixed(f["id"], c.ID) && f.match("name", "/"+c.Spec.Name) &&
			f.labels(c.Spec.Labels) &&
			(!f.has("annotation") || f.pairs("annotation", annotations(c))) &&
			networkMatches(f, c) && volumeMatches(f, c) &&
			portMatches(f, "publish", c, true) && portMatches(f, "expose", c, false)
	}, nil
}

// annotations are those that the container was created with (HostConfig.Annotations).
func annotations(c *engine.Info) map[string]string {
	f, err := frontOf(c)
	if err != nil {
		return nil
	}
	return f.HostConfig.Annotations
}

func prefixed(want []string, id string) bool {
	if len(want) == 0 {
		return true
	}
	for _, w := range want {
		if strings.HasPrefix(id, w) {
			return true
		}
	}
	return false
}

func networkMatches(f filters, c *engine.Info) bool {
	if !f.has("network") {
		return true
	}
	names := []string{c.Spec.Network}
	for name, e := range c.Networks {
		names = append(names, name, e.NetworkID)
	}
	return f.exact("network", names...)
}

func volumeMatches(f filters, c *engine.Info) bool {
	if !f.has("volume") {
		return true
	}
	var names []string
	for _, m := range c.Mounts {
		names = append(names, m.Name, m.Destination)
	}
	return f.exact("volume", names...)
}

func portMatches(f filters, key string, c *engine.Info, published bool) bool {
	if !f.has(key) {
		return true
	}
	var have []string
	for _, b := range c.Ports {
		text := strconv.Itoa(int(b.ContainerPort))
		have = append(have, text, text+"/"+b.Proto)
	}
	if !published {
		for _, e := range c.Spec.Exposed {
			port, _, _ := strings.Cut(e, "/")
			have = append(have, e, port)
		}
	}
	return f.exact(key, have...)
}

func summary(c *engine.Info, v version) *container.Summary {
	command := strings.Join(append([]string{c.Path}, c.Args...), " ")
	out := &container.Summary{
		ID: c.ID, Names: []string{"/" + c.Spec.Name}, Image: c.Spec.Image, ImageID: c.ImageID,
		Command: command, Created: c.Created.Unix(),
		Ports: portSummary(c), Labels: c.Spec.Labels,
		State: container.ContainerState(c.State.Status), Status: statusText(&c.State, time.Now()),
		Mounts: mountPoints(c, nil), NetworkSettings: &container.NetworkSettingsSummary{},
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if v >= 46 {
		out.HostConfig.Annotations = annotations(c)
	}
	if v >= 52 {
		out.Health = &container.HealthSummary{
			Status: container.NoHealthcheck, FailingStreak: c.State.FailingStreak,
		}
		if c.State.Health != "" {
			out.Health.Status = container.HealthStatus(c.State.Health)
		}
	}
	out.HostConfig.NetworkMode = primary(c)
	out.NetworkSettings.Networks = endpointSettings(c, nil)
	return out
}

// portSummary lists ports in the order of their numbers.
func portSummary(c *engine.Info) []container.PortSummary {
	out := []container.PortSummary{}
	bound := map[string]bool{}
	for _, b := range c.Ports {
		bound[fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto)] = true
		out = append(
			out,
			container.PortSummary{
				IP: b.HostIP, PrivatePort: b.ContainerPort, PublicPort: b.HostPort, Type: b.Proto,
			},
		)
	}
	for _, text := range c.Spec.Exposed {
		if p, err := network.ParsePort(text); err == nil && !bound[p.String()] {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	sort.SliceStable(out, func(i, k int) bool { return out[i].PrivatePort < out[k].PrivatePort })
	return out
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
