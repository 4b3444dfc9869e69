package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/cli"
)

// wrong is a command line that fails.
type wrong struct {
	before []string // command lines that succeed
	line   string
	code   int
	want   string
}

// readWrong reads testdata/wrong.txt, blocks with an empty line between them: command lines that
// come before, each after "> "; the one that fails, after "$ "; its exit status; and what it says.
func readWrong(t *testing.T) (list []wrong) {
	t.Helper()
	raw, err := os.ReadFile("testdata/wrong.txt")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n\n") {
		var w wrong
		lines := strings.Split(block, "\n")
		for len(lines) > 0 && strings.HasPrefix(lines[0], "> ") {
			w.before, lines = append(w.before, lines[0][2:]), lines[1:]
		}
		if len(lines) < 3 || !strings.HasPrefix(lines[0], "$") {
			t.Fatalf("block %q", block)
		}
		w.line = strings.TrimPrefix(lines[0][1:], " ")
		if w.code, err = strconv.Atoi(lines[1]); err != nil {
			t.Fatalf("block %q: %v", block, err)
		}
		w.want = strings.Join(lines[2:], "\n")
		list = append(list, w)
	}
	return list
}

// TestWrong runs command lines that fail, with the whole text of the error and the exit status.
// Nothing is left of them.
func TestWrong(t *testing.T) {
	t.Parallel()
	for _, c := range readWrong(t) {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.write("text", "cpu {}")
			r.must(c.before...)
			before := fmt.Sprint(r.groups())
			line := strings.ReplaceAll(c.line, "$ZEROS", strings.Repeat("0,", 127))
			out, errs, code := r.run(line)
			want := "lmctfy: " + r.expand(c.want) + "\n"
			if out != "" || errs != want || code != c.code {
				t.Errorf(
					"exit status %d, want %d: %s%s\nwant %s", code, c.code, out, errs, want,
				)
			}
			if after := fmt.Sprint(r.groups()); after != before {
				t.Errorf("groups before %s, after %s", before, after)
			}
		})
	}
}

// TestStatus compares exit statuses with the canonical codes.
func TestStatus(t *testing.T) {
	t.Parallel()
	for want, errs := range map[int][]error{
		0: {nil}, 2: {errors.New("x")}, 3: {errdefs.ErrInvalidArgument},
		5: {errdefs.ErrNotFound, os.ErrNotExist, unix.ENOENT}, 6: {errdefs.ErrAlreadyExists},
		7: {errdefs.ErrPermissionDenied, unix.EPERM, unix.EACCES},
		8: {errdefs.ErrResourceExhausted, unix.ENOSPC}, 9: {errdefs.ErrFailedPrecondition},
		10: {errdefs.ErrAborted}, 11: {errdefs.ErrOutOfRange}, 12: {errdefs.ErrNotImplemented},
		13: {errdefs.ErrInternal}, 14: {errdefs.ErrUnavailable}, 15: {errdefs.ErrDataLoss},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("more: %w", err)
			}
			if got, _ := cli.Status(err); got != want {
				t.Errorf("%v: got %d, want %d", err, got, want)
			}
		}
	}
}

// TestNotEnforced checks the lines about what the host cannot do, and that the specification keeps
// them.
func TestNotEnforced(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	_, errs, code := r.run(
		"create /x 'memory:{dirty:{ratio:5} stale_page_age:3} filesystem:{fd_limit:9}'",
	)
	const want = "memory.stale_page_age: not enforced: this kernel has no memory.stale_page_age\n" +
		"memory.dirty.ratio: not enforced: this kernel has no memory.dirty_ratio\n" +
		"filesystem.fd_limit: not enforced: no version of Linux limits the descriptors of a group\n"
	var prefixed, comments bytes.Buffer
	for line := range strings.Lines(want) {
		prefixed.WriteString("lmctfy: " + line)
		comments.WriteString("# " + line)
	}
	if code != 0 || errs != prefixed.String() {
		t.Errorf("create: exit status %d: %s\nwant %s", code, errs, prefixed.String())
	}
	out, errs, _ := r.run("spec /x")
	if !strings.HasSuffix(out, comments.String()) || errs != "" ||
		!strings.Contains(out, "ratio: 5") || !strings.Contains(out, "fd_limit: 9") {
		t.Errorf("spec: %s%s", out, errs)
	}
	// The text form can be given back, comments and all.
	r.write("spec", out)
	if _, errs, code := r.run("update replace /x -c $DIR/spec"); code != 0 {
		t.Errorf("update: exit status %d: %s", code, errs)
	}
	if _, errs, _ := r.run("spec -b /x"); errs != prefixed.String() {
		t.Errorf("spec -b: %s", errs)
	}
}
