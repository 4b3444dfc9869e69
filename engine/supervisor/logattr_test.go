package supervisor

import (
	"testing"

	"github.com/containerd/errdefs"

	"strake/engine"
)

// TestLogAttributes: labels, variables and the tag are written beside each line, by the name that
// the container has at its start, and the engine's defaults hold for options that it does not name.
func TestLogAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open(func(c *Config) {
		c.LogDefaults = engine.LogConfig{Labels: "x", Tag: "{{.Name}}"}
	})
	spec := w.spec("box", "")
	spec.Labels, spec.Env = map[string]string{"x": "1", "y": "2"}, []string{"V=3"}
	spec.Log = engine.LogConfig{Labels: "y", EnvRegex: "^V"}
	id := w.start(e, spec)
	if got, want := w.tasks.log.Attributes, `{"V":"3","tag":"box","y":"2"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.untilStatus(e, id, engine.Exited)
	if err := e.Rename(t.Context(), id, "other"); err != nil {
		t.Fatal(err)
	}
	e = w.reopen(e) // without the defaults, which the container has kept
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got, want := w.tasks.log.Attributes, `{"V":"3","tag":"other","y":"2"}`; got != want {
		t.Errorf("renamed: got %s, want %s", got, want)
	}
	spec.Name, spec.Log.Tag = "bad", "{{.Nothing}}"
	if _, _, err := e.Create(t.Context(), spec); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
