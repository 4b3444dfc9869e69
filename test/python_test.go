package test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"strake/internal/testneed"
)

// TestPythonClient drives the engine through Docker's client library for Python, as it is in
// Debian: in loops that show what the docker command line's waiting hides.
func TestPythonClient(t *testing.T) {
	r := start(t)
	python := testneed.Program(t, "/usr/bin/python3", "python3")
	testneed.File(t, "/usr/lib/python3/dist-packages/docker/__init__.py", "python3-docker")
	for _, c := range []struct {
		name   string
		rounds int
	}{
		{"attach", 150}, {"terminal", 100}, {"run", 60}, {"exec_run", 60}, {"logs", 60},
		{"wait", 300}, {"events", 60}, {"address", 12}, {"contend", 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(
				ctx, python, "testdata/client.py", r.socket(), c.name, strconv.Itoa(c.rounds),
			)
			cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+r.dir, "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			r.docker("rm", "-f", "target0", "target1")
		})
	}
}
