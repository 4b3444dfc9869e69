// Package layering holds the test of the import rules that docs/ARCHITECTURE.md draws.
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

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// below says whether a path is that of a root, or below it. A root that ends in "/." is one
// package.
func below(path, root string) bool {
	if alone, ok := strings.CutSuffix(root, "/."); ok {
		return path == alone
	}
	return path == root || strings.HasPrefix(path, root+"/")
}

// belowAny says whether a path is below one of some roots.
func belowAny(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return below(path, root) })
}

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
			for _, from := range strings.Fields(r.From) {
				if below(path, from) && !belowAny(path, r.Except) {
					judge(t, all, p, r, from)
				}
			}
		}
	}
}

// judge reports what a package imports against a rule, of which it is an importer.
func judge(t *testing.T, all map[string]pkg, p pkg, r rule, from string) {
	t.Helper()
	for _, to := range strings.Fields(r.To) {
		through := exceptions[from+" "+to]
		for _, dep := range p.Deps {
			if !below(dep, to) || belowAny(dep, r.Except) ||
				through != "" && !direct(all, p.ImportPath, to, through) {
				continue
			}
			t.Errorf("%s imports %s: %s", p.ImportPath, dep, r.Why)
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
		// A package of another module may be gone from the graph: that is what the rule wants.
		named := slices.Concat(strings.Fields(r.From), r.Except)
		for _, to := range strings.Fields(r.To) {
			if below(to, "strake") && to != "strake/userland" {
				named = append(named, to)
			}
		}
		for _, root := range named {
			if !exists(root) {
				t.Errorf("rule %s -> %s: no package %s", r.From, r.To, root)
			}
		}
	}
	for _, through := range exceptions {
		if !exists(through) {
			t.Errorf("an exception names %s, which does not exist", through)
		}
	}
}
