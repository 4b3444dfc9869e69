package docker

import (
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"strake/image"
)

// oldInfo is Info with the fields of older versions.
type oldInfo struct {
	*system.Info
	ExecutionDriver   string `json:",omitempty"` // until 1.24
	BridgeNfIptables  *bool  `json:",omitempty"` // until 1.49
	BridgeNfIp6tables *bool  `json:",omitempty"`
	ContainerdCommit  *oldCommit
	RuncCommit        *oldCommit
	InitCommit        *oldCommit
	RegistryConfig    any
}

// oldCommit has the field Expected, which ended with 1.48.
type oldCommit struct {
	ID       string
	Expected *string `json:",omitempty"`
}

// oldRegistries adds the fields of versions until 1.48. They are null, because nondistributable
// layers are not supported.
type oldRegistries struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

// infoOf is the answer to GET /info in a version of the API. It changes i.
func infoOf(i *system.Info, v version) any {
	commit := func(c *system.Commit) *oldCommit {
		out := &oldCommit{ID: c.ID}
		if v < 49 {
			out.Expected = &c.ID
		}
		return out
	}
	out := oldInfo{
		Info: i, RegistryConfig: i.RegistryConfig,
		ContainerdCommit: commit(&i.ContainerdCommit), RuncCommit: commit(&i.RuncCommit),
		InitCommit: commit(&i.InitCommit),
	}
	if v < 25 {
		out.ExecutionDriver = "<not supported>"
		for k, option := range i.SecurityOptions {
			name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
			i.SecurityOptions[k] = name
		}
	}
	if v < 44 {
		i.CDISpecDirs = nil
	}
	if v < 49 {
		i.FirewallBackend = nil
		out.RegistryConfig = oldRegistries{ServiceConfig: i.RegistryConfig}
	}
	if v < 50 {
		off := false
		out.BridgeNfIptables, out.BridgeNfIp6tables = &off, &off
	}
	return out
}

// registriesOf describes the configuration of registries: which are accessed without verified TLS.
func registriesOf(insecure []string) *registry.ServiceConfig {
	out := &registry.ServiceConfig{
		// Registries on this host are always accessed so.
		InsecureRegistryCIDRs: []netip.Prefix{
			netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8"),
		},
		IndexConfigs: map[string]*registry.IndexInfo{
			image.DefaultRegistry: {
				Name: image.DefaultRegistry, Mirrors: []string{}, Secure: true, Official: true,
			},
		},
		Mirrors: []string{},
	}
	for _, name := range insecure {
		if cidr, err := netip.ParsePrefix(name); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, cidr)
		} else {
			out.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
		}
	}
	return out
}
