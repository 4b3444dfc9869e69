package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/lxc"
	"strake/lxc/config"
)

// candidate is a container that lxc-autostart may act on.
type candidate struct {
	*lxc.Container
	cfg *config.Config
}

func autostart(f *pflag.FlagSet) action {
	a := autostarter{}
	f.BoolVarP(&a.kill, "kill", "k", false, "kill the containers instead of starting them")
	f.BoolVarP(&a.list, "list", "L", false, "list the affected containers and their delays")
	f.BoolVarP(&a.reboot, "reboot", "r", false, "reboot the containers instead of starting them")
	f.BoolVarP(
		&a.shutdown, "shutdown", "s", false, "shut down the containers instead of starting them",
	)
	all := f.BoolP("all", "a", false, "ignore groups")
	ignoreAuto := f.BoolP("ignore-auto", "A", false, "ignore lxc.start.auto")
	groups := f.StringArrayP(
		"groups", "g", nil, "groups, separated by commas; an empty one: containers without a group",
	)
	timeout := f.IntP("timeout", "t", stopPatience, "wait so many seconds before killing")
	return func(ctx context.Context, c *call) (int, error) {
		a.call, a.timeout = c, time.Duration(*timeout)*time.Second
		found, err := a.candidates(*ignoreAuto)
		if err != nil {
			return 1, err
		}
		if !*all {
			found = inGroups(found, strings.Split(strings.Join(*groups, ","), ","))
		}
		return a.run(ctx, found)
	}
}

// autostarter is one run of lxc-autostart.
type autostarter struct {
	*call
	kill, list, reboot, shutdown bool
	timeout                      time.Duration
}

// candidates are the containers in the order of their turns: by lxc.start.order, lower numbers
// first, and by name; the other way round where they are stopped.
func (a *autostarter) candidates(ignoreAuto bool) (list []candidate, err error) {
	names, err := a.path.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		x, err := a.path.Container(name)
		if err != nil {
			return nil, err
		}
		cfg, err := x.Config()
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			// Others must not wait for a person to correct this one.
			a.complain(name, err)
			continue
		}
		if ignoreAuto || cfg.Start.Auto {
			list = append(list, candidate{x, cfg})
		}
	}
	slices.SortFunc(list, func(x, y candidate) int {
		n := cmp.Or(
			cmp.Compare(x.cfg.Start.Order, y.cfg.Start.Order), cmp.Compare(x.Name(), y.Name()),
		)
		if a.shutdown || a.kill {
			n = -n
		}
		return n
	})
	return list, nil
}

// inGroups selects the members of groups, group by group, each container once.
func inGroups(from []candidate, groups []string) (list []candidate) {
	taken := map[string]bool{}
	for _, g := range groups {
		for _, x := range from {
			member := slices.Contains(x.cfg.Groups, g) || g == "" && len(x.cfg.Groups) == 0
			if member && !taken[x.Name()] {
				taken[x.Name()] = true
				list = append(list, x)
			}
		}
	}
	return list
}

func (a *autostarter) complain(name string, err error) {
	if !a.quiet {
		fmt.Fprintf(a.Err, "lxc-autostart: %s: %s\n", name, message(err))
	}
}

// run acts on the containers. The status is 1 if it failed for all of them, 2 if for some.
func (a *autostarter) run(ctx context.Context, list []candidate) (int, error) {
	failed := 0
	starting := !a.shutdown && !a.kill && !a.reboot
	for _, x := range list {
		st, err := x.Status()
		if err != nil {
			a.complain(x.Name(), err)
			failed++
			continue
		}
		if (st.State == lxc.Stopped) != starting {
			continue
		}
		delay := !a.shutdown && !a.kill
		if a.list {
			if delay {
				fmt.Fprintln(a.Out, x.Name(), x.cfg.Start.Delay)
			} else {
				fmt.Fprintln(a.Out, x.Name())
			}
			continue
		}
		if err := a.act(ctx, x); err != nil {
			a.complain(x.Name(), err)
			failed++
			continue
		}
		if delay && x.cfg.Start.Delay > 0 {
			select {
			case <-time.After(time.Duration(x.cfg.Start.Delay) * time.Second):
			case <-ctx.Done():
				return 1, ctx.Err()
			}
		}
	}
	const some = 2 // lxc-autostart(1)
	switch {
	case failed > 0 && failed == len(list):
		return 1, nil
	case failed > 0:
		return some, nil
	}
	return 0, nil
}

// act does with one container what is to be done.
func (a *autostarter) act(ctx context.Context, x candidate) error {
	switch {
	case a.shutdown:
		limited, cancel := ctx, context.CancelFunc(func() {})
		if a.timeout >= 0 {
			limited, cancel = context.WithTimeout(ctx, a.timeout)
		}
		defer cancel()
		return ended(x.Stop(limited, lxc.StopOptions{}))
	case a.kill:
		return ended(x.Stop(ctx, lxc.StopOptions{Kill: true}))
	case a.reboot:
		return x.Stop(ctx, lxc.StopOptions{Reboot: true})
	}
	_, err := x.Start(ctx, &lxc.StartOptions{})
	return err
}

// ended is no error for a container that has ended meanwhile.
func ended(err error) error {
	if errors.Is(err, errdefs.ErrFailedPrecondition) {
		return nil
	}
	return err
}
