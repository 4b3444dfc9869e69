// Package layering holds the test of the import rules that docs/ARCHITECTURE.md draws.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// rule forbids packages below From to import packages below To, directly or through others, and
// says why.
type rule struct{ From, To, Why string }

var rules = []rule{
	{"strake", "strake/userland", "the commands of strake/base are a module of their own"},
	{"strake/container", "strake/keeper", "the library stands alone"},
	{"strake/container", "strake/engine", "the library stands alone"},
	{"strake/container", "strake/image", "the library stands alone"},
	{"strake/container", "strake/network", "the library stands alone"},
	{"strake/container", "net/http", "the runtime starts in a millisecond"},
	{"strake/container/plan", "strake/container/spawn", "a plan is pure: it runs nothing"},
	{"strake/container/plan", "strake/container/cgroup", "a plan is pure: it touches no cgroup"},
	{"strake/container/program", "strake/container/plan", "programs know nothing of containers"},
	{"strake/keeper", "strake/engine", "the keeper outlives the engine"},
	{"strake/keeper", "strake/container/plan", "the keeper parses nothing that a user wrote"},
	{"strake/keeper", "encoding/json", "the keeper parses nothing that a user wrote"},
	{"strake/keeper", "net/http", "the keeper is small"},
	{"strake/image", "strake/network", "capabilities do not know one another"},
	{"strake/network", "strake/image", "capabilities do not know one another"},
	{"strake/image", "strake/engine", "imports point downwards"},
	{"strake/network", "strake/engine", "imports point downwards"},
	{"strake/engine", "strake/api", "the engine knows no wire protocol"},
	{"strake/engine", "net/http", "the engine knows no wire protocol"},
	{"strake/cli", "strake/engine", "the client speaks the API only"},
	{"strake/cmd/strake", "strake/engine", "the client speaks the API only"},
	{"strake/cmd/strake", "google.golang.org/grpc", "the client starts in milliseconds"},
	{"strake/cmd/strake", "google.golang.org/protobuf", "the client starts in milliseconds"},
	{"strake/cmd/strake", "go.opentelemetry.io", "the client starts in milliseconds"},
	{"strake/cmd/strake-runtime", "strake/engine", "the runtime imports container and keeper only"},
	{"strake/cmd/strake-runtime", "strake/image", "the runtime imports container and keeper only"},
	{
		"strake/cmd/strake-runtime", "strake/network",
		"the runtime imports container and keeper only",
	},
	{"strake/cmd/strake-runtime", "strake/cli", "the runtime imports container and keeper only"},
	{"strake/cmd/strake-runtime", "net/http", "the runtime starts in a millisecond"},
	{"strake/cmd/strake-runtime", "google.golang.org", "the runtime starts in a millisecond"},
	{
		"strake/cmd/strake-runtime", "github.com/containerd/containerd",
		"the runtime starts in a millisecond",
	},
}

// engineNetHTTP lists what may pull net/http into the engine's dependencies: the registry client of
// images.
var exceptions = map[string]string{
	"strake/engine net/http": "strake/image",
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func load(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command(
		"go", "list", "-deps", "-json=ImportPath,Imports,Deps", "strake/...",
	).Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v: %s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	all := make(map[string]pkg)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

func TestImportsPointDownwards(t *testing.T) {
	t.Parallel()
	all := load(t)
	for path, p := range all {
		for _, r := range rules {
			if !below(path, r.From) || strings.HasPrefix(path, "strake/cmd/strake-") &&
				r.From == "strake/cmd/strake" {
				continue
			}
			through := exceptions[r.From+" "+r.To]
			for _, dep := range p.Deps {
				if !below(dep, r.To) || through != "" && !direct(all, path, r.To, through) {
					continue
				}
				t.Errorf("%s imports %s: %s", path, dep, r.Why)
			}
		}
	}
}

// direct says whether path reaches to without going through the excepted package.
func direct(all map[string]pkg, path, to, through string) bool {
	seen := map[string]bool{}
	var walk func(string) bool
	walk = func(at string) bool {
		if below(at, to) {
			return true
		}
		if seen[at] || below(at, through) {
			return false
		}
		seen[at] = true
		for _, next := range all[at].Imports {
			if (below(next, "strake") || below(next, to)) && walk(next) {
				return true
			}
		}
		return false
	}
	return walk(path)
}

// TestRulesAreAlive keeps the table from naming packages that do not exist any more, whose rules
// would hold of nothing.
func TestRulesAreAlive(t *testing.T) {
	t.Parallel()
	all := load(t)
	exists := func(root string) bool {
		for path := range all {
			if below(path, root) {
				return true
			}
		}
		return false
	}
	for _, r := range rules {
		if !exists(r.From) {
			t.Errorf("rule %s -> %s: no package %s", r.From, r.To, r.From)
		}
	}
}
