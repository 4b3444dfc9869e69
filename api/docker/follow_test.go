package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"strake/engine"
)

// get asks for a path with a context of the test.
func get(ctx context.Context, h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	path = strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(path)
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
	return w
}

func TestLogs(t *testing.T) {
	t.Parallel()
	lines := []engine.LogLine{
		{Stream: "stdout", Time: then, Line: []byte("one\n")},
		{
			Stream: "stderr", Time: then, Line: []byte("two\n"),
			Attributes: map[string]string{"tag": "a b", "env": "x,y"},
		},
		{Stream: "stdout", Time: then, Line: []byte("part")},
	}
	const stamp = "2026-01-02T03:04:05.000006000Z "
	plain := frame(1, "one\n") + frame(2, "two\n") + frame(1, "part")
	for _, c := range []struct {
		path, kind, want, call string
	}{
		{
			"/v1.42/containers/running/logs?stdout=1&stderr=1", multiplexedStream, plain,
			`"Stdout":true,"Stderr":true,"Follow":false`,
		},
		{"/v1.41/containers/running/logs?stdout=1&stderr=1", rawStream, plain, `"Tail":-1`},
		{"/v1.56/containers/tty/logs?stdout=1", rawStream, "one\ntwo\npart", `"Stderr":false`},
		{
			"/v1.56/containers/running/logs?stdout=1&stderr=1&timestamps=1", multiplexedStream,
			frame(1, stamp+"one\n") + frame(2, stamp+"two\n") + frame(1, stamp+"part"), "",
		},
		{
			"/v1.56/containers/running/logs?stdout=1&stderr=1&timestamps=1&details=1",
			multiplexedStream,
			frame(1, stamp+" one\n") + frame(2, stamp+"env=x%2Cy,tag=a+b two\n") +
				frame(1, stamp+" part"), "",
		},
		{
			"/v1.56/containers/running/logs?stderr=1&tail=5&follow=1", multiplexedStream, plain,
			`"Stdout":false,"Stderr":true,"Follow":true,` +
				`"Since":"0001-01-01T00:00:00Z","Until":"0001-01-01T00:00:00Z","Tail":5`,
		},
		{"/v1.56/containers/tty/logs?stdout=1&tail=all", rawStream, "one\ntwo\npart", `"Tail":-1`},
		{"/v1.56/containers/tty/logs?stdout=1&tail=some", rawStream, "one\ntwo\npart", `"Tail":-1`},
		{
			"/v1.56/containers/tty/logs?stdout=1&since=2026-01-02T03:04:05Z", rawStream,
			"one\ntwo\npart", `"Since":"2026-01-02T03:04:05Z"`,
		},
	} {
		f := newFake(then)
		f.engine.lines = lines
		w := get(t.Context(), f.h, c.path)
		if w.Code != 200 || w.Header().Get("Content-Type") != c.kind {
			t.Errorf("%s: %d, %v", c.path, w.Code, w.Header())
		}
		if got := w.Body.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
		if calls := f.taken(); len(calls) != 1 || !strings.Contains(calls[0], c.call) {
			t.Errorf("%s: calls %q, want %q", c.path, calls, c.call)
		}
	}
}

// TestLogsBreak: a failure after the first line ends the stream and is not written into it.
func TestLogsBreak(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"internal", "canceled"} {
		f := newFake(then)
		f.engine.lines = []engine.LogLine{{Stream: "stdout", Line: []byte("one\n")}}
		f.failures["engine.Logs.after"] = classes[class]
		w := get(t.Context(), f.h, "/v1.56/containers/running/logs?stdout=1")
		if w.Code != 200 || w.Body.String() != frame(1, "one\n") {
			t.Errorf("%s: %d %q", class, w.Code, w.Body)
		}
	}
	f := newFake(then)
	w := get(t.Context(), f.h, "/v1.56/containers/running/logs?stdout=1")
	if w.Code != 200 || w.Body.Len() != 0 ||
		w.Header().Get("Content-Type") != multiplexedStream {
		t.Errorf("no lines: %d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want time.Time
		ok   bool
	}{
		{"", time.Time{}, true}, {"0", time.Time{}, true},
		{"12", time.Unix(12, 0), true}, {"12.5", time.Unix(12, 500_000_000), true},
		{"12.000000001", time.Unix(12, 1), true}, {"12.0000000019", time.Unix(12, 1), true},
		{"2026-01-02T03:04:05.000006Z", then, true},
		{"yesterday", time.Time{}, false}, {"1.x", time.Time{}, false},
	} {
		got, err := timestamp(c.text)
		if !got.Equal(c.want) || (err == nil) != c.ok {
			t.Errorf("%q: %v, %v; want %v, %t", c.text, got, err, c.want, c.ok)
		}
	}
}

// TestWait: the head of the answer comes before the container ends, because clients start the
// container when they have it, and the status when it has ended.
func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(then)
		ends := make(chan struct{})
		f.b.Engine = waitEngine{f.engine, ends}
		conn := dialPipe(t, http.HandlerFunc(newServer(f.b, testHost).serve))
		go io.WriteString(conn, "POST /v1.30/containers/running/wait HTTP/1.0\r\n\r\n")
		head := make([]byte, 64)
		n, err := conn.Read(head)
		if err != nil || !strings.HasPrefix(string(head[:n]), "HTTP/1.0 200 OK") {
			t.Fatalf("%q, %v", head[:n], err)
		}
		close(ends)
		rest, err := io.ReadAll(conn)
		if err != nil || !strings.HasSuffix(string(rest), "\r\n\r\n{\"StatusCode\":3}\n") {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

// waitEngine has a container that ends with 3 when it is told to.
type waitEngine struct {
	*fakeEngine
	ends chan struct{}
}

func (e waitEngine) Wait(
	_ context.Context, _ string, _ engine.WaitCondition, registered func(),
) (engine.ExitStatus, error) {
	registered()
	<-e.ends
	return engine.ExitStatus{Code: 3}, nil
}

func TestWaitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status engine.ExitStatus
		fail   bool
		want   string
	}{
		{engine.ExitStatus{Code: 137, OOMKilled: true}, false, "{\"StatusCode\":137}\n"},
		// A container that did not start has a status and its own error; the wait has not failed.
		{engine.ExitStatus{Code: 127, Error: "no such file"}, false, "{\"StatusCode\":127}\n"},
		{
			engine.ExitStatus{Error: "gone"}, false,
			"{\"Error\":{\"Message\":\"gone\"},\"StatusCode\":0}\n",
		},
		{engine.ExitStatus{}, true, ""},
	} {
		f := newFake(then)
		f.engine.status = c.status
		if c.fail {
			f.failures["engine.Wait.after"] = classes["internal"]
		}
		w := httptest.NewRecorder()
		f.h.ServeHTTP(w, httptest.NewRequest("POST", "/v1.56/containers/running/wait", nil))
		if w.Code != 200 || w.Body.String() != c.want {
			t.Errorf("%+v: %d %q, want %q", c.status, w.Code, w.Body, c.want)
		}
	}
}

// TestOutlivesClient: what changes a container's life goes on to its end when the client goes away.
func TestOutlivesClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, path string }{
		{http.MethodPost, "/v1.56/containers/created/start"},
		{http.MethodPost, "/v1.56/containers/running/stop?t=3"},
		{http.MethodPost, "/v1.56/containers/running/restart"},
		{http.MethodDelete, "/v1.56/containers/running?force=1"},
	} {
		f := newFake(then)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		f.h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, c.method, c.path, nil))
		if w.Code != http.StatusNoContent || f.engine.ctx.Err() != nil {
			t.Errorf("%s: %d %s, context: %v", c.path, w.Code, w.Body, f.engine.ctx.Err())
		}
	}
}

// event is one of a container.
func event(kind, action, id string, attributes map[string]string) engine.Event {
	return engine.Event{Type: kind, Action: action, ID: id, Attributes: attributes, Time: then}
}

// TestEventsFollow: events of the past, then those that happen, until the time that is asked for.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now())
		f.engine.past = []engine.Event{event("container", "create", "1", nil)}
		f.engine.live = make(chan engine.Event)
		go func() {
			f.engine.live <- event("container", "start", "1", map[string]string{"image": "one"})
			f.engine.live <- event("image", "create", "2", nil)
		}()
		began := time.Now()
		until := fmt.Sprint(began.Add(90 * time.Second).Unix())
		w := get(t.Context(), f.h, "/v1.45/events?until="+until)
		if d := time.Since(began); d != 90*time.Second {
			t.Errorf("it took %v", d)
		}
		var got []string
		for d := json.NewDecoder(w.Body); d.More(); {
			var m map[string]any
			if err := d.Decode(&m); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(m["Type"], m["Action"], m["status"], m["id"], m["from"]))
		}
		// Before 1.46 images are not created.
		want := []string{"containercreatecreate1<nil>", "containerstartstart1one"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if calls := f.taken(); !slices.Contains(calls, "engine.Events.cancel") {
			t.Errorf("calls: %q", calls)
		}
	})
}

// TestEventsEnd: a stream of events ends with the client and with the engine.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			get(ctx, f.h, "/v1.56/events")
			close(done)
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("ended before the client went")
		default:
		}
		cancel()
		<-done
		f.engine.live = make(chan engine.Event)
		close(f.engine.live)
		get(t.Context(), f.h, "/v1.56/events")
	})
}

func TestEventFilters(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("1", 64)
	web := event("container", "exec_start: ls", id, map[string]string{
		"name": "web", "image": "one", "l": "1",
	})
	net := event("network", "connect", "n", map[string]string{"name": "net", "container": id})
	img := event("image", "pull", "one:latest", map[string]string{"name": "one"})
	for _, c := range []struct {
		filter string
		want   []bool // web, net, img
	}{
		{`{}`, []bool{true, true, true}},
		{`{"type":["container"]}`, []bool{true, false, false}},
		{`{"event":["exec_start"]}`, []bool{true, false, false}},
		{`{"event":["exec_start: ls"]}`, []bool{true, false, false}},
		{`{"event":["pull","connect"]}`, []bool{false, true, true}},
		{`{"container":["web"]}`, []bool{true, false, false}},
		{`{"container":["111"]}`, []bool{true, false, false}},
		{`{"container":["` + id + `"]}`, []bool{true, true, false}},
		{`{"container":["other"]}`, []bool{false, false, false}},
		{`{"image":["one"]}`, []bool{true, false, true}},
		{`{"image":["one:latest"]}`, []bool{false, false, true}},
		{`{"network":["net"]}`, []bool{false, true, false}},
		{`{"volume":["v"]}`, []bool{false, false, false}},
		{`{"label":["l=1"]}`, []bool{true, false, false}},
		{`{"label":["l=2"]}`, []bool{false, false, false}},
		{`{"scope":["local"]}`, []bool{true, true, true}},
		{`{"scope":["swarm"]}`, []bool{false, false, false}},
		{`{"plugin":["x"]}`, []bool{false, false, false}},
		{`{"service":["x"]}`, []bool{false, false, false}},
		{`{"daemon":["x"]}`, []bool{false, false, false}},
	} {
		var f filters
		if err := json.Unmarshal([]byte(c.filter), &f); err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, e := range []engine.Event{web, net, img} {
			got = append(got, eventMatches(f, &e))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.filter, got, c.want)
		}
	}
}

// TestStatsFollow: a reading a second, each with the one before it, until the client goes; empty
// ones while the container does not run; an end when it is removed.
func TestStatsFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		w := get(ctx, f.h, "/v1.56/containers/running/stats")
		var reads []string
		for d := json.NewDecoder(w.Body); d.More(); {
			var m struct{ Read, Preread time.Time }
			if err := d.Decode(&m); err != nil {
				t.Fatal(err)
			}
			reads = append(reads, m.Preread.Format("5")+"-"+m.Read.Format("5"))
		}
		if want := []string{"0-0", "0-1", "1-2"}; !slices.Equal(reads, want) {
			t.Errorf("got %q, want %q", reads, want)
		}

		f.failures["engine.Stats"] = classes["conflict"]
		time.AfterFunc(1500*time.Millisecond, func() {
			f.recorder.mu.Lock()
			defer f.recorder.mu.Unlock()
			f.failures["engine.Inspect"] = classes["not found"]
		})
		began := time.Now()
		w = get(t.Context(), f.h, "/v1.56/containers/exited/stats")
		if n := strings.Count(w.Body.String(), "0001-01-01T00:00:00Z"); n < 2 {
			t.Errorf("%d empty readings: %s", n, w.Body)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("it ended after %v", d)
		}
	})
}
