// Package layering holds the test of the import rules that docs/ARCHITECTURE.md draws.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rule forbids packages below From to import packages below To, directly or through others, and
// says why. Packages below those of Except are not judged as importers and not found as imports.
type rule struct {
	From, To, Why string
	Except        []string
}

const (
	library   = "the library stands alone"
	parsing   = "the keeper parses nothing that a user wrote"
	apart     = "capabilities do not know one another"
	downwards = "imports point downwards"
	protocol  = "the engine knows no wire protocol"
	client    = "the client speaks the API only"
	quick     = "the client starts in milliseconds"
	small     = "the runtime imports container and keeper only"
	instant   = "the runtime starts in a millisecond"
)

// logReader lists the package that only readers of logs import: it decodes what containers wrote.
var logReader = []string{"strake/keeper/logfile"}

var rules = []rule{
	{From: "strake", To: "strake/userland", Why: "the commands of strake/base are another module"},
	{From: "strake", To: "strake/internal/testneed", Why: "only tests need it"},

	{From: "strake/container", To: "strake/keeper", Why: library},
	{From: "strake/container", To: "strake/engine", Why: library},
	{From: "strake/container", To: "strake/image", Why: library},
	{From: "strake/container", To: "strake/network", Why: library},
	{From: "strake/container", To: "strake/volume", Why: library},
	{From: "strake/container", To: "net/http", Why: instant},
	{
		From: "strake/container/plan", To: "strake/container/spawn",
		Why: "a plan is pure: it runs nothing",
	},
	{
		From: "strake/container/plan", To: "strake/container/cgroup",
		Why: "a plan is pure: it touches no cgroup",
	},
	{
		From: "strake/container/program", To: "strake/container/plan",
		Why: "programs know nothing of containers",
	},

	{From: "strake/keeper", To: "strake/engine", Why: "the keeper outlives the engine"},
	{From: "strake/keeper", To: "strake/image", Why: downwards},
	{From: "strake/keeper", To: "strake/network", Why: downwards},
	{From: "strake/keeper", To: "strake/volume", Why: downwards},
	{From: "strake/keeper", To: "strake/container/plan", Why: parsing},
	{From: "strake/keeper", To: "encoding/json", Why: parsing, Except: logReader},
	{From: "strake/keeper/server", To: "strake/keeper/logfile", Why: parsing},
	{From: "strake/keeper", To: "net/http", Why: "the keeper is small"},

	{From: "strake/image", To: "strake/network", Why: apart},
	{From: "strake/image", To: "strake/volume", Why: apart},
	{From: "strake/network", To: "strake/image", Why: apart},
	{From: "strake/network", To: "strake/volume", Why: apart},
	{From: "strake/volume", To: "strake/image", Why: apart},
	{From: "strake/volume", To: "strake/network", Why: apart},
	{From: "strake/image", To: "strake/engine", Why: downwards},
	{From: "strake/network", To: "strake/engine", Why: downwards},
	{From: "strake/volume", To: "strake/engine", Why: downwards},
	{From: "strake/internal", To: "strake/engine", Why: downwards},

	{From: "strake/engine", To: "strake/api", Why: protocol},
	{From: "strake/engine", To: "net/http", Why: protocol},
	{From: "strake/engine", To: "strake/cli", Why: downwards},
	{From: "strake/api", To: "strake/cli", Why: downwards},

	{From: "strake/cli", To: "strake/api", Why: client},
	{From: "strake/cli", To: "strake/engine", Why: client},
	{From: "strake/cli", To: "strake/keeper", Why: client},
	{From: "strake/cli", To: "strake/container", Why: client},
	{From: "strake/cli", To: "strake/image", Why: client},
	{From: "strake/cli", To: "strake/network", Why: client},
	{From: "strake/cmd/strake", To: "strake/engine", Why: client},
	{From: "strake/cmd/strake", To: "google.golang.org/grpc", Why: quick},
	{From: "strake/cmd/strake", To: "google.golang.org/protobuf", Why: quick},
	{From: "strake/cmd/strake", To: "go.opentelemetry.io", Why: quick},
	{From: "strake/cmd/strake", To: "github.com/moby/moby/api", Why: quick},

	{From: "strake/cmd/strake-runtime", To: "strake/engine", Why: small},
	{From: "strake/cmd/strake-runtime", To: "strake/image", Why: small},
	{From: "strake/cmd/strake-runtime", To: "strake/network", Why: small},
	{From: "strake/cmd/strake-runtime", To: "strake/volume", Why: small},
	{From: "strake/cmd/strake-runtime", To: "strake/cli", Why: small},
	{From: "strake/cmd/strake-runtime", To: "net/http", Why: instant},
	{From: "strake/cmd/strake-runtime", To: "google.golang.org", Why: instant},
	{From: "strake/cmd/strake-runtime", To: "github.com/containerd/containerd", Why: instant},
}

// exceptions names, for a rule written "From To", the package through which From may reach To: the
// engine gets net/http with the registry client of images.
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
			spared := func(p string) bool {
				return slices.ContainsFunc(r.Except, func(e string) bool { return below(p, e) })
			}
			if !below(path, r.From) || spared(path) {
				continue
			}
			through := exceptions[r.From+" "+r.To]
			for _, dep := range p.Deps {
				if !below(dep, r.To) || spared(dep) ||
					through != "" && !direct(all, path, r.To, through) {
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
		for _, e := range r.Except {
			if !exists(e) {
				t.Errorf("rule %s -> %s: no package %s, which it excepts", r.From, r.To, e)
			}
		}
	}
}

// promised finds what a package comment says of the package's tests.
var promised = regexp.MustCompile(`(?m)^// Tested (by|with|against) `)

// without are packages whose comment promises tests that do not exist yet.
var without = []string{"network/firewall", "network/ipam", "network/resolver"}

// TestPromisedTestsExist: a package whose comment says how it is tested has tests.
func TestPromisedTestsExist(t *testing.T) {
	t.Parallel()
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		sources, err := filepath.Glob(filepath.Join(path, "*.go"))
		if err != nil {
			return err
		}
		promises, tests := false, false
		for _, s := range sources {
			if strings.HasSuffix(s, "_test.go") {
				tests = true
				continue
			}
			raw, err := os.ReadFile(s)
			if err != nil {
				return err
			}
			promises = promises || promised.Match(raw)
		}
		name, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		if promises {
			found++
		}
		if promises && !tests && !slices.Contains(without, name) {
			t.Errorf("the comment of package %s promises tests; it has none", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 30 {
		t.Errorf("%d packages promise tests; the search is broken", found)
	}
}
