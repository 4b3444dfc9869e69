package supervisor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"strake/engine"
	"strake/image"
	"strake/internal/message"
)

// views are what is to be read of containers.
type views struct {
	*core
	*layers
}

// Inspect implements engine.Containers.
func (e *views) Inspect(ctx context.Context, name string) (engine.Info, error) {
	c, err := e.find(name)
	if err != nil {
		return engine.Info{}, err
	}
	return c.snapshot(), nil
}

// List implements engine.Containers. What the copies refer to (slices and maps of Spec) is shared
// and must not be changed.
func (e *views) List(ctx context.Context) ([]engine.Info, error) {
	all := e.all()
	slices.SortFunc(all, func(a, b *container) int {
		return cmp.Or(b.created.Compare(a.created), strings.Compare(a.id, b.id))
	})
	out := make([]engine.Info, len(all))
	for i, c := range all {
		out[i] = c.snapshot()
	}
	return out, nil
}

// ImageUsers names the containers that stand on an image: image.Config.InUse.
func (e *views) ImageUsers(id digest.Digest) []image.Use {
	var out []image.Use
	for _, c := range e.all() {
		c.mu.Lock()
		if c.res.ImageID == id.String() {
			out = append(out, image.Use{Container: c.id, Running: c.run != nil})
		}
		c.mu.Unlock()
	}
	return out
}

// Usage implements Containers.
func (e *views) Usage(ctx context.Context, name string) (rw, root int64, err error) {
	c, err := e.find(name)
	if err != nil {
		return 0, 0, err
	}
	if c.res.ImageID == "" {
		return 0, 0, nil
	}
	u, err := e.images.Usage(ctx, c.rootfsKey())
	if err != nil {
		return 0, 0, err
	}
	im, err := e.images.Resolve(ctx, c.res.ImageID)
	if errdefs.IsNotFound(err) {
		// the image was removed by force; its layers have no size any more
		return u.Bytes, u.Bytes, nil
	}
	return u.Bytes, u.Bytes + im.Size, err
}

// Changes implements Containers.
func (e *views) Changes(ctx context.Context, name string) ([]engine.Change, error) {
	c, err := e.find(name)
	if err != nil {
		return nil, err
	}
	if c.res.ImageID == "" {
		return nil, message.New(
			errdefs.ErrFailedPrecondition,
			"container %s runs from a directory and has no image to compare with", name,
		)
	}
	list, err := e.images.Changes(ctx, c.rootfsKey())
	if err != nil {
		return nil, err
	}
	out := make([]engine.Change, len(list))
	for i, ch := range list {
		out[i] = engine.Change{Path: ch.Path, Kind: int(ch.Kind)}
	}
	return withoutOurs(out), nil
}

// withoutOurs leaves out the empty files that the engine's own files are mounted on, and /etc if it
// changed for nothing else.
func withoutOurs(list []engine.Change) []engine.Change {
	out := slices.DeleteFunc(list, func(c engine.Change) bool {
		return c.Kind == 1 &&
			(c.Path == "/etc/hostname" || c.Path == "/etc/hosts" || c.Path == "/etc/resolv.conf")
	})
	if len(out) < len(list) && !slices.ContainsFunc(
		out, func(c engine.Change) bool { return strings.HasPrefix(c.Path, "/etc/") },
	) {
		out = slices.DeleteFunc(out, func(c engine.Change) bool { return c.Path == "/etc" && c.Kind == 0 })
	}
	return out
}

// Stats implements Containers. A container that does not run is errdefs.ErrConflict.
func (e *views) Stats(ctx context.Context, name string) (engine.Stats, error) {
	c, err := e.find(name)
	if err != nil {
		return engine.Stats{}, err
	}
	r := c.running()
	if r == nil {
		return engine.Stats{}, notRunning(c)
	}
	s, err := r.task.Stats(ctx)
	if err != nil {
		return engine.Stats{}, fmt.Errorf("statistics of container %s: %w", c.id, err)
	}
	s.CPU.OnlineCPUs = e.host.fixed.CPUs
	if s.CPU.SystemNanos, err = systemNanos(); err != nil {
		return engine.Stats{}, err
	}
	if s.Memory.Limit == 0 || s.Memory.Limit > uint64(e.host.fixed.MemoryBytes) {
		s.Memory.Limit = uint64(e.host.fixed.MemoryBytes)
	}
	return s, nil
}

// systemNanos is the processor time of the whole host (proc_stat(5), first line, without guest
// time, which user time contains).
func systemNanos() (uint64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 8 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q: %w", line, errdefs.ErrInternal)
	}
	var ticks uint64
	for _, s := range f[1:8] {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += v
	}
	return ticks * (1e9 / 100), nil // USER_HZ is 100 on every architecture Go supports
}

// Top implements Containers. Process numbers are the host's.
func (e *views) Top(ctx context.Context, name string) ([]engine.Process, error) {
	c, err := e.find(name)
	if err != nil {
		return nil, err
	}
	r := c.running()
	if r == nil {
		return nil, notRunning(c)
	}
	pids, err := r.task.Pids()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	out := make([]engine.Process, 0, len(pids))
	for _, pid := range pids {
		if p, err := readProcess(pid, boot); err == nil {
			out = append(out, p) // others have ended meanwhile
		}
	}
	return out, nil
}

func bootTime() (time.Time, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "btime "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat has no btime: %w", errdefs.ErrInternal)
}

// readProcess reads proc_pid_stat(5) and its neighbours.
func readProcess(pid int, boot time.Time) (engine.Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return engine.Process{}, err
	}
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return engine.Process{}, err
	}
	cmd, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return engine.Process{}, err
	}
	return parseProcess(pid, string(status), string(b), cmd, boot, time.Now())
}

func parseProcess(
	pid int, status, stat string, cmdline []byte, boot, at time.Time,
) (engine.Process, error) {
	// The name is in parentheses and may contain anything, also parentheses.
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return engine.Process{}, fmt.Errorf("stat of process %d: %q: %w", pid, stat, errdefs.ErrInternal)
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 37 {
		return engine.Process{}, fmt.Errorf(
			"stat of process %d has %d fields: %w", pid, len(f), errdefs.ErrInternal,
		)
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v }
	const tick = time.Second / 100
	p := engine.Process{
		PID: pid, PPID: int(n(1)), TTY: ttyName(uint64(n(4))),
		CPUTime:   time.Duration(n(11)+n(12)) * tick,
		StartedAt: boot.Add(time.Duration(n(19)) * tick),
		Command: strings.TrimSpace(
			strings.ReplaceAll(string(bytes.TrimRight(cmdline, "\x00")), "\x00", " "),
		),
		Name: stat[open+1 : end], PGID: int(n(2)), SID: int(n(3)), TPGID: int(n(5)),
		Priority: int(n(15)), Nice: int(n(16)), Threads: int(n(17)), Processor: int(n(36)),
		VirtualBytes: n(20), ResidentBytes: n(21) * int64(os.Getpagesize()),
	}
	p.RUID, p.UID = statusIDs(status, "Uid:")
	p.RGID, p.GID = statusIDs(status, "Gid:")
	_, locked, _ := strings.Cut(status, "\nVmLck:")
	locked = strings.TrimSpace(locked)
	p.State = stateOf(f[0], &p, locked != "" && !strings.HasPrefix(locked, "0 kB"))
	if p.Command == "" {
		p.Command = "[" + stat[open+1:end] + "]"
	}
	if age := at.Sub(p.StartedAt); age > 0 {
		p.CPUPercent = int(100 * p.CPUTime / age)
	}
	return p, nil
}

// statusIDs reads the real and the effective ID of a line of proc_pid_status(5).
func statusIDs(status, key string) (real, effective int) {
	_, rest, _ := strings.Cut(status, "\n"+key)
	line, _, _ := strings.Cut(rest, "\n")
	if f := strings.Fields(line); len(f) == 4 {
		real, _ = strconv.Atoi(f[0])
		effective, _ = strconv.Atoi(f[1])
	}
	return real, effective
}

// stateOf is how ps(1) shows the state of a process, PROCESS STATE CODES.
func stateOf(letter string, p *engine.Process, locked bool) string {
	for _, flag := range []struct {
		set    bool
		letter string
	}{
		{p.Nice < 0, "<"}, {p.Nice > 0, "N"}, {locked, "L"}, {p.SID == p.PID, "s"},
		{p.Threads > 1, "l"}, {p.TPGID > 0 && p.TPGID == p.PGID, "+"},
	} {
		if flag.set {
			letter += flag.letter
		}
	}
	return letter
}

// ttyName is how ps(1) shows a terminal's device number.
func ttyName(dev uint64) string {
	switch major := unix.Major(dev); {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", uint32(major-136)*256+unix.Minor(dev))
	}
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}
