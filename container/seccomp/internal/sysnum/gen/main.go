// Command gen writes the system call table of package seccomp to the file named by its argument.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"

	"strake/container/seccomp/internal/sysnum"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: gen FILE")
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return fmt.Errorf("find golang.org/x/sys: %w", err)
	}
	src, err := sysnum.Render(string(bytes.TrimSpace(dir)))
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], src, 0o644)
}
