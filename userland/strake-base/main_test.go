package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"strake/userland"
)

func TestRun(t *testing.T) {
	t.Parallel()
	env := []string{"PATH=/bin", "HOME=/", "GREETING=hello"}
	for name, c := range map[string]struct {
		args         []string
		stdin        string
		status       int
		out, errPart string
	}{
		"by the name it is called": {args: []string{"/bin/cat"}, stdin: "text\n", out: "text\n"},
		"by its first argument":    {args: []string{"strake-base", "basename", "/a/b"}, out: "b\n"},
		"true":                     {args: []string{"true", "ignored"}},
		"false":                    {args: []string{"/bin/false"}, status: 1},
		"echo":                     {args: []string{"echo", "-n", "a", "b"}, out: "a b"},
		"a status is passed on":    {args: []string{"sh", "-c", "exit 7"}, status: 7},
		"the environment passes":   {args: []string{"sh", "-c", "echo $GREETING"}, out: "hello\n"},
		"a login shell":            {args: []string{"-sh", "-c", "echo $0"}, out: "sh\n"},
		"no other login program": {
			args: []string{"-cat"}, status: 127, errPart: `no applet "-cat"`,
		},
		"an unknown applet": {
			args: []string{"strake-base", "nonesuch"}, status: 127, errPart: `no applet "nonesuch"`,
		},
		"no applet": {args: []string{"strake-base"}, status: 2, errPart: "usage: strake-base"},
		"help":      {args: []string{"strake-base", "--help"}, errPart: "usage: strake-base"},
		"no name":   {args: nil, status: 127, errPart: `no applet ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			status := run(c.args, env, strings.NewReader(c.stdin), &out, &errs)
			if status != c.status || out.String() != c.out ||
				!strings.Contains(errs.String(), c.errPart) || c.errPart == "" && errs.Len() > 0 {
				t.Errorf("status %d, output %q, errors %q; want %d, %q, errors with %q",
					status, &out, &errs, c.status, c.out, c.errPart)
			}
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	if status := run([]string{"strake-base", "--list"}, nil, nil, &out, &errs); status != 0 {
		t.Fatalf("status %d, %s", status, &errs)
	}
	var want []string
	for _, a := range userland.Applets() {
		want = append(want, a.Name)
	}
	if got := strings.Fields(out.String()); !slices.Equal(got, want) || len(got) < 70 {
		t.Errorf("got %v, want %v", got, want)
	}
}
