package cli_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strake/lmctfy/cli"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden compares what is printed with files in testdata: the three styles, help, and the trees
// of commands.
func TestGolden(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.must("create /x ''", "create /x/y ''", "create /longer-than-twenty-columns ''")
	for name, line := range map[string]string{
		"long":      "-l list containers -r /",
		"pairs":     "list -p containers / -r",
		"values":    "list containers -r / -v",
		"lastwins":  "-v -l --lmctfy_output_style=pairs list containers /x",
		"usage":     "-h",
		"help":      "help",
		"tree":      "--lmctfy_print_cmd_tree",
		"tree-long": "--lmctfy_print_cmd_tree_long",
		"create":    "create help",
		"memory":    "notify memory help",
		"replace":   "help update replace",
		"version":   "-V",
		"outputfd":  "--lmctfy_output_fd 1 list containers -v /x",
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := r.run(line)
			if code != 0 || errs != "" {
				t.Fatalf("exit status %d: %s", code, errs)
			}
			golden(t, name, out)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestHelpOfEach asks every command for help, as "COMMAND help" and as "help COMMAND".
func TestHelpOfEach(t *testing.T) {
	t.Parallel()
	var tree strings.Builder
	if code := cli.Main(
		t.Context(), []string{"--lmctfy_print_cmd_tree_long"}, cli.System{Out: &tree},
	); code != 0 {
		t.Fatal(code)
	}
	n := 0
	for line := range strings.Lines(tree.String()) {
		_, command, _ := strings.Cut(strings.TrimSpace(line), "] ")
		if strings.Contains(line, "[root") || strings.Contains(line, "[branch") {
			continue
		}
		n++
		var first, second, errs strings.Builder
		after := append(strings.Fields(command), "help")
		before := append([]string{"help"}, strings.Fields(command)...)
		a := cli.Main(t.Context(), after, cli.System{Out: &first, Err: &errs})
		b := cli.Main(t.Context(), before, cli.System{Out: &second, Err: &errs})
		if a != 0 || b != 0 || errs.Len() > 0 || first.String() != second.String() ||
			!strings.HasPrefix(first.String(), "usage: lmctfy "+command+" ") {
			t.Errorf(
				"%s: %d %d %s%s%s", command, a, b, errs.String(), first.String(), second.String(),
			)
		}
	}
	if n != 19 {
		t.Errorf("%d commands, want 19", n)
	}
}
