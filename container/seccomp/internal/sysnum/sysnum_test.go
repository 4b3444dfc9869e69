package sysnum

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The committed table is what the generator makes of the golang.org/x/sys that go.mod names.
func TestTableIsInStep(t *testing.T) {
	t.Parallel()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil || len(bytes.TrimSpace(dir)) == 0 {
		t.Skipf("needs the go command and golang.org/x/sys in the module cache: %v", err)
	}
	want, err := Render(string(bytes.TrimSpace(dir)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../tables.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("tables.go is not what go generate makes; run it")
	}
}

// x32 is the one table with rules of our own: it agrees with the kernel's header where that is
// installed.
func TestX32AgreesWithTheHeader(t *testing.T) {
	t.Parallel()
	header, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/unistd_x32.h")
	if err != nil {
		t.Skipf("needs the kernel's headers for x86_64: %v", err)
	}
	table, err := os.ReadFile("../../tables.go")
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]int{}
	for _, m := range regexp.MustCompile(
		`\{"(\w+)", \[\.\.\.\]int16\{-?\d+, -?\d+, (-?\d+),`,
	).FindAllSubmatch(table, -1) {
		ours[string(m[1])], _ = strconv.Atoi(string(m[2]))
	}
	n := 0
	for _, m := range regexp.MustCompile(
		`__NR_(\w+) \(__X32_SYSCALL_BIT \+ (\d+)\)`,
	).FindAllSubmatch(header, -1) {
		want, _ := strconv.Atoi(string(m[2]))
		if got, ok := ours[string(m[1])]; !ok || got != want {
			t.Errorf("x32 %s = %d, want %d", m[1], got, want)
		}
		n++
	}
	if n < 300 {
		t.Errorf("only %d calls compared", n)
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, dir, abi, text string) {
		if err := os.MkdirAll(filepath.Join(dir, "unix"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(
			filepath.Join(dir, "unix", "zsysnum_linux_"+abi+".go"), []byte(text), 0o644,
		); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("no such directory", func(t *testing.T) {
		if _, err := Render(t.TempDir()); err == nil ||
			!strings.Contains(err.Error(), "zsysnum_linux_amd64.go") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a file in another format", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "amd64", "const SYS_READ = 0\n")
		if _, err := Render(dir); err == nil ||
			!strings.Contains(err.Error(), "only 0 system calls") {
			t.Errorf("got %v", err)
		}
	})
}
