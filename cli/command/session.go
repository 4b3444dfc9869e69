package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"strake/cli/client"
	"strake/cli/launch"
	"strake/cli/terminal"
)

// DefaultHost is where the engine listens unless it is told otherwise.
const DefaultHost = "unix:///run/strake/strake.sock"

// Env is what a command may use of its process. Main functions fill it in; tests make their own.
type Env struct {
	// DefaultHost is the engine that is meant if the command line and the environment name none,
	// and the only one that is started when it does not run: a mistyped host is an error.
	DefaultHost string
	In          io.Reader
	Out, Err    io.Writer
	// LookupEnv reads the environment, Environ all of it.
	LookupEnv func(string) (string, bool)
	Environ   []string
	// Dir is the working directory, Executable the path of the own program, UID the effective user.
	Dir, Executable string
	UID             int
	// Version and Commit are the build's.
	Version, Commit string
	// Notify and StopNotify are those of os/signal.
	Notify     func(c chan<- os.Signal, sig ...os.Signal)
	StopNotify func(c chan<- os.Signal)
	// Now is the clock.
	Now func() time.Time
	// Exec replaces the process (execve(2)).
	Exec func(path string, argv, env []string) error
}

// Getenv returns a variable of the environment, or "".
func (e *Env) Getenv(name string) string {
	v, _ := e.LookupEnv(name)
	return v
}

// Session is one invocation: its surroundings and its connection with the engine. It is used by one
// goroutine unless a method says otherwise.
type Session struct {
	Env
	// Host is where the engine is, as given by -H or DOCKER_HOST.
	Host string
	// ConfigDir holds config.json.
	ConfigDir string
	// Debug tells about every request on Err.
	Debug bool
	// NoStart keeps the engine from being started.
	NoStart bool
	// Explain turns an error into what is said to the user (package cli finds similar names).
	Explain func(error) string

	client *client.Client
	errMu  sync.Mutex // lines on Err stay whole
}

// Tell prints an error for the user.
func (s *Session) Tell(err error) {
	text := err.Error()
	if s.Explain != nil {
		text = s.Explain(err)
	}
	s.errMu.Lock()
	defer s.errMu.Unlock()
	fmt.Fprintf(s.Err, "strake: %s\n", text)
}

// note tells about something that was done beside what was asked for. It is no result, hence on
// Err.
func (s *Session) note(text string) {
	s.errMu.Lock()
	defer s.errMu.Unlock()
	fmt.Fprintf(s.Err, "strake: %s\n", text)
}

// Warn prints something that did not stop the command.
func (s *Session) Warn(text string) { fmt.Fprintf(s.Err, "WARNING: %s\n", text) }

// Client returns the connection with the engine; nothing is sent by that.
func (s *Session) Client() (*client.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	network, address, err := parseHost(s.Host)
	if err != nil {
		return nil, err
	}
	if network == "tcp" && s.Getenv("DOCKER_TLS_VERIFY") != "" {
		return nil, errors.New(
			"DOCKER_TLS_VERIFY is set, but strake does not speak TLS: forward the engine's " +
				"socket with ssh -L and use -H unix://",
		)
	}
	opt := client.Options{
		APIVersion: strings.TrimPrefix(s.Getenv("DOCKER_API_VERSION"), "v"),
		UserAgent:  "strake/" + s.Version,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return s.dial(ctx, network, address)
		},
	}
	if s.Debug {
		opt.Trace = func(method, path string, status int, took time.Duration) {
			s.errMu.Lock()
			defer s.errMu.Unlock()
			fmt.Fprintf(
				s.Err, "debug: %s %s: %d, %s\n", method, path, status, took.Round(time.Microsecond),
			)
		}
	}
	s.client = client.New(opt)
	return s.client, nil
}

// Close ends kept connections.
func (s *Session) Close() {
	if s.client != nil {
		s.client.Close()
	}
}

// parseHost reads unix://PATH, tcp://HOST:PORT or a bare path.
func parseHost(host string) (network, address string, err error) {
	scheme, rest, ok := strings.Cut(host, "://")
	switch {
	case ok && scheme == "unix" && rest != "":
		return "unix", rest, nil
	case !ok && strings.HasPrefix(host, "/"):
		return "unix", host, nil
	case ok && scheme == "tcp":
		address, _, _ = strings.Cut(rest, "/")
		if _, _, err := net.SplitHostPort(address); err == nil {
			return "tcp", address, nil
		}
		return "", "", fmt.Errorf("host %q: want tcp://HOST:PORT", host)
	}
	return "", "", fmt.Errorf("host %q: want unix:///PATH or tcp://HOST:PORT", host)
}

// dial connects. If no engine listens on the default host, it starts one.
func (s *Session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	plain := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	c, err := plain(ctx)
	if err == nil {
		return c, nil
	}
	if network == "unix" && launch.Absent(err) && !s.NoStart {
		if defaultNetwork, path, bad := parseHost(s.DefaultHost); bad != nil ||
			defaultNetwork != network || path != address {
			return nil, fmt.Errorf(
				"no engine listens on %s (%w): check -H and DOCKER_HOST, or run "+
					"'straked -H unix://%s'; only the engine on %s is started on demand",
				s.Host, err, address, s.DefaultHost,
			)
		}
		if s.UID != 0 {
			return nil, fmt.Errorf(
				"the engine is not running, and starting it takes root's privileges: run the "+
					"command with sudo once (%w)",
				err,
			)
		}
		e := launch.Engine{Env: s.Environ, Socket: address, Say: s.note}
		if e.Program, err = launch.Find("straked", s.Executable, s.Getenv("PATH")); err != nil {
			return nil, fmt.Errorf(
				"cannot connect to the engine at %s, and cannot start one: %w", s.Host, err,
			)
		}
		return e.Start(ctx, plain)
	}
	if errors.Is(err, syscall.EACCES) {
		return nil, fmt.Errorf(
			"no permission to use the engine's socket %s: run the command with sudo%s: %w", address,
			groupHint(address), syscall.EACCES,
		)
	}
	return nil, fmt.Errorf("cannot connect to the engine at %s: %w", s.Host, err)
}

// groupHint names the group that may use a socket.
func groupHint(socket string) string {
	info, err := os.Stat(socket)
	if err != nil || info.Mode()&0o060 != 0o060 {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return ""
	}
	raw, err := os.ReadFile("/etc/group")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == fmt.Sprint(st.Gid) {
			return fmt.Sprintf(
				", or join the group %s (sudo usermod -aG %s $USER, then log in again)", f[0], f[0],
			)
		}
	}
	return ""
}

// Get asks for JSON.
func (s *Session) Get(ctx context.Context, path string, query url.Values, out any) error {
	return s.request(ctx, client.Request{Method: "GET", Path: path, Query: query}, out)
}

// Post sends JSON (nil: no body) and reads JSON (nil: drops it).
func (s *Session) Post(ctx context.Context, path string, query url.Values, in, out any) error {
	return s.request(ctx, client.Request{Method: "POST", Path: path, Query: query, JSON: in}, out)
}

// Delete removes something.
func (s *Session) Delete(ctx context.Context, path string, query url.Values, out any) error {
	return s.request(ctx, client.Request{Method: "DELETE", Path: path, Query: query}, out)
}

func (s *Session) request(ctx context.Context, r client.Request, out any) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	return c.JSON(ctx, r, out)
}

// Do sends a request and returns the answer for reading.
func (s *Session) Do(ctx context.Context, r client.Request) (*client.Response, error) {
	c, err := s.Client()
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, r)
}

// Confirm asks a question on Err and reads a line of In. Any answer but y or yes is no, and so is
// the end of In.
func (s *Session) Confirm(question string) (bool, error) {
	fmt.Fprintf(s.Err, "%s [y/N] ", question)
	var line []byte
	buf := make([]byte, 1)
	for len(line) < 64 {
		n, err := s.In.Read(buf)
		if n > 0 && buf[0] == '\n' {
			break
		}
		line = append(line, buf[:n]...)
		if err == io.EOF {
			fmt.Fprintln(s.Err)
			break
		}
		if err != nil {
			return false, fmt.Errorf("read the answer: %w", err)
		}
	}
	answer := strings.ToLower(strings.TrimSpace(string(line)))
	return answer == "y" || answer == "yes", nil
}

// Path makes a path given by the user absolute.
func (s *Session) Path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.Dir, name)
}

// IsTerminal says whether a stream is one.
func IsTerminal(stream any) bool {
	_, ok := terminal.FD(stream)
	return ok
}

// Query makes url.Values of pairs, leaving out empty values.
func Query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Add(pairs[i], pairs[i+1])
		}
	}
	return q
}

// If returns "1" for true and "" for false, as Query wants it.
func If(b bool) string {
	if b {
		return "1"
	}
	return ""
}

func jsonText(v any) (string, error) {
	raw, err := json.Marshal(v)
	return string(raw), err
}
