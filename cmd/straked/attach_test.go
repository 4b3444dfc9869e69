package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// take sends a request that takes its connection over, and returns the stream after the answer.
func (r *faultRig) take(path, body string) (io.ReadCloser, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("unix", r.path("s.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest("POST", "http://x"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(conn); err != nil {
		r.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, req)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("%s: %+v, %v", path, answer, err)
	}
	return conn, in
}

// endOf reads a stream to its end.
func (r *faultRig) endOf(conn io.Closer, in io.Reader, want string) {
	r.t.Helper()
	raw, err := io.ReadAll(in)
	conn.Close()
	if err != nil || !strings.HasSuffix(string(raw), want) {
		r.t.Errorf("stream %q, %v; want %q", raw, err, want)
	}
}

// TestStreamsEndAfterExit: at the end of the stream of an attachment and of an exec, and at the
// answer to a wait, the exit status is there and the network can be removed.
func TestStreamsEndAfterExit(t *testing.T) {
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	for i := range 20 {
		r.must("POST", "/networks/create", map[string]any{"Name": "n"})
		r.must("POST", "/containers/create?name=box", map[string]any{
			"Image": "faulty", "Cmd": []string{"sh", "-c", "echo out; exit 3"},
			"HostConfig": map[string]any{"NetworkMode": "n"},
		})
		if i%2 == 0 {
			conn, in := r.take("/containers/box/attach?stream=1&stdout=1", "")
			r.must("POST", "/containers/box/start", nil)
			r.endOf(conn, in, "out\n")
		} else {
			r.must("POST", "/containers/box/start", nil)
			r.must("POST", "/containers/box/wait", nil)
		}
		if st := r.inspect("box").State; st.Status != "exited" || st.ExitCode != 3 {
			t.Errorf("round %d: %+v", i, st)
		}
		r.must("DELETE", "/networks/n", nil)
		r.must("DELETE", "/containers/box", nil)
	}
	r.must("POST", "/containers/create?name=box", map[string]any{
		"Image": "faulty", "Cmd": []string{"sh", "-c", "while true; do sleep 1000; done"},
	})
	r.must("POST", "/containers/box/start", nil)
	for range 20 {
		var made struct{ ID string }
		raw := r.must("POST", "/containers/box/exec", map[string]any{
			"Cmd": []string{"sh", "-c", "echo out; exit 4"}, "AttachStdout": true,
		})
		if err := json.Unmarshal(raw, &made); err != nil {
			t.Fatal(err)
		}
		conn, in := r.take("/exec/"+made.ID+"/start", "{}")
		r.endOf(conn, in, "out\n")
		var x struct {
			Running  bool
			ExitCode *int
		}
		raw = r.must("GET", "/exec/"+made.ID+"/json", nil)
		if err := json.Unmarshal(raw, &x); err != nil {
			t.Fatal(err)
		}
		if x.Running || x.ExitCode == nil || *x.ExitCode != 4 {
			t.Errorf("exec: %s", raw)
		}
	}
}
