package cgroup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/rawfile"
)

// Freeze stops all processes of the group (freezer-subsystem.rst).
func (g *Group) Freeze(ctx context.Context) error {
	if g.host.version == 2 {
		return g.freeze2(ctx, "1")
	}
	return g.freezer(ctx, "FROZEN")
}

// Thaw lets them go on.
func (g *Group) Thaw(ctx context.Context) error {
	if g.host.version == 2 {
		return g.freeze2(ctx, "0")
	}
	return g.freezer(ctx, "THAWED")
}

func (g *Group) freezer(ctx context.Context, want string) error {
	mount, ok := g.host.mount("freezer")
	if !ok {
		return fmt.Errorf(
			"freeze: this host has no freezer controller: %w", errdefs.ErrFailedPrecondition,
		)
	}
	file := mount + g.path + "/freezer.state"
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		if err := writeFile(file, []byte(want)); err != nil {
			return err
		}
		raw, err := rawfile.Read(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(raw)) == want {
			return nil
		}
		// FREEZING: a process was forking. Writing again makes the kernel look again.
		if err := pause(ctx, wait); err != nil {
			writeFile(file, []byte("THAWED"))
			return fmt.Errorf("freeze cgroup %q: %w", g.path, err)
		}
	}
}

// Frozen says whether the group is frozen.
func (g *Group) Frozen() (bool, error) {
	if g.host.version == 2 {
		now, err := event(g.host.unified()+g.path, "frozen")
		return now == "1", err
	}
	mount, ok := g.host.mount("freezer")
	if !ok {
		return false, nil
	}
	raw, err := rawfile.Read(mount + g.path + "/freezer.state")
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(raw)) != "THAWED", nil
}
