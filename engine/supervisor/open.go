package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/containerd/errdefs"

	"strake/engine/ocispec"
	"strake/volume"
)

// validate names the first field that is wrong.
func (cfg *Config) validate() error {
	for name, path := range map[string]string{"Root": cfg.Root, "Run": cfg.Run} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return fmt.Errorf(
				"engine: %s %q: want an absolute, clean path: %w", name, path,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if cfg.Network == nil || cfg.Groups == nil || cfg.Tasks == nil || cfg.Images == nil ||
		cfg.Sandboxes == nil {
		return fmt.Errorf(
			"engine: Images, Network, Groups, Tasks and Sandboxes are required: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	if err := ocispec.CheckRlimits(cfg.Rlimits); err != nil {
		return fmt.Errorf("engine: Rlimits: %w", err)
	}
	return nil
}

// Open starts an engine on its directories: it loads what it once acknowledged, adopts the
// containers that run, learns how the others ended, removes what an interrupted operation left, and
// starts what restart policies want.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Owner == "" {
		cfg.Owner = DefaultOwner
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.makeDirs(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg}
	e.core = newCore(&e.cfg)
	e.layers = &layers{core: e.core, images: cfg.Images}
	e.execs = &execs{core: e.core, table: map[string]*execution{}}
	e.streams = &streams{core: e.core}
	e.views = &views{core: e.core, layers: e.layers}
	e.prober = &prober{core: e.core, execs: e.execs}
	if e.host.fixed, err = readHost(cfg.Rlimits); err != nil {
		return nil, err
	}
	e.volumes, err = volume.Open(volume.Config{
		Root:  filepath.Join(cfg.Root, "volumes"),
		Fault: func(step string) { _ = e.fault(step) },
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	r := recovery{e}
	if err := r.recover(ctx); err != nil {
		return nil, err
	}
	e.spawn(func() { e.warn("remove the data of removed volumes", e.volumes.Sweep()) })
	r.startDue()
	return e, nil
}
