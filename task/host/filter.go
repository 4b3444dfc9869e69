package host

import (
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/seccomp"
)

// filterCache remembers compiled seccomp profiles by their address: a front end gives most of its
// tasks the same one, and compiling it is a third of what the plan of a task costs. An entry keeps
// its profile alive, so that the address is not another profile's later.
type filterCache struct {
	mu sync.Mutex
	m  map[*specs.LinuxSeccomp]*seccomp.Filter // guarded by mu
}

// filterEntries bounds the cache; when it is full it is emptied.
const filterEntries = 64

// get compiles the profile of a configuration, or returns what it compiled to before. Errors are
// those of seccomp.Compile.
func (c *filterCache) get(cfg *specs.Spec) (*seccomp.Filter, error) {
	if cfg == nil || cfg.Linux == nil || cfg.Linux.Seccomp == nil {
		return nil, nil
	}
	profile := cfg.Linux.Seccomp
	c.mu.Lock()
	f := c.m[profile]
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := seccomp.Compile(profile, seccomp.Options{})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= filterEntries {
		c.m = map[*specs.LinuxSeccomp]*seccomp.Filter{}
	}
	c.m[profile] = f
	return f, nil
}
