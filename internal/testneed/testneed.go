// Package testneed lets a test say what it needs of the machine that it runs on.
//
// A test that lacks something is skipped with the reason, so that `go test` works anywhere. Where
// STRAKE_TEST_STRICT is set in the environment the test fails instead: `make test` sets it, because
// scripts/need has installed each package that is named here. A new package goes there too.
//
// Not for: what no package brings, such as a kernel of a certain version. Those tests call t.Skip.
//
// Tested with a recorder in the place of the test.
package testneed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Strict is the variable in the environment that turns a skip into a failure.
const Strict = "STRAKE_TEST_STRICT"

// T is what this package uses of testing.TB.
type T interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}

// Program returns the path of a program that the Debian package brings. It is looked for in PATH
// and in the directories of administrators, which the PATH of a user lacks.
func Program(t T, name, debianPackage string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	Lack(t, fmt.Sprintf("%s (package %s)", name, debianPackage))
	return ""
}

// File returns a path if the file, which the Debian package brings, exists.
func File(t T, path, debianPackage string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Lack(t, fmt.Sprintf("%s (package %s)", path, debianPackage))
	}
	return path
}

// Root requires the effective user to be root, whose powers the reason names.
func Root(t T, reason string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lack(t, "root: "+reason)
	}
}

// Lack skips the test because of something that `make test` provides and this run lacks, or fails
// it where [Strict] is set. It does not return.
func Lack(t T, what string) {
	t.Helper()
	if os.Getenv(Strict) != "" {
		t.Fatal("needs " + what + ", and " + Strict + " is set")
	}
	t.Skip("needs " + what)
}
