// Package verbtest runs one verb of the command line for a test, with a server in the place of the
// engine that records what it is asked for.
//
// Not for: several requests with different answers; the scripts of package cli have an engine for
// those.
//
// Tested by a table of command lines.
package verbtest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"

	"strake/cli/command"
)

// Result is what came of a verb.
type Result struct {
	// Asked is each request as "METHOD PATH BODY", in lines.
	Asked string
	// Out is what was written to standard output, then what was written to standard error.
	Out string
	Err error
}

// Run parses the arguments, which Words splits, and runs the verb. The engine answers each request
// with the same text.
func Run(t *testing.T, c command.Command, answer, args string) Result {
	t.Helper()
	var mu sync.Mutex
	var asked []string // guarded by mu
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		path := strings.TrimPrefix(r.URL.RequestURI(), "/v1.51")
		asked = append(asked, strings.TrimSpace(r.Method+" "+path+" "+string(body)))
		io.WriteString(w, answer)
	}))
	defer engine.Close()
	var stdout, stderr strings.Builder
	s := &command.Session{
		Env: command.Env{
			In: strings.NewReader(""), Out: &stdout, Err: &stderr,
			LookupEnv: func(name string) (string, bool) {
				if name == "DOCKER_API_VERSION" {
					return "1.51", true
				}
				return "", false
			},
		},
		Host: "tcp://" + engine.Listener.Addr().String(),
	}
	defer s.Close()
	fs := pflag.NewFlagSet(c.Name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	action := c.Setup(fs)
	err := fs.Parse(Words(args))
	if err == nil {
		err = action(t.Context(), s, fs.Args())
	}
	mu.Lock()
	defer mu.Unlock()
	return Result{strings.Join(asked, "\n"), stdout.String() + stderr.String(), err}
}
