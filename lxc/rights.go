package lxc

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/capability"
)

// ownCapabilities are those that this process may give to others.
func ownCapabilities() (capability.Set, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(
		&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0],
	); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return capability.Set(data[0].Permitted) | capability.Set(data[1].Permitted)<<32, nil
}

// allCapabilities are those that this process may give to another.
func allCapabilities() (*specs.LinuxCapabilities, error) {
	own, err := ownCapabilities()
	if err != nil {
		return nil, err
	}
	all := own.Names()
	return &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}, nil
}
