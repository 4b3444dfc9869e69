package system

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"strake/cli/client"
	"strake/cli/command"
)

// place is where the objects of one kind are.
type place struct {
	kind string
	path func(name string) string
}

// placesOf returns the places where an object may be, all of them if no kind is given.
func placesOf(kind string) ([]place, error) {
	all := []place{
		{"container", func(n string) string { return client.Path("containers", n, "json") }},
		{"image", func(n string) string { return client.Path("images", n, "json") }},
		{"network", func(n string) string { return client.Path("networks", n) }},
		{"volume", func(n string) string { return client.Path("volumes", n) }},
	}
	if kind == "" {
		return all, nil
	}
	i := slices.IndexFunc(all, func(p place) bool { return p.kind == kind })
	if i < 0 {
		return nil, command.Misused(
			fmt.Errorf("--type %q: want container, image, network or volume", kind),
		)
	}
	return all[i : i+1], nil
}

// inspectAny returns the first object of a name. An engine may refuse a name that no object of a
// kind could have; that is not having it.
func inspectAny(
	ctx context.Context, s *command.Session, places []place, kind, name string, size bool,
) (raw json.RawMessage, err error) {
	for _, p := range places {
		query := command.Query("size", command.If(size && p.kind == "container"))
		err = s.Get(ctx, p.path(name), query, &raw)
		if err == nil || kind != "" || !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			return raw, err
		}
	}
	return nil, &noSuchObject{name}
}

// noSuchObject is a name that nothing has.
type noSuchObject struct{ name string }

func (e *noSuchObject) Error() string { return "No such object: " + e.name }
func (e *noSuchObject) Unwrap() error { return errdefs.ErrNotFound }
