package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// modules are all third-party modules of the programs whose start-up time and trust are features,
// with what each is for. A new module must be added here.
var modules = map[string]map[string]string{
	"strake/cmd/strake": {
		"github.com/containerd/errdefs": "classes of errors",
		"github.com/spf13/pflag":        "flags as Docker's client parses them",
		"golang.org/x/sys":              "system calls",
		"golang.org/x/term":             "terminals",
	},
	"strake/cmd/strake-runtime": {
		"github.com/containerd/errdefs":          "classes of errors",
		"github.com/opencontainers/runtime-spec": "the configuration's types",
		"golang.org/x/sys":                       "system calls",
		"golang.org/x/term":                      "terminals",
	},
}

// heavy are packages that cost milliseconds or megabytes, of the standard library too. A program has
// one only if its module is named above.
var heavy = []string{
	"net/http", "crypto/tls", "google.golang.org/grpc", "google.golang.org/protobuf",
	"go.opentelemetry.io", "github.com/sirupsen/logrus", "github.com/spf13/cobra",
}

func TestModulesArePinned(t *testing.T) {
	t.Parallel()
	for program, allowed := range modules {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			found, packages := dependencies(t, program)
			for module, through := range found {
				if allowed[module] == "" {
					t.Errorf(
						"%s comes from module %s, which is not allowed in %s", through, module,
						program,
					)
				}
			}
			for module := range allowed {
				if found[module] == "" {
					t.Errorf("module %s is allowed in %s and not used there", module, program)
				}
			}
			for _, p := range packages {
				if slices.ContainsFunc(heavy, func(root string) bool {
					return below(p, root) && allowed[root] == ""
				}) {
					t.Errorf("%s imports %s, which costs too much at every start", program, p)
				}
			}
		})
	}
}

// dependencies are a program's modules other than strake, each with a package of it, and its
// packages.
func dependencies(t *testing.T, program string) (found map[string]string, packages []string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Module", program).Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v: %s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	found = map[string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Module     *struct{ Path string }
		}
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return found, packages
		case err != nil:
			t.Fatal(err)
		}
		packages = append(packages, p.ImportPath)
		if p.Module != nil && p.Module.Path != "strake" {
			found[p.Module.Path] = p.ImportPath
		}
	}
}
