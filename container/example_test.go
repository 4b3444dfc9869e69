package container_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container"
)

// runBundle runs the container of an OCI bundle to its end and returns its exit status. state is a
// directory for containers that run, on a tmpfs such as /run.
func runBundle(ctx context.Context, state, bundle string) (int, error) {
	spec, raw, err := container.ReadConfig(filepath.Join(bundle, "config.json"))
	if err != nil {
		return 0, err
	}
	rt := container.Runtime{Root: state}
	c, p, err := rt.Create(ctx, container.CreateOptions{
		ID: "one", Bundle: bundle, Spec: spec, Raw: raw,
	})
	if err != nil {
		return 0, err // which names the field of the configuration; nothing is left
	}
	defer p.Close()
	status, err := p.Wait()
	return status.ExitStatus(), errors.Join(err, c.Delete(ctx, true))
}

// Example runs a bundle. It needs root.
func Example() {
	status, err := runBundle(context.Background(), "/run/my-program", "/srv/bundle")
	fmt.Println(status, err)
}

// ExampleContainer_Exec adds a process to a running container.
func ExampleContainer_Exec() {
	ctx := context.Background()
	rt := container.Runtime{Root: "/run/my-program"}
	c, err := rt.Load("one")
	if err != nil {
		fmt.Println(err)
		return
	}
	process := *c.Spec().Process
	process.Args, process.Terminal = []string{"ps"}, false
	p, err := c.Exec(ctx, container.ExecOptions{Process: &process})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.Wait())
}

// ExampleRuntime_Create prints the system calls that a container would be, and makes nothing.
func ExampleRuntime_Create() {
	spec, _, err := container.ReadConfig("/srv/bundle/config.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	rt := container.Runtime{Root: "/run/my-program"}
	_, _, err = rt.Create(context.Background(), container.CreateOptions{
		ID: "one", Bundle: "/srv/bundle", Spec: spec, Explain: os.Stdout,
	})
	fmt.Println(err)
}

// TestExample runs the first example, on a bundle with busybox.
func TestExample(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (package busybox-static)")
	}
	bundle := t.TempDir()
	raw, err := json.Marshal(&specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/busybox", "sh", "-c", "exit 7"}, Cwd: "/"},
		Linux: &specs.Linux{
			CgroupsPath: fmt.Sprintf("/strake-example-%d", os.Getpid()),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(bundle, "rootfs")
	if err := errors.Join(
		os.WriteFile(filepath.Join(bundle, "config.json"), raw, 0o644),
		os.MkdirAll(filepath.Join(root, "dev"), 0o755),
		os.WriteFile(filepath.Join(root, "busybox"), box, 0o755),
	); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	if status, err := runBundle(t.Context(), state, bundle); status != 7 || err != nil {
		t.Errorf("got status %d, %v, want 7", status, err)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("child %d is left, %v", pid, err)
	}
}
