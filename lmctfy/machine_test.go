package lmctfy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/internal/testneed"
	"strake/lmctfy/name"
	"strake/lmctfy/spec"
)

// version2 is where a version 2 tree is: beside those of version 1, where it has no controllers, or
// in their place.
var version2 = func() string {
	if h, err := cgroup.Detect(""); err == nil && h.Version() == 2 {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/unified"
}()

var serial atomic.Int64

// machine is a root container for one test, on the version 1 trees if root is empty.
func machine(t *testing.T, root string) (*Machine, Config) {
	t.Helper()
	testneed.Root(t, "it makes control groups")
	h, err := cgroup.Detect(root)
	if err != nil {
		t.Skip(err)
	}
	if want := map[string]int{"": 1, version2: 2}[root]; h.Version() != want {
		t.Skipf("%q: version %d of control groups is not mounted here", root, want)
	}
	cfg := Config{
		CgroupRoot: root,
		Base:       fmt.Sprintf("/strake-lmctfy-unit-%d-%d", os.Getpid(), serial.Add(1)),
	}
	t.Cleanup(func() {
		g, err := h.At(cfg.Base)
		if err == nil {
			err = g.Remove(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m, cfg
}

func parsed(t *testing.T, text string) *spec.ContainerSpec {
	t.Helper()
	s, err := spec.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, m *Machine, n name.Name, text string) *Container {
	t.Helper()
	c, _, err := m.Create(t.Context(), n, parsed(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// groups are the groups below the root container.
func groups(cfg Config) (list []string) {
	pattern := "/sys/fs/cgroup/*" + cfg.Base
	if cfg.CgroupRoot != "" {
		pattern = cfg.CgroupRoot + cfg.Base
	}
	tops, _ := filepath.Glob(pattern)
	for _, top := range tops {
		filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != top {
				list = append(list, strings.Replace(p, cfg.Base, "", 1))
			}
			return nil
		})
	}
	return list
}

// sleeper runs a process in a container until the test ends.
func sleeper(t *testing.T, c *Container) int {
	t.Helper()
	pid, err := c.Run([]string{"sleep", "1000"}, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
	})
	return pid
}

// TestOthers shows groups that another front end made, in all trees at once, as containers.
func TestOthers(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	const id = "/engine/owner/0123456789abcdef"
	limit, shares := int64(50000000&^4095), uint64(2048)
	g, err := m.host.Create(cfg.Base+id, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Shares: &shares},
	}, cgroup.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	root, err := m.Get("/")
	if err != nil {
		t.Fatal(err)
	}
	list, err := root.Children(Recursive)
	if got := fmt.Sprint(list); err != nil || got != "[/engine /engine/owner "+id+"]" {
		t.Errorf("list %s, %v", got, err)
	}
	c, err := m.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	pid := sleeper(t, c)
	if n, err := m.Detect(pid); err != nil || n != id {
		t.Errorf("detect %q, %v", n, err)
	}
	s, notes, err := c.Spec()
	if err != nil || len(notes) > 0 || s.Memory.GetLimit() != limit || s.Cpu.GetLimit() != 2000 {
		t.Errorf("spec %v, %v, %v", s, notes, err)
	}
	stats, err := c.Stats(Full)
	if err != nil || stats.Memory.GetUsage() == 0 || stats.Cpu.Usage.GetTotal() == 0 {
		t.Errorf("stats %v, %v", stats, err)
	}
	if _, err := c.Update(t.Context(), parsed(t, "cpu { limit: 500 }"), spec.Diff); err != nil {
		t.Error(err)
	}
	if s, _, _ := c.Spec(); s.Cpu.GetLimit() != 500 || s.Memory.GetLimit() != limit {
		t.Errorf("spec after the update %v", s)
	}
	err = m.Destroy(t.Context(), id, Empty)
	if !errors.Is(err, errdefs.ErrFailedPrecondition) ||
		!strings.Contains(err.Error(), "another program has made it") {
		t.Errorf("destroy: %v", err)
	}
	if err := m.Destroy(t.Context(), id, Everything); err != nil {
		t.Error(err)
	}
	for _, p := range groups(cfg) {
		if strings.HasSuffix(p, id) {
			t.Errorf("left %s", p)
		}
	}
}

// TestInUse refuses a name whose group in a tree another program has made.
func TestInUse(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	if err := m.root(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("/sys/fs/cgroup/memory"+cfg.Base+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := m.Create(t.Context(), "/x", parsed(t, "cpu {}"))
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("got %v", err)
	}
	if got := groups(cfg); len(got) != 1 {
		t.Errorf("left %q", got)
	}
}

// TestUpdateDiff leaves what the change does not name as it is in the kernel, and records what the
// kernel does not hold.
func TestUpdateDiff(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	c := create(t, m, "/x", "cpu {} memory { limit: 8192000 eviction_priority: 3 }")
	update := func(text string) *spec.ContainerSpec {
		t.Helper()
		if _, err := c.Update(t.Context(), parsed(t, text), spec.Diff); err != nil {
			t.Fatal(err)
		}
		s, _, err := c.Spec()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	file := "/sys/fs/cgroup/memory" + cfg.Base + "/x/memory.limit_in_bytes"
	if err := os.WriteFile(file, []byte("16384000"), 0); err != nil {
		t.Fatal(err)
	}
	if s := update("cpu { limit: 3000 }"); s.Memory.GetLimit() != 16384000 ||
		s.Cpu.GetLimit() != 3000 || s.Memory.GetEvictionPriority() != 3 {
		t.Errorf("after the first: %v", s)
	}
	if s := update("memory { eviction_priority: 9 }"); s.Memory.GetEvictionPriority() != 9 {
		t.Errorf("after the second: %v", s)
	}
}

// TestUnderWay shows a container neither before it is made nor while it is being removed, and lets
// other changes wait.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	m, _ := machine(t, "")
	create(t, m, "/x", "")
	create(t, m, "/y", "")
	release, err := m.lock(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := m.begin("/x", removing); err != nil {
		t.Fatal(err)
	}
	root, err := m.Get("/")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := root.Children(Self); err != nil || fmt.Sprint(list) != "[/y]" {
		t.Errorf("children %q, %v", list, err)
	}
	if _, err := m.Get("/x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.Destroy(ctx, "/y", Empty); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("destroy: %v", err)
	}
	if err := m.end("/x"); err != nil {
		t.Error(err)
	}
}

// TestBatchInUse refuses a batch container whose name is that of another program's group outside of
// /batch, which the container would be taken for.
func TestBatchInUse(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	if err := m.root(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("/sys/fs/cgroup/cpu"+cfg.Base+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := m.Create(t.Context(), "/x", parsed(t, "cpu { scheduling_latency: NORMAL }"))
	if !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("got %v", err)
	}
}

// TestForgedMark ignores a mark that the owner of a container wrote: it would make other users'
// commands remove groups.
func TestForgedMark(t *testing.T) {
	t.Parallel()
	m, _ := machine(t, "")
	c := create(t, m, "/x", "owner: 12345")
	create(t, m, "/x/y", "")
	g, err := m.group("/x")
	if err != nil {
		t.Fatal(err)
	}
	if err := setAttr(g.Dir(), pendingAttr, []byte("-y"), userSpace); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Children(Self); err != nil || len(list) != 1 {
		t.Errorf("children %q, %v", list, err)
	}
}

// TestForgedRecord does not limit the group above in place of a container that has none, whatever
// its record says.
func TestForgedRecord(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	c := create(t, m, "/x", "")
	g, err := m.group("/x")
	if err == nil {
		err = writeRecord(g.Dir(), parsed(t, "cpu {}"))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Update(t.Context(), parsed(t, "cpu { limit: 7000 }"), spec.Diff)
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("got %v", err)
	}
	raw, err := os.ReadFile("/sys/fs/cgroup/cpu" + cfg.Base + "/cpu.shares")
	if string(raw) != "1024\n" {
		t.Errorf("shares of the root container: %q, %v", raw, err)
	}
}

// TestOwner lets a user without rights manage what is in the container that is hers.
func TestOwner(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	create(t, m, "/x", "cpu {} memory {} owner: 12345 owner_group: 12345")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The user cannot reach the test program. (A file that this process writes itself may be open
	// for writing in a child of another test, and then cannot be executed.)
	dir, err := os.MkdirTemp("/tmp", "strake-lmctfy-unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "test")
	if err := errors.Join(
		os.Chmod(dir, 0o755), exec.Command("cp", self, program).Run(), os.Chmod(program, 0o755),
	); err != nil {
		t.Fatal(err)
	}
	run := func(what string) (string, error) {
		cmd := exec.Command(program)
		cmd.Env = append(
			os.Environ(), killWhat+"="+what, killBase+"="+cfg.Base+"/x", killRoot+"=",
			"STRAKE_LMCTFY_KILL_SPEC=cpu {} memory { limit: 8192000 }",
		)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: 12345, Gid: 12345, NoSetGroups: true},
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("create"); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	if _, err := m.Get("/x/x"); err != nil {
		t.Error(err)
	}
	if out, err := run("destroy"); err != nil {
		t.Fatalf("destroy: %v: %s", err, out)
	}
	if _, err := m.Get("/x/x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
}

// TestAtOnce creates and destroys one name from many goroutines: one of those that create wins.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	m, cfg := machine(t, "")
	if err := m.root(); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		var won, lost atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				s := &spec.ContainerSpec{Cpu: new(spec.CpuSpec)}
				_, _, err := m.Create(t.Context(), "/x", s)
				switch {
				case err == nil:
					won.Add(1)
				case errors.Is(err, errdefs.ErrAlreadyExists):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 || lost.Load() != 7 {
			t.Errorf("round %d: %d won, %d lost", round, won.Load(), lost.Load())
		}
		for range 4 {
			all.Go(func() {
				err := m.Destroy(t.Context(), "/x", Empty)
				if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if got := groups(cfg); len(got) > 0 {
		t.Errorf("left %q", got)
	}
}

// TestRecordIsChecked refuses a record that it does not understand.
func TestRecordIsChecked(t *testing.T) {
	t.Parallel()
	m, _ := machine(t, "")
	c := create(t, m, "/x", "")
	g, err := m.group("/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{"2", "1\xff"} {
		if err := setAttr(g.Dir(), recordAttr, []byte(raw), userSpace); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Spec(); !errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("record %q: %v", raw, err)
		}
	}
	if err := m.Destroy(t.Context(), "/x", Everything); err != nil {
		t.Error(err)
	}
}
