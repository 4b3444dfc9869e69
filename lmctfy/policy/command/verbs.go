package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"strake/internal/message"
	"strake/lmctfy/policy"
	"strake/lmctfy/policy/driver"
	"strake/lmctfy/policy/simulate"
)

// errRefused says that a request was refused and that the decision was printed.
var errRefused = fmt.Errorf("refused: %w", errdefs.ErrResourceExhausted)

// run carries out the policy until the context ends.
func (c Command) run(ctx context.Context, args []string, out io.Writer) (err error) {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	d := driver.Config{}
	config, machine := policyFlags(f), machineFlags(f)
	pressure := f.String("pressure", "auto",
		"where pressure is read: psi, v1 (memory.pressure_level), or auto for the first there is")
	group := f.String("v1-group", "/sys/fs/cgroup/memory",
		"`directory` of the version 1 memory group that is watched")
	within := f.String("memory-group", "",
		"`directory` of the memory group whose limit is the memory there is; empty: the machine")
	f.DurationVar(&d.Poll, "poll", 500*time.Millisecond,
		"time between observations while there is pressure")
	f.DurationVar(&d.Idle, "idle", 10*time.Second, "longest time without an observation")
	f.DurationVar(&d.Timeout, "timeout", 10*time.Second, "longest time of an action")
	record := f.String("record", "", "write a trace for simulate to this `file`")
	dry := f.Bool("dry-run", false, "log what would be done, and do nothing")
	if err := parse(f, args, 0, zeros...); err != nil {
		return err
	}
	d.Policy, d.Machine = *config, *machine
	d.Memory = driver.MachineMemory("/proc/meminfo")
	if *within != "" {
		d.Memory = driver.GroupMemory(*within, d.Memory)
	}
	if _, _, err := d.Memory(); err != nil {
		return err
	}
	if err := errors.Join(d.Validate(), d.Machine.Validate()); err != nil {
		return err
	}
	if c.Open == nil {
		return message.New(
			errdefs.ErrFailedPrecondition, "this program has no access to containers",
		)
	}
	if d.Source, d.Actuator, err = c.Open(ctx); err != nil {
		return err
	}
	if *dry {
		d.Actuator = driver.DryRun{}
	}
	watch, err := watch(*pressure, *group, d.Policy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	d.Watch = watch
	if *record != "" {
		file, err := os.OpenFile(*record, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		defer file.Close()
		d.Record = file
	}
	// The first line that cannot be written ends the driver: its log is its only output.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.Log = func(at time.Time, line string) {
		_, err := fmt.Fprintf(out, "%s %s\n", at.Format("2006-01-02T15:04:05.000Z07:00"), line)
		if err != nil {
			cancel(fmt.Errorf("log: %w", err))
		}
	}
	if err := driver.Run(ctx, d); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) &&
		!errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// closer is a Watch that holds descriptors.
type closer interface {
	driver.Watch
	io.Closer
}

// watch opens where pressure is read.
func watch(pressure, group string, c policy.Config) (closer, error) {
	if pressure != "auto" && pressure != "psi" && pressure != "v1" {
		return nil, message.New(
			errdefs.ErrInvalidArgument, "pressure %q: one of auto, psi, v1 is allowed", pressure,
		)
	}
	var failed []string
	if pressure != "v1" {
		psi, err := driver.NewPSI(driver.ProcPressure, c)
		if err == nil {
			return psi, nil
		}
		failed = append(failed, err.Error())
	}
	if pressure != "psi" {
		levels, err := driver.NewLevels(group)
		if err == nil {
			return levels, nil
		}
		failed = append(failed, err.Error())
	}
	return nil, message.New(
		errdefs.ErrFailedPrecondition, "pressure %q: the kernel shows none: %s", pressure,
		strings.Join(failed, "; "),
	)
}

// simulate replays a trace.
func (c Command) simulate(_ context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	kind := f.String("generate", "", "replay a synthetic trace of this `kind` in place of a file: "+
		strings.Join(simulate.Kinds, ", "))
	seed := f.Uint64("seed", 1, "`number` that chooses among synthetic traces")
	write := f.Bool("write", false, "write the trace, and do not replay it")
	asJSON := f.Bool("json", false, "write the summaries as JSON, one a line")
	if err := parse(f, args, 1, zeros...); err != nil {
		return err
	}
	if (*kind == "") == (f.NArg() == 0) {
		return message.New(
			errdefs.ErrInvalidArgument, "exactly one of TRACE and --generate is allowed",
		)
	}
	var trace *simulate.Trace
	var err error
	if *kind != "" {
		trace, err = simulate.Generate(*kind, *seed)
	} else {
		trace, err = c.readTrace(f.Arg(0))
	}
	switch {
	case err != nil:
		return err
	case *write:
		return trace.Write(out)
	case !*asJSON:
		return simulate.Report(trace, out)
	}
	for _, mode := range []simulate.Mode{
		simulate.WithPolicy, simulate.WithoutPolicy, simulate.Alone,
	} {
		err := json.NewEncoder(out).Encode(struct {
			Run string `json:"run"`
			simulate.Summary
		}{mode.String(), simulate.Run(trace, mode, nil)})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c Command) readTrace(name string) (*simulate.Trace, error) {
	r, err := c.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return simulate.Read(r)
}

// admit decides about one request.
func (c Command) admit(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("admit", flag.ContinueOnError)
	machine := machineFlags(f)
	file := f.String("c", "", "read the request from this `file`, - for standard input")
	list := f.String("containers", "", "`file` with the containers there are, as JSON, one "+
		"a line; without it, those of this machine")
	asJSON := f.Bool("json", false, "write the decision as JSON")
	if err := parse(f, args, 1, zeros...); err != nil {
		return err
	}
	if err := machine.Validate(); err != nil {
		return err
	}
	if (*file == "") == (f.NArg() == 0) {
		return message.New(
			errdefs.ErrInvalidArgument, "exactly one of REQUEST and -c FILE is allowed",
		)
	}
	if *file == "-" && *list == "-" {
		return message.New(
			errdefs.ErrInvalidArgument, "containers %q: the request is read from there", *list,
		)
	}
	text := strings.NewReader(f.Arg(0))
	requests, err := readContainers("request", text)
	if *file != "" {
		requests, err = c.containersOf("request", *file)
	}
	if err != nil {
		return err
	}
	if len(requests) != 1 {
		return message.New(
			errdefs.ErrInvalidArgument, "request: %d containers, exactly 1 is allowed",
			len(requests),
		)
	}
	all, err := c.present(ctx, *list)
	if err != nil {
		return err
	}
	d := policy.Admit(*machine, all, requests[0])
	if *asJSON {
		err = json.NewEncoder(out).Encode(d)
	} else {
		_, err = fmt.Fprintln(out, d)
	}
	if err == nil && !d.Admitted {
		return errRefused
	}
	return err
}

// present returns the containers of a file, or those of the machine.
func (c Command) present(ctx context.Context, list string) ([]policy.Container, error) {
	if list != "" {
		return c.containersOf("containers", list)
	}
	if c.Open == nil {
		return nil, message.New(
			errdefs.ErrFailedPrecondition,
			"this program has no access to containers; --containers FILE names them",
		)
	}
	source, _, err := c.Open(ctx)
	if err != nil {
		return nil, err
	}
	return driver.Measure(ctx, source, 200*time.Millisecond)
}

func (c Command) containersOf(what, name string) ([]policy.Container, error) {
	r, err := c.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer r.Close()
	return readContainers(what, r)
}

// readContainers reads containers as JSON, one a line. No name is given twice.
func readContainers(what string, r io.Reader) (all []policy.Container, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	seen := map[string]bool{}
	line := 1
	for ; sc.Scan(); line++ {
		text := bytes.TrimSpace(sc.Bytes())
		if len(text) == 0 {
			continue
		}
		var c policy.Container
		err := json.Unmarshal(text, &c)
		if err == nil {
			err = c.Validate()
		}
		if err == nil && seen[c.Name] {
			err = fmt.Errorf("name %q: it is there already", c.Name)
		}
		if err != nil {
			return nil, message.New(errdefs.ErrInvalidArgument, "%s line %d: %w", what, line, err)
		}
		seen[c.Name] = true
		all = append(all, c)
	}
	if sc.Err() != nil {
		return nil, message.New(errdefs.ErrInvalidArgument, "%s line %d: %w", what, line, sc.Err())
	}
	return all, nil
}
