package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (a *app) start(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	return 0, c.Start(ctx)
}

func (a *app) state(_ context.Context, fs *flag.FlagSet, args []string) (int, error) {
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	s, err := c.State()
	if err != nil {
		return 1, err
	}
	if s.Status == specs.StateCreating {
		// As with runc and crun, a caller that polls sees nothing until there is a process.
		return 1, fmt.Errorf(
			"container %q does not exist: it is being created, or its creation was cut short", id,
		)
	}
	return 0, a.printJSON(s)
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func jsonString(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(raw)
}

// parseSignal takes KILL, SIGKILL, sigkill or 9.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 {
			return 0, fmt.Errorf("signal %d: want 0 to 64", n)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

func (a *app) kill(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var all bool
	for _, name := range []string{"all", "a"} {
		fs.BoolVar(&all, name, false, "send the signal to all processes of the container")
	}
	words, err := parseAround(fs, args)
	if err != nil {
		return 1, err
	}
	if len(words) < 1 || len(words) > 2 {
		return 1, fmt.Errorf(
			"kill: %d arguments, want the container's ID and perhaps a signal", len(words),
		)
	}
	sig := unix.SIGTERM
	if len(words) == 2 {
		if sig, err = parseSignal(words[1]); err != nil {
			return 1, err
		}
	}
	c, err := a.rt.Load(words[0])
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return 0, c.Kill(ctx, sig, all)
}

func (a *app) remove(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var force bool
	for _, name := range []string{"force", "f"} {
		fs.BoolVar(&force, name, false, "kill the container first; a missing one is no error")
	}
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		if force && isNotFound(err) {
			return 0, nil
		}
		return 1, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return 0, c.Delete(ctx, force)
}

func (a *app) pause(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return 0, c.Pause(ctx)
}

func (a *app) resume(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	return 0, c.Resume(ctx)
}

// listed is one line of list --format json, with the names that runc uses.
type listed struct {
	OCIVersion  string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (a *app) list(_ context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var format string
	var quiet bool
	for _, name := range []string{"format", "f"} {
		fs.StringVar(&format, name, "table", "`format`: table or json")
	}
	for _, name := range []string{"quiet", "q"} {
		fs.BoolVar(&quiet, name, false, "print IDs only")
	}
	if err := fs.Parse(args); err != nil {
		return 1, err
	}
	if fs.NArg() > 0 {
		return 1, fmt.Errorf("list: unexpected argument %q", fs.Arg(0))
	}
	if a.rootGiven {
		// A directory that was chosen and is not there is a mistake; the usual one is made with the
		// first container.
		if _, err := os.Stat(a.rt.Root); err != nil {
			return 1, fmt.Errorf("--root: %w", err)
		}
	}
	containers, err := a.rt.List()
	if err != nil {
		return 1, err
	}
	out := make([]listed, 0, len(containers))
	for _, c := range containers {
		if quiet {
			fmt.Fprintln(a.out, c.ID())
			continue
		}
		s, err := c.State()
		if err != nil {
			return 1, err
		}
		out = append(
			out,
			listed{
				s.Version, s.ID, s.Pid, s.Status, s.Bundle, s.Rootfs, s.Created, s.Annotations,
				s.Owner,
			},
		)
	}
	if quiet {
		return 0, nil
	}
	switch format {
	case "json":
		return 0, json.NewEncoder(a.out).Encode(out)
	case "table":
		w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, l := range out {
			fmt.Fprintf(
				w, "%s\t%d\t%s\t%s\t%s\t%s\n", l.ID, l.Pid, l.Status, l.Bundle,
				l.Created.Format(time.RFC3339Nano), l.Owner,
			)
		}
		return 0, w.Flush()
	}
	return 1, fmt.Errorf("--format %q: want table or json", format)
}

func (a *app) ps(_ context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var format string
	for _, name := range []string{"format", "f"} {
		fs.StringVar(&format, name, "table", "`format`: table or json")
	}
	if err := fs.Parse(args); err != nil {
		return 1, err
	}
	if fs.NArg() < 1 {
		return 1, fmt.Errorf("ps: the container's ID is missing")
	}
	c, err := a.rt.Load(fs.Arg(0))
	if err != nil {
		return 1, err
	}
	pids, err := c.Pids()
	if err != nil {
		return 1, err
	}
	switch format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return 0, json.NewEncoder(a.out).Encode(pids)
	case "table":
	default:
		return 1, fmt.Errorf("--format %q: want table or json", format)
	}
	return 0, runPS(a.out, pids, fs.Args()[1:])
}

func (a *app) update(_ context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var u updateFlags
	u.define(fs)
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	res, err := u.resources(fs, os.Stdin)
	if err != nil {
		return 1, err
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	return 0, c.Update(res)
}
