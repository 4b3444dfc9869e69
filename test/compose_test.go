package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strake/internal/testneed"
)

// project is a directory with a compose file.
type project struct {
	*rig
	t       testing.TB
	program string
	dir     string
}

// compose runs docker-compose to its end.
func (p *project) compose(args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, append([]string{"--ansi", "never"}, args...)...)
	cmd.Dir = p.dir
	// It reads a field of images that dockerd, too, answers to old versions only.
	cmd.Env = append(
		os.Environ(), "DOCKER_HOST=unix://"+p.socket(), "DOCKER_CONFIG="+p.rig.dir,
		"COMPOSE_API_VERSION=1.41", "PYTHONDONTWRITEBYTECODE=1",
	)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// does runs docker-compose and expects success.
func (p *project) does(args ...string) string {
	p.t.Helper()
	got := p.compose(args...)
	if got.code != 0 {
		p.t.Fatalf(
			"docker-compose %s: status %d\n%s%s", strings.Join(args, " "), got.code, got.out,
			got.err,
		)
	}
	return got.out
}

// get is what the published port of front answers.
func (p *project) get() string {
	p.t.Helper()
	addr := strings.TrimSpace(p.docker("port", filepath.Base(p.dir)+"_front_1", "8080").out)
	c := &http.Client{
		Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
	}
	resp, err := c.Get("http://" + addr)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

const composeFile = `version: "2.4"
services:
  front:
    image: box
    command:
    - sh
    - -c
    - |
      while :; do
        { printf 'HTTP/1.0 200 OK\r\n\r\n'; wget -qO- http://back; } | nc -l -p 8080
      done
    ports: ["127.0.0.1::8080"]
    networks: [%[1]s, %[2]s]
    depends_on:
      back: {condition: service_healthy}
    stop_grace_period: 0s
  back:
    image: box
    command: ["sh", "-c", "while :; do cat /data/page | nc -l -p 80; done"]
    volumes: ["data:/data"]
    networks:
      %[1]s: {ipv4_address: 10.214.7.9}
    healthcheck: {test: "test -e /data/page", interval: 0.3s, retries: 50}
    stop_grace_period: 0s
volumes:
  data: {}
networks:
  %[1]s:
    internal: true
    ipam: {config: [{subnet: 10.214.7.0/24}]}
  %[2]s: {}
`

// TestCompose drives the engine with docker-compose 1.29: a front with a published port reaches a
// back that is in an internal network only.
func TestCompose(t *testing.T) {
	r := start(t)
	program := testneed.Program(t, "docker-compose", "docker-compose")
	for _, networks := range [][2]string{{"alpha", "omega"}, {"omega", "alpha"}} {
		t.Run("internal "+networks[0], func(t *testing.T) {
			p := &project{r, t, program, filepath.Join(r.dir, "front"+networks[0])}
			if err := os.MkdirAll(p.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			file := fmt.Sprintf(composeFile, networks[0], networks[1])
			err := os.WriteFile(filepath.Join(p.dir, "docker-compose.yml"), []byte(file), 0o644)
			if err != nil {
				t.Fatal(err)
			}
			defer p.compose("down", "-v", "-t", "0")
			p.up()
			if networks[0] == "alpha" {
				p.live()
			}
		})
	}
}

// answers waits until front answers with what back has.
func (p *project) answers(when string) {
	p.t.Helper()
	var got string
	for end := time.Now().Add(20 * time.Second); got != "hello"; runtimeYield() {
		if got = p.get(); got != "hello" && time.Now().After(end) {
			p.t.Fatalf("%s: front answers %q", when, got)
		}
	}
}

// up starts the project and looks at its networks.
func (p *project) up() {
	page := `printf 'HTTP/1.0 200 OK\r\n\r\nhello' > /data/page`
	p.does("run", "--rm", "--no-deps", "back", "sh", "-c", page)
	p.does("up", "-d")
	p.answers("at first")
	if got := p.does("exec", "-T", "back", "ip", "-4", "-o", "addr"); !strings.Contains(
		got, "10.214.7.9/24",
	) {
		p.t.Errorf("back has not the address that it was given: %q", got)
	}
	if got := p.does("exec", "-T", "back", "ip", "route"); strings.Contains(got, "default") {
		p.t.Errorf("back has a way out of its internal network: %q", got)
	}
	if got := p.does("exec", "-T", "front", "ip", "route"); !strings.Contains(got, "default") {
		p.t.Errorf("front has no way out: %q", got)
	}
}

// live takes the project through what compose does with one, to its end.
func (p *project) live() {
	if got := p.compose("exec", "-T", "back", "sh", "-c", "echo out; exit 7"); got.code != 7 ||
		got.out != "out\n" {
		p.t.Errorf("exec: %+v", got)
	}
	before := p.does("ps", "-q")
	p.does("up", "-d")
	if after := p.does("ps", "-q"); after != before || strings.Count(after, "\n") != 2 {
		p.t.Errorf("up of what is up: %q, before %q", after, before)
	}
	p.does("restart", "-t", "0")
	p.answers("after a restart")
	p.does("up", "-d", "--force-recreate", "-t", "0")
	if after := p.does("ps", "-q"); after == before {
		p.t.Error("the containers were not made anew")
	}
	p.answers("made anew")
	p.does("down", "-v", "-t", "0")
	if got := p.ok("ps", "-aq") + p.ok("volume", "ls", "-q"); got != "" {
		p.t.Errorf("left by down: %q", got)
	}
}
