package network

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"strake/network/firewall"
)

// registry is what this process knows of the instance. Its methods make no system calls. One caller
// holds mu across some: Manager.define, while it chooses and records the subnets of a new network.
type registry struct {
	mu        sync.Mutex
	networks  map[string]*network  // guarded by mu; by ID
	endpoints map[string]*endpoint // guarded by mu; by ID
	sandboxes map[string]*sandbox  // guarded by mu; by container ID
	// guarded by mu; names of interfaces that are meant to exist: the host's ends of veth pairs
	linkNames map[string]bool
	closed    bool // guarded by mu
}

func newRegistry() *registry {
	return &registry{
		networks: map[string]*network{}, endpoints: map[string]*endpoint{},
		sandboxes: map[string]*sandbox{}, linkNames: map[string]bool{},
	}
}

// alive is the error of a finished context or a closed Manager.
func (r *registry) alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("network manager is closed: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// find resolves a network's name, ID, or the beginning of its ID.
func (r *registry) find(ref string) (*network, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var byPrefix []*network
	for id, n := range r.networks {
		switch {
		case n.removing:
		case n.rec.Name == ref || id == ref:
			return n, nil
		case strings.HasPrefix(id, ref):
			byPrefix = append(byPrefix, n)
		}
	}
	switch len(byPrefix) {
	case 1:
		return byPrefix[0], nil
	case 0:
		return nil, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	}
	return nil, fmt.Errorf(
		"network ID prefix %q is ambiguous: %d networks begin so: %w", ref, len(byPrefix),
		errdefs.ErrInvalidArgument,
	)
}

// sandbox returns a container's namespace, or nil.
func (r *registry) sandbox(containerID string) *sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sandboxes[containerID]
}

// dropSandbox removes a namespace from the containers. Precondition: sb.mu is held.
func (r *registry) dropSandbox(sb *sandbox) {
	sb.gone = true
	r.mu.Lock()
	delete(r.sandboxes, sb.container)
	r.mu.Unlock()
}

// endpoint returns an attachment, or nil.
func (r *registry) endpoint(id string) *endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoints[id]
}

// addEndpoint enters an attachment, unless its network is being removed.
func (r *registry) addEndpoint(ep *endpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || ep.net.removing {
		return fmt.Errorf(
			"network %q is being removed: %w", ep.net.rec.Name, errdefs.ErrNotFound,
		)
	}
	r.endpoints[ep.rec.ID] = ep
	return nil
}

func (r *registry) dropEndpoint(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.endpoints, id)
}

// reserveLinkName draws the name of an interface: prefix and eight hexadecimal digits.
func (r *registry) reserveLinkName(prefix string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		name := prefix + randomHex(4)
		if !r.linkNames[name] {
			r.linkNames[name] = true
			return name
		}
	}
}

func (r *registry) releaseLinkName(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.linkNames, name)
}

// filterState is what the nftables table has to express.
func (r *registry) filterState() firewall.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s firewall.State
	for _, n := range r.networks {
		if n.filtered {
			s.Networks = append(s.Networks, n.filter())
		}
	}
	for _, ep := range r.endpoints {
		s.Ports = append(s.Ports, ep.filter()...)
	}
	return s
}

// portHolder names the container that has a host port, or returns "".
func (r *registry) portHolder(b binding) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ep := range r.endpoints {
		for _, q := range ep.rec.Ports {
			if q.Proto == b.Proto && q.HostPort == b.HostPort && overlap(q.HostIP, b.HostIP) {
				if ep.rec.Name == "" {
					return fmt.Sprintf("container %q", ep.rec.ContainerID)
				}
				return fmt.Sprintf("container %q", ep.rec.Name)
			}
		}
	}
	return ""
}
