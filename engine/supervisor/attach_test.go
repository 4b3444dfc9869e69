package supervisor

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"strake/engine"
)

// TestFeed holds what input reaches a process before, beside and after detach keys, however it is
// cut into pieces.
func TestFeed(t *testing.T) {
	for _, c := range []struct {
		name, keys, in, want string
		detached             bool
	}{
		{"no keys", "", "a\x10\x11b", "a\x10\x11b", false},
		{"none in it", "\x10\x11", "echo a\n", "echo a\n", false},
		{"before them", "\x10\x11", "kept=yes\n\x10\x11lost", "kept=yes\n", true},
		{"alone", "\x10\x11", "\x10\x11", "", true},
		{"a part", "\x10\x11", "a\x10b", "a\x10b", false},
		{"a part at the end", "\x10\x11", "a\x10", "a\x10", false},
		{"a part, then all", "\x10\x11", "\x10\x10\x11", "\x10", true},
		{"one key", "q", "abcqdef", "abc", true},
		{"three", "abc", "ababab abc", "ababab ", true},
	} {
		for form, from := range map[string]io.Reader{
			"one piece": strings.NewReader(c.in),
			"bytes":     iotest.OneByteReader(strings.NewReader(c.in)),
		} {
			var to bytes.Buffer
			err := feed(&to, from, []byte(c.keys))
			if to.String() != c.want || errors.Is(err, errDetached) != c.detached {
				t.Errorf("%s, %s: %q, %v; want %q", c.name, form, to.String(), err, c.want)
			}
		}
	}
	r, w := io.Pipe()
	r.Close()
	if err := feed(w, strings.NewReader("x"), nil); err == nil || errors.Is(err, errDetached) {
		t.Errorf("a process that reads no more: %v", err)
	}
}

// TestAttachEndsAfterExit: a client that has read its stream to the end finds the exit status, and
// the container's place in the network is free, however long the exit takes to be dealt with.
func TestAttachEndsAfterExit(t *testing.T) {
	t.Parallel()
	for _, stdin := range []io.Reader{nil, strings.NewReader("")} {
		w := newWorld(t)
		ended := make(chan struct{})
		var result error // of Attach, when ended is closed
		e := w.open(func(cfg *Config) {
			cfg.Fault = func(step string) error {
				if step != "release: cgroup" {
					return nil
				}
				// The output has ended. An attachment that did not wait would end now.
				select {
				case <-ended:
				case <-time.After(50 * time.Millisecond):
				}
				return nil
			}
		})
		spec := w.spec("box", "echo out; exit 3")
		spec.Network, spec.Endpoints = "net", map[string]engine.EndpointSpec{"net": {}}
		spec.OpenStdin = true
		id := w.create(e, spec)
		var out bytes.Buffer
		attached := make(chan struct{})
		go func() {
			defer close(ended)
			result = e.Attach(t.Context(), id, engine.AttachOptions{
				Streams: engine.Streams{Stdin: stdin, Stdout: &out}, Stream: true,
				Attached: func() { close(attached) },
			})
		}()
		<-attached
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if <-ended; result != nil || out.String() != "out\n" {
			t.Fatalf("%q, %v", out.String(), result)
		}
		if st := w.inspect(e, id).State; st.Status != engine.Exited || st.ExitCode != 3 {
			t.Errorf("at the end of the stream: %+v", st)
		}
		if places := w.net.all(); len(places) != 0 {
			t.Errorf("at the end of the stream the network has %v", places)
		}
	}
}

// TestExecEndsAfterExit: the stream of an exec ends when its exit status is known.
func TestExecEndsAfterExit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	box := w.start(e, w.spec("box", "sleep"))
	for range 200 {
		id, err := e.ExecCreate(t.Context(), box, engine.ExecSpec{
			Args: []string{"/bin/sh", "-c", "echo out; exit 4"},
		})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		streams := engine.Streams{Stdout: &out}
		if err := e.ExecStart(t.Context(), id, streams, nil, false); err != nil {
			t.Fatal(err)
		}
		in, err := e.ExecInspect(t.Context(), id)
		if err != nil || in.Running || in.ExitCode == nil || *in.ExitCode != 4 {
			t.Fatalf("at the end of the stream: %+v, %v", in, err)
		}
	}
}
