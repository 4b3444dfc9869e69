// Command strake-base is the userland of the image strake/base: one static program for all
// commands, chosen by the name it is called with or by its first argument. The commands themselves
// are package userland.
//
// Not for: use outside containers of that image; nothing keeps its options compatible with a
// distribution's commands.
//
// Tested by calls under several names, and by the scripts of package userland, which run the built
// program through links as the image has it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"strake/userland"
)

func main() {
	os.Exit(run(os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run picks and runs an applet and returns the exit status. true, false and echo come first:
// benchmarks and health checks run them thousands of times.
func run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name := ""
	if len(args) > 0 {
		name = filepath.Base(args[0])
		args = args[1:]
	}
	if name == "strake-base" {
		if len(args) == 0 || args[0] == "--help" {
			fmt.Fprintln(stderr, "usage: strake-base --list | strake-base APPLET [ARG]...")
			if len(args) == 0 {
				return 2
			}
			return 0
		}
		name, args = args[0], args[1:]
	}
	switch name {
	case "true":
		return 0
	case "false":
		return 1
	case "echo":
		return userland.Echo(
			&userland.Call{Name: name, Args: args, Stdout: stdout, Stderr: stderr},
		)
	case "--list":
		for _, a := range userland.Applets() {
			fmt.Fprintln(stdout, a.Name)
		}
		return 0
	}
	if rest, login := strings.CutPrefix(name, "-"); login && rest == "sh" {
		// login(1) marks a login shell by a dash before its name.
		name, args = "sh", append([]string{"-l"}, args...)
	}
	a, ok := userland.Lookup(name)
	if !ok {
		fmt.Fprintf(stderr, "strake-base: no applet %q (strake-base --list shows all)\n", name)
		return 127
	}
	c := &userland.Call{
		Name: a.Name, Args: args, Stdin: stdin, Stdout: stdout, Stderr: stderr, Env: environ,
	}
	if os.Getpid() == 1 {
		c.Exit = os.Exit
		if a.Name != "sh" { // it has traps, and does the same for what is not trapped
			userland.ExitOnSignals(c, func(os.Signal) bool { return false })
		}
	}
	return a.Serve(context.Background(), c)
}
