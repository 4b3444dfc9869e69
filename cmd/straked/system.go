package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"strake/container/cgroup"
	"strake/engine"
	"strake/engine/supervisor"
	"strake/image"
	"strake/image/base"
	"strake/keeper/launcher"
	"strake/network"
	"strake/network/ipam"
	"strake/network/sandboxnet"
	"strake/sandbox"
	"strake/task/group"
	"strake/task/host"
)

// tag tells the kernel objects of one instance from those of another: it starts the names of its
// interfaces and its nftables table, and is the name of its control group. It depends on the exec
// root only, so that the next process of the instance finds them.
func tag(execRoot string) string {
	if execRoot == defaultExecRoot {
		return "strake"
	}
	sum := sha256.Sum256([]byte(execRoot))
	// One to six letters and digits, the first a letter (network.Config.Prefix).
	return "s" + hex.EncodeToString(sum[:])[:5]
}

// owners are the front ends of an instance. What belongs to another one, in the keeper or in the
// network, is left alone and reported.
var owners = []string{supervisor.DefaultOwner}

// system is an instance with everything opened.
type system struct {
	images    *image.Store
	network   *network.Manager
	net       *sandboxnet.Network
	cgroups   *cgroup.Host
	keeper    *launcher.Launcher
	tasks     *host.Host
	sandboxes *sandbox.Store
	engine    *supervisor.Engine
}

// open opens an instance. What was opened is closed again if there is an error.
func open(ctx context.Context, s *settings, log *slog.Logger) (_ *system, err error) {
	sys := &system{}
	defer func() {
		if err != nil {
			err = errors.Join(err, sys.close())
		}
	}()
	if err := os.MkdirAll(s.ExecRoot, 0o711); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.DataRoot, 0o711); err != nil {
		return nil, err
	}
	logs, err := s.logConfig()
	if err != nil {
		return nil, err
	}
	if sys.keeper, err = launcher.New(
		filepath.Join(s.ExecRoot, "keeper"),
		func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) },
	); err != nil {
		return nil, err
	}
	// Steps of these cannot be told to fail, which their names say.
	steps := func(of string) func(string) {
		if s.fault == nil {
			return nil
		}
		return func(name string) { _ = s.fault(of + "/" + name) }
	}
	sys.images, err = image.Open(image.Config{
		Root: filepath.Join(s.DataRoot, "image"), Logger: log, Fault: steps("image"),
		Registries: image.Registries{
			Insecure: s.InsecureRegistries, Mirrors: s.RegistryMirrors,
			HostsDirs: []string{"/etc/strake/certs.d", "/etc/docker/certs.d"},
			UserAgent: "strake/" + version,
		},
		// The store is opened before the engine and used after it: by the first call the engine is
		// there.
		InUse: func(id digest.Digest) []image.Use {
			if sys.engine == nil {
				return nil
			}
			return sys.engine.ImageUsers(id)
		},
	})
	if err != nil {
		return nil, err
	}
	if err := loadBase(ctx, s.DataRoot, sys.images, log); err != nil {
		return nil, err
	}
	cfg := network.Config{
		StateDir: filepath.Join(s.DataRoot, "network"), RunDir: filepath.Join(s.ExecRoot, "network"), Prefix: tag(s.ExecRoot), Logger: log,
		DefaultIPv6: s.IPv6, DefaultSubnets: s.defaultSubnets(), Fault: steps("network"),
	}
	for _, p := range s.AddressPools {
		cfg.Pools = append(cfg.Pools, ipam.Block{Base: p.Base, Bits: p.Size})
	}
	if sys.network, err = network.Open(cfg); err != nil {
		return nil, err
	}
	sys.net = sandboxnet.New(sys.network, "/etc/hosts", "/etc/resolv.conf")
	if sys.cgroups, err = cgroup.Detect(""); err != nil {
		return nil, err
	}
	if err := sys.openTasks(ctx, s, log); err != nil {
		return nil, err
	}
	sys.engine, err = supervisor.Open(ctx, supervisor.Config{
		Root: s.DataRoot, Run: s.ExecRoot, Log: log, Images: sys.images, Network: sys.net,
		Groups: sys.groups(s, supervisor.DefaultOwner), Tasks: sys.tasks,
		Sandboxes: sys.sandboxes, LogDefaults: logs, DNS: s.DNS, DNSSearch: s.DNSSearch,
		DNSOptions: s.DNSOptions, Rlimits: s.Rlimits, Fault: s.fault,
	})
	if err != nil {
		return nil, err
	}
	return sys, nil
}

// groups are the control groups of one owner.
func (sys *system) groups(s *settings, owner string) *group.Groups {
	return group.New(sys.cgroups, "/"+tag(s.ExecRoot), owner)
}

// openTasks connects to the keeper and opens the store of sandboxes, which all front ends share.
func (sys *system) openTasks(ctx context.Context, s *settings, log *slog.Logger) (err error) {
	target := filepath.Join(s.ExecRoot, "rootfs")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	sys.tasks, err = host.Open(ctx, host.Config{
		Connect: sys.connectKeeper, OverlayTarget: target, Log: log, Fault: s.fault,
		Groups: sys.groups(s, ""),
	})
	if err != nil {
		return err
	}
	for _, f := range sys.tasks.Unclaimed(append(owners, s.owners...)...) {
		log.Warn(
			"a process belongs to a front end that does not run here; it is left alone",
			"process", f.ID, "owner", f.Owner, "pid", f.Pid,
		)
	}
	sys.sandboxes, err = sandbox.Open(sandbox.Config{
		Root: s.DataRoot, Run: s.ExecRoot, Network: sys.net, Tasks: sys.tasks, Log: log,
		Fault: s.fault,
	})
	return err
}

// connectKeeper is host.Config.Connect.
func (sys *system) connectKeeper(ctx context.Context) (host.Keeper, error) {
	c, err := sys.keeper.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (sys *system) close() error {
	var errs []error
	if sys.engine != nil {
		errs = append(errs, sys.engine.Close())
	}
	if sys.tasks != nil {
		errs = append(errs, sys.tasks.Close())
	}
	if sys.network != nil {
		errs = append(errs, sys.network.Close())
	}
	if sys.images != nil {
		errs = append(errs, sys.images.Close())
	}
	return errors.Join(errs...)
}

// teardown ends the engine if it runs and all containers, and takes back what the instance made in
// the kernel. Images, volumes and the containers' records stay.
func teardown(ctx context.Context, s *settings, log *slog.Logger) error {
	if err := stopRunning(ctx, s.ExecRoot); err != nil {
		return err
	}
	lock, err := lockInstance(s)
	if err != nil {
		return err
	}
	defer lock.Close()
	sys, err := open(ctx, s, log)
	if err != nil {
		return err
	}
	list, err := sys.engine.List(ctx)
	errs := []error{err}
	for _, c := range list {
		if c.State.Status == engine.Running || c.State.Status == engine.Paused ||
			c.State.Status == engine.Restarting {
			zero := 0
			if err := sys.engine.Stop(ctx, c.ID, "SIGKILL", &zero); err != nil &&
				!errdefs.IsNotModified(err) {
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, sys.engine.Close(), sys.tasks.Shutdown(ctx), sys.tasks.Close())
	sys.engine, sys.tasks = nil, nil
	errs = append(errs, sys.sandboxes.Teardown(), sys.network.Teardown(ctx))
	errs = append(errs, group.Remove(ctx, sys.cgroups, "/"+tag(s.ExecRoot)))
	errs = append(errs, sys.close())
	for _, name := range []string{"keeper", "rootfs", "sandbox", "network"} {
		errs = append(errs, os.RemoveAll(filepath.Join(s.ExecRoot, name)))
	}
	for _, h := range s.Hosts {
		if p, ok := strings.CutPrefix(h, "unix://"); ok {
			if err := os.Remove(p); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// shutdownPatience is how long requests under way may take when straked is told to end.
const shutdownPatience = 3 * time.Second

// loadBase puts the image that is built in into a store that lacks it, or has the one of an earlier
// version of this program. An image of another origin that has the name stays. A program that was
// built without says so once.
func loadBase(ctx context.Context, dataRoot string, images *image.Store, log *slog.Logger) error {
	mark, err := base.Mark(runtime.GOARCH)
	if errdefs.IsNotFound(err) {
		log.Warn("no built-in image", "reason", err)
		return nil
	}
	if err != nil {
		return err
	}
	// Which archive was loaded, and what image came of it.
	record := filepath.Join(dataRoot, "base")
	have, err := images.Resolve(ctx, base.Ref)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		return err
	default:
		was, err := os.ReadFile(record)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if loaded, id, _ := strings.Cut(string(was), " "); loaded == mark ||
			id != have.ID.String() {
			return nil
		}
	}
	raw, err := base.Archive(runtime.GOARCH)
	if err != nil {
		return err
	}
	made, err := images.Load(ctx, bytes.NewReader(raw), image.LoadOptions{})
	if err != nil {
		return fmt.Errorf("load the built-in image %s: %w", base.Ref, err)
	}
	if len(made) != 1 {
		return fmt.Errorf("the built-in archive has %d images: %w", len(made), errdefs.ErrInternal)
	}
	if err := os.WriteFile(record+".new", []byte(mark+" "+made[0].ID.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(record+".new", record)
}
