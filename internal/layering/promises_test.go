package layering

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// source is what this test knows of a directory with Go files, in either module.
type source struct {
	comment string          // of the package, in one line
	tests   map[string]bool // names of the functions of its test files that go test calls
	suite   bool            // it is no test and imports testing: others call its tests
}

func (s *source) tested() bool { return len(s.tests) > 0 || s.suite }

// sources parses all packages below a directory. Keys are paths relative to it, with slashes.
func sources(t *testing.T, root string) map[string]*source {
	t.Helper()
	all := map[string]*source{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		if all[dir] == nil {
			all[dir] = &source{tests: map[string]bool{}}
		}
		return all[dir].add(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// add adds a file of the package.
func (s *source) add(name string) error {
	f, err := parser.ParseFile(
		token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution,
	)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(name, "_test.go") {
		s.comment += strings.Join(strings.Fields(f.Doc.Text()), " ") + " "
		s.suite = s.suite || slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool {
			return i.Path.Value == `"testing"`
		})
		return nil
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && testName.MatchString(fn.Name.Name) {
			s.tests[fn.Name.Name] = true
		}
	}
	return nil
}

var (
	testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example)($|[^a-z])`)
	// promise is the sentence of a package comment that says how the package is tested.
	promise = regexp.MustCompile(`(?:^|[.:)] )Tested (.*?)\.(?: |$)`)
	// named are packages in such a sentence: "package image", "cmd/straked".
	named = regexp.MustCompile(`\bpackage ([a-z][\w/]*)|\b([a-z]\w*(?:/\w+)+)`)
	// quoted are tests that a document names: `TestLife`, `cmd/straked.TestFaults/rename`.
	quoted = regexp.MustCompile(
		"`(?:([a-z][\\w/]*)\\.)?((?:Test|Fuzz|Benchmark)[A-Z]\\w*)(?:/[^`]*)?`",
	)
)

// find returns the packages that a name stands for: the path, or the end of one.
func find(all map[string]*source, name string) (found []*source) {
	for dir, s := range all {
		if dir == name || strings.HasSuffix(dir, "/"+name) {
			found = append(found, s)
		}
	}
	return found
}

// broken says what is wrong with the promises of a package's comment, and how many it has.
func broken(all map[string]*source, dir string) (wrong []string, promises int) {
	for _, m := range promise.FindAllStringSubmatch(all[dir].comment, -1) {
		promises++
		others := 0
		for _, n := range named.FindAllStringSubmatch(m[1], -1) {
			top, _, _ := strings.Cut(n[2], "/")
			if n[1] == "" && !isTop(all, top) {
				continue // encoding/json
			}
			others++
			found := find(all, n[1]+n[2])
			if !slices.ContainsFunc(found, (*source).tested) {
				wrong = append(wrong, fmt.Sprintf(
					"says that package %s tests it; that does not exist or has no test", n[1]+n[2],
				))
			}
		}
		if len(all[dir].tests) == 0 && others == 0 {
			wrong = append(wrong, fmt.Sprintf(
				"promises tests (%q); it has none and names no package that has", m[1],
			))
		}
	}
	return wrong, promises
}

// isTop says whether there are packages below a directory of the root.
func isTop(all map[string]*source, top string) bool {
	for dir := range all {
		if strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// TestPromisedTestsExist: a package whose comment says how it is tested has tests, or names a
// package that has them.
func TestPromisedTestsExist(t *testing.T) {
	t.Parallel()
	all := sources(t, "../..")
	found := 0
	for dir := range all {
		wrong, promises := broken(all, dir)
		found += promises
		for _, w := range wrong {
			t.Errorf("the comment of package %s %s", dir, w)
		}
	}
	if found < 50 {
		t.Errorf("%d packages promise tests; the search is broken", found)
	}
}

// missing lists the tests that a document names and that do not exist, and counts those it names. A
// name alone is of the package that the document has named last.
func missing(all map[string]*source, text string) (wrong []string, names int) {
	last := ""
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		names++
		if m[1] != "" {
			last = m[1]
		}
		has := func(s *source) bool { return s.tests[m[2]] }
		if !slices.ContainsFunc(find(all, last), has) {
			wrong = append(wrong, last+"."+m[2])
		}
	}
	return wrong, names
}

// TestDocumentedTestsExist: a test that a document names exists.
func TestDocumentedTestsExist(t *testing.T) {
	t.Parallel()
	all := sources(t, "../..")
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range append(docs, more...) {
		raw, err := os.ReadFile(d)
		if err != nil {
			t.Fatal(err)
		}
		wrong, names := missing(all, string(raw))
		found += names
		for _, w := range wrong {
			t.Errorf("%s names the test %s, which does not exist", path.Base(d), w)
		}
	}
	if found < 20 {
		t.Errorf("the documents name %d tests; the search is broken", found)
	}
}

// TestPromisesAreRead: the two checks find what they are for.
func TestPromisesAreRead(t *testing.T) {
	t.Parallel()
	all := map[string]*source{
		"a":       {comment: "Package a. Not for: x. Tested by tables. ", tests: tests()},
		"b":       {comment: "Package b. Tested by tables. ", tests: tests("TestB")},
		"c":       {comment: "Package c. Tested in package d, not encoding/json. ", tests: tests()},
		"e/d":     {comment: "Package d. ", tests: tests("TestD", "FuzzD")},
		"e/f":     {comment: "Package f. Tested with e/gone, by a fake. ", tests: tests("TestF")},
		"e/suite": {comment: "Package suite. ", tests: tests(), suite: true},
		"g":       {comment: "Package g. It is fast. Tested by e/suite. ", tests: tests()},
		"h":       {comment: "Package h. Tested with encoding/json. ", tests: tests()},
	}
	var bad []string
	for dir := range all {
		if wrong, _ := broken(all, dir); len(wrong) > 0 {
			bad = append(bad, dir)
		}
	}
	slices.Sort(bad)
	if got, want := strings.Join(bad, " "), "a e/f h"; got != want {
		t.Errorf("broken promises of %q, want those of %q", got, want)
	}
	text := "`b.TestB`, `TestC`; `d.TestD/case`, `FuzzD`, `FuzzE`; `e/d.FuzzD`; `x.TestD`; TestZ"
	wrong, names := missing(all, text)
	if got, want := strings.Join(wrong, " "), "b.TestC d.FuzzE x.TestD"; got != want || names != 7 {
		t.Errorf("missing %q of %d, want %q of 7", got, names, want)
	}
}

func tests(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}
