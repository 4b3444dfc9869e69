package main

import (
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container"
	"strake/container/cgroup"
)

// TestSpecNamespaces: as runc's, the configuration that spec writes has a cgroup namespace where
// version 2 is all that there is.
func TestSpecNamespaces(t *testing.T) {
	host, err := cgroup.Detect("")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	dir := t.TempDir()
	args := []string{"strake-runtime", "spec", "--bundle", dir}
	if code := run(t.Context(), args, io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	s, _, err := container.ReadConfig(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Contains(
		s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
	)
	if got != (host.Version() == 2) || len(s.Linux.Namespaces) < 5 {
		t.Errorf("cgroups of version %d: %v", host.Version(), s.Linux.Namespaces)
	}
}
