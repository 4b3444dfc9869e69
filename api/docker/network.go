package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

// networkAPI serves networks.
type networkAPI struct {
	networks Networks
	engine   interface {
		lister
		inspector
		publisher
		ConnectNetwork(ctx context.Context, name, network string, ep engine.EndpointSpec) error
		DisconnectNetwork(ctx context.Context, name, network string) error
	}
}

// NetworkSpec describes a network that is to be created. Gateways, IPRanges and Reserved belong to
// the subnets of the same index; a missing or zero entry leaves the choice to the network manager.
type NetworkSpec struct {
	Name     string
	Driver   string // empty is the manager's default
	Subnets  []netip.Prefix
	Gateways []netip.Addr
	IPRanges []netip.Prefix // from which addresses are assigned
	// Reserved are addresses that no container gets, by labels.
	Reserved []map[string]netip.Addr
	// Internal networks have no way out of the host.
	Internal        bool
	EnableIPv6      bool
	Options, Labels map[string]string
}

// NetworkInfo is an existing network.
type NetworkInfo struct {
	NetworkSpec
	ID      string
	Created time.Time
}

// Networks is what the API wants of a network manager. Implementations are called concurrently.
// Errors are of the classes of github.com/containerd/errdefs. The slice that List returns is the
// caller's, what its elements refer to is shared.
type Networks interface {
	Create(ctx context.Context, spec NetworkSpec) (id string, warnings []string, err error)
	Remove(ctx context.Context, name string) error
	List(ctx context.Context) ([]NetworkInfo, error)
}

func (a *networkAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /networks":                    a.list,
		"GET /networks/{$}":                a.list, // the one path that has both forms
		"GET /networks/{name}":             a.inspect,
		"POST /networks/create":            a.create,
		"POST /networks/prune":             a.prune,
		"DELETE /networks/{name}":          a.remove,
		"POST /networks/{name}/connect":    a.connect,
		"POST /networks/{name}/disconnect": a.disconnect,
	}
}

func (a *networkAPI) withBuiltin(ctx context.Context) ([]NetworkInfo, error) {
	list, err := a.networks.List(ctx)
	if err != nil {
		return nil, err
	}
	// Every engine has these two, which the manager does not know.
	return append(
		list,
		NetworkInfo{ID: fixedID("host"), NetworkSpec: NetworkSpec{Name: "host", Driver: "host"}},
		NetworkInfo{ID: fixedID("none"), NetworkSpec: NetworkSpec{Name: "none", Driver: "null"}},
	), nil
}

// fixedID is the ID of a network that is the same everywhere. IDs differ from their first digit on,
// because clients look networks up by the first twelve.
func fixedID(name string) string {
	sum := sha256.Sum256([]byte("network " + name))
	return hex.EncodeToString(sum[:])
}

// predefined are the names of networks that cannot be created or removed. "default" means the
// bridge in requests to create a container.
var predefined = []string{"bridge", "host", "none", "default"}

func (a *networkAPI) find(ctx context.Context, name string) (*NetworkInfo, error) {
	list, err := a.withBuiltin(ctx)
	if err != nil {
		return nil, err
	}
	// An ID goes before a name, which may look like one.
	for _, same := range []func(n *NetworkInfo) bool{
		func(n *NetworkInfo) bool { return n.ID == name },
		func(n *NetworkInfo) bool { return n.Name == name },
	} {
		for i := range list {
			if same(&list[i]) {
				return &list[i], nil
			}
		}
	}
	var found *NetworkInfo
	for i := range list {
		n := &list[i]
		if strings.HasPrefix(n.ID, name) {
			if found != nil {
				return nil, invalid("network %s is ambiguous (2 matches found on ID prefix)", name)
			}
			found = n
		}
	}
	if found == nil {
		return nil, plainError{errdefs.ErrNotFound, "network " + name + " not found"}
	}
	return found, nil
}

func (a *networkAPI) list(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	list, err := a.withBuiltin(r.Context())
	if err != nil {
		return err
	}
	var containers []engine.Info
	if r.version < 28 {
		if containers, err = a.engine.List(r.Context()); err != nil {
			return err
		}
	}
	out := []any{}
	for i := range list {
		n := &list[i]
		kind := "custom"
		if n.Name == "bridge" || n.Name == "host" || n.Name == "none" {
			kind = "builtin"
		}
		if !f.exact("driver", n.Driver) || !prefixed(f["id"], n.ID) || !f.labels(n.Labels) ||
			!f.match("name", n.Name) || !f.exact("scope", "local") || !f.exact("type", kind) {
			continue
		}
		one := inspectOfNetwork(n, containers)
		if r.version >= 52 {
			out = append(out, network.Summary{Network: one.Network})
		} else {
			out = append(out, one) // only versions before 1.28 list the containers
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *networkAPI) inspect(w http.ResponseWriter, r *request) error {
	n, err := a.find(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	containers, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	out := inspectOfNetwork(n, containers)
	if r.version >= 52 && len(n.Subnets) > 0 {
		out.Status = &network.Status{
			IPAM: network.IPAMStatus{Subnets: subnetStatus(n, out.Containers)},
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *networkAPI) create(w http.ResponseWriter, r *request) error {
	var req struct {
		network.CreateRequest
		CheckDuplicate bool
	}
	if err := decode(r, &req); err != nil {
		return err
	}
	switch {
	case req.Name == "":
		return invalid("network name is missing")
	case slices.Contains(predefined, req.Name):
		return plainError{
			errdefs.ErrPermissionDenied,
			fmt.Sprintf("operation is not permitted on predefined %s network", req.Name),
		}
	case req.ConfigOnly || req.ConfigFrom != nil || req.Ingress:
		return notImplemented("a network with ConfigOnly, ConfigFrom or Ingress")
	case req.Scope != "" && req.Scope != "local":
		return invalid("scope %q: the one scope is local", req.Scope)
	case r.version >= 48 && req.EnableIPv4 != nil && !*req.EnableIPv4:
		return notImplemented("EnableIPv4=false")
	}
	spec := NetworkSpec{
		Name: req.Name, Driver: req.Driver, Internal: req.Internal, Options: req.Options,
		Labels: req.Labels,
	}
	spec.EnableIPv6 = req.EnableIPv6 != nil && *req.EnableIPv6
	if ipam := req.IPAM; ipam != nil {
		if ipam.Driver != "" && ipam.Driver != "default" {
			return invalid("IPAM driver %q: the one driver is default", ipam.Driver)
		}
		for _, c := range ipam.Config {
			if !c.Subnet.IsValid() {
				return invalid("invalid IPAM configuration: a subnet is missing")
			}
			spec.Subnets = append(spec.Subnets, c.Subnet)
			spec.Gateways = append(spec.Gateways, c.Gateway)
			spec.IPRanges = append(spec.IPRanges, c.IPRange)
			spec.Reserved = append(spec.Reserved, c.AuxAddress)
		}
	}
	id, warnings, err := a.networks.Create(r.Context(), spec)
	if err != nil {
		return err
	}
	a.engine.PublishEvent(
		engine.Event{
			Type: "network", Action: "create", ID: id,
			Attributes: map[string]string{"name": req.Name, "type": "bridge"},
		},
	)
	return writeJSON(
		w, http.StatusCreated, map[string]string{"Id": id, "Warning": strings.Join(warnings, "; ")},
	)
}

func (a *networkAPI) remove(w http.ResponseWriter, r *request) error {
	n, err := a.find(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	if n.Name == "bridge" || n.Name == "host" || n.Name == "none" {
		return plainError{
			errdefs.ErrPermissionDenied, n.Name + " is a pre-defined network and cannot be removed",
		}
	}
	if err := a.networks.Remove(r.Context(), n.ID); err != nil {
		return err
	}
	a.engine.PublishEvent(
		engine.Event{
			Type: "network", Action: "destroy", ID: n.ID,
			Attributes: map[string]string{"name": n.Name, "type": n.Driver},
		},
	)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *networkAPI) prune(w http.ResponseWriter, r *request) error {
	f, err := filtersOf(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.until()
	if err != nil {
		return err
	}
	list, err := a.networks.List(r.Context())
	if err != nil {
		return err
	}
	containers, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	used := map[string]bool{"bridge": true}
	for i := range containers {
		used[containers[i].Spec.Network] = true
		for name := range containers[i].Networks {
			used[name] = true
		}
	}
	deleted := []string{}
	for i := range list {
		n := &list[i]
		if used[n.Name] || used[n.ID] || !f.labels(n.Labels) || !until.IsZero() &&
			n.Created.After(until) {
			continue
		}
		if err := a.networks.Remove(r.Context(), n.ID); err != nil {
			continue // a container has connected to it since
		}
		deleted = append(deleted, n.Name)
	}
	return writeJSON(w, http.StatusOK, map[string][]string{"NetworksDeleted": deleted})
}

// connectable finds the network of a connect or disconnect, which cannot be "host" or "none".
func (a *networkAPI) connectable(r *request, name string) (*NetworkInfo, error) {
	if name == "" {
		return nil, invalid("Container: the name or ID of a container is missing")
	}
	n, err := a.find(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if n.Name == "host" || n.Name == "none" {
		return nil, invalid(
			"container cannot be connected to or disconnected from %s network", n.Name,
		)
	}
	return n, nil
}

func (a *networkAPI) connect(w http.ResponseWriter, r *request) error {
	var req network.ConnectRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	n, err := a.connectable(r, req.Container)
	if err != nil {
		return err
	}
	var ep engine.EndpointSpec
	if e := req.EndpointConfig; e != nil {
		if r.version < 54 {
			e.MacAddress = nil // ignored in those versions
		}
		if r.version < 48 {
			e.GwPriority = 0
		}
		if ep, err = endpointOf(req.EndpointConfig); err != nil {
			return err
		}
	}
	err = a.engine.ConnectNetwork(r.Context(), req.Container, n.Name, ep)
	if errdefs.IsConflict(err) && a.asked(r, req.Container, n.Name) {
		// What was asked for before is replaced.
		if err = a.engine.DisconnectNetwork(r.Context(), req.Container, n.Name); err == nil {
			err = a.engine.ConnectNetwork(r.Context(), req.Container, n.Name, ep)
		}
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// asked says that a container does not run and will be in a network when it is started.
func (a *networkAPI) asked(r *request, name, network string) bool {
	info, err := a.engine.Inspect(r.Context(), name)
	if err != nil {
		return false
	}
	_, ok := wishes(&info)[network]
	return ok && (info.State.Status == engine.Created || info.State.Status == engine.Exited)
}

func (a *networkAPI) disconnect(w http.ResponseWriter, r *request) error {
	var req network.DisconnectRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	n, err := a.connectable(r, req.Container)
	if err != nil {
		return err
	}
	if err := a.engine.DisconnectNetwork(r.Context(), req.Container, n.Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
