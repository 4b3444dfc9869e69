package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"strake/lmctfy"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// config is the text or message of -c or of an argument, of which there has to be exactly one.
func (c *call) config(position int) ([]byte, error) {
	inline := len(c.args) > position
	switch {
	case inline && c.flags.config != nil:
		return nil, fmt.Errorf(
			"-c and a specification on the command line: want one of them: %w",
			errdefs.ErrInvalidArgument,
		)
	case inline:
		return []byte(c.args[position]), nil
	case c.flags.config == nil:
		return nil, fmt.Errorf(
			"there is no specification: want one on the command line, or -c: %w",
			errdefs.ErrInvalidArgument,
		)
	}
	return c.ReadFile(*c.flags.config)
}

func (c *call) init(ctx context.Context) error {
	raw, err := c.config(0)
	if err != nil {
		return err
	}
	s, err := spec.ParseInit(raw)
	if err != nil {
		return err
	}
	return lmctfy.Init(ctx, c.Config, s)
}

func (c *call) create(ctx context.Context) error {
	raw, err := c.config(1)
	if err != nil {
		return err
	}
	s, err := spec.Parse(raw)
	if err != nil {
		return err
	}
	n, err := c.resolve(c.args[0])
	if err != nil {
		return err
	}
	_, notes, err := c.machine.Create(ctx, n, s)
	c.notes(notes)
	return err
}

func (c *call) destroy(ctx context.Context) error {
	n, err := c.resolve(c.args[0])
	if err != nil {
		return err
	}
	extent := lmctfy.Empty
	if c.flags.force {
		extent = lmctfy.Everything
	}
	return c.machine.Destroy(ctx, n, extent)
}

func (c *call) updateDiff(ctx context.Context) error { return c.update(ctx, spec.Diff) }

func (c *call) updateReplace(ctx context.Context) error { return c.update(ctx, spec.Replace) }

func (c *call) update(ctx context.Context, policy spec.Policy) error {
	raw, err := c.config(1)
	if err != nil {
		return err
	}
	s, err := spec.Parse(raw)
	if err != nil {
		return err
	}
	k, err := c.container()
	if err != nil {
		return err
	}
	notes, err := k.Update(ctx, s, policy)
	c.notes(notes)
	return err
}

// number reads a PID or a TID.
func number(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf(
			"PID/TID %q: want a number above 0: %w", text, errdefs.ErrInvalidArgument,
		)
	}
	return int(n), nil
}

func (c *call) detect(context.Context) (err error) {
	tid := c.Parent
	if len(c.args) > 0 {
		if tid, err = number(c.args[0]); err != nil {
			return err
		}
	}
	n, err := c.machine.Detect(tid)
	if err == nil {
		c.output.add("name", string(n))
	}
	return err
}

func (c *call) enter(context.Context) error {
	tids := []int{c.Parent}
	if len(c.args) > 1 {
		tids = nil
		for _, text := range c.args[1:] {
			tid, err := number(text)
			if err != nil {
				return err
			}
			tids = append(tids, tid)
		}
	}
	k, err := c.container()
	if err != nil {
		return err
	}
	return k.Enter(tids)
}

func (c *call) run(context.Context) error {
	argv := c.args[1:]
	if len(argv) == 1 && strings.Contains(argv[0], " ") {
		argv = []string{"/bin/sh", "-c", argv[0]}
	}
	k, err := c.container()
	if err != nil {
		return err
	}
	if !c.flags.noWait {
		return k.Exec(argv, c.Environ)
	}
	pid, err := k.Run(argv, c.Environ)
	if err == nil {
		c.output.add("pid", strconv.Itoa(pid))
	}
	return err
}

func (c *call) scope() lmctfy.Scope {
	if c.flags.recursive {
		return lmctfy.Recursive
	}
	return lmctfy.Self
}

func (c *call) listContainers(context.Context) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	var list []name.Name
	list, err = k.Children(c.scope())
	for _, n := range list {
		c.output.add("name", string(n))
	}
	return err
}

func (c *call) listPids(context.Context) error {
	return c.tasks("pid", (*lmctfy.Container).Processes)
}

func (c *call) listTids(context.Context) error {
	return c.tasks("tid", (*lmctfy.Container).Threads)
}

func (c *call) tasks(
	key string, list func(*lmctfy.Container, lmctfy.Scope) ([]int, error),
) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	ids, err := list(k, c.scope())
	for _, id := range ids {
		c.output.add(key, strconv.Itoa(id))
	}
	return err
}

func (c *call) statsSummary(context.Context) error { return c.stats(lmctfy.Summary) }

func (c *call) statsFull(context.Context) error { return c.stats(lmctfy.Full) }

func (c *call) stats(detail lmctfy.Detail) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	s, err := k.Stats(detail)
	if err != nil {
		return err
	}
	return c.message(s)
}

// message prints a message in the form that the flags ask for.
func (c *call) message(m proto.Message) error {
	if !c.flags.binary {
		c.output.raw(spec.Text(m))
		return nil
	}
	raw, err := spec.Binary(m)
	c.output.raw(string(raw))
	return err
}

// spec prints what is not enforced as comments of the text form; beside the binary form these lines
// go to the error output.
func (c *call) spec(context.Context) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	s, notes, err := k.Spec()
	if err != nil {
		return err
	}
	if err := c.message(s); err != nil {
		return err
	}
	if c.flags.binary {
		c.notes(notes)
		return nil
	}
	for _, u := range notes {
		c.output.raw("# " + u.String() + "\n")
	}
	return nil
}

func (c *call) notifyOOM(ctx context.Context) error {
	return c.notify(ctx, &spec.EventSpec{Oom: new(spec.EventSpec_Oom)})
}

func (c *call) notifyThreshold(ctx context.Context) error {
	n, err := strconv.ParseInt(c.args[1], 10, 64)
	if err != nil || n <= 0 {
		return fmt.Errorf(
			"threshold %q: want a number of bytes above 0: %w", c.args[1],
			errdefs.ErrInvalidArgument,
		)
	}
	return c.notify(
		ctx, &spec.EventSpec{MemoryThreshold: &spec.EventSpec_MemoryThreshold{Usage: &n}},
	)
}

func (c *call) notify(ctx context.Context, e *spec.EventSpec) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	if err := k.Wait(ctx, e); err != nil {
		return err
	}
	c.output.add("notification_status", "0")
	return nil
}

func (c *call) killall(ctx context.Context) error {
	return c.control(ctx, (*lmctfy.Container).KillAll)
}

func (c *call) pause(ctx context.Context) error {
	return c.control(ctx, (*lmctfy.Container).Pause)
}

func (c *call) resume(ctx context.Context) error {
	return c.control(ctx, (*lmctfy.Container).Resume)
}

func (c *call) control(
	ctx context.Context, do func(*lmctfy.Container, context.Context) error,
) error {
	k, err := c.container()
	if err != nil {
		return err
	}
	return do(k, ctx)
}
