// Command mkbase compiles strake-base and writes the archive of the image strake/base, which the
// main module embeds. It is run in the root directory of this module.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"strake/userland"
	"strake/userland/archive"
)

func main() {
	out := flag.String("o", "../image/base/embed", "`directory` for the archive")
	arch := flag.String("arch", runtime.GOARCH, "`architecture`")
	flag.Parse()
	if err := run(*out, *arch); err != nil {
		fmt.Fprintln(os.Stderr, "mkbase:", err)
		os.Exit(1)
	}
}

func run(out, arch string) error {
	dir, err := os.MkdirTemp("", "mkbase")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "strake-base")
	// Without the version control system's stamp the archive depends on this module's sources
	// alone: a commit elsewhere does not change the image.
	cmd := exec.Command(
		"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program,
		"strake/userland/strake-base",
	)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, msg)
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var names []string
	for _, a := range userland.Applets() {
		names = append(names, a.Name)
	}
	var b bytes.Buffer
	if err := archive.Write(&b, arch, raw, append(names, "true", "false", "echo")); err != nil {
		return err
	}
	tmp := filepath.Join(out, "."+archive.File(arch))
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(out, archive.File(arch)))
}
