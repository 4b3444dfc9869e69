package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"strake/network/link"
)

// faultCase is an operation that is interrupted at each of its steps. What it leaves is compared
// with what was there before setup.
type faultCase struct {
	name  string
	setup func(r *faultRig)
	run   func(r *faultRig) error
	// acknowledged is checked when run succeeded before the engine died.
	acknowledged func(r *faultRig) error
	// always is checked after every round.
	always func(r *faultRig) error
	// brief leaves out what other cases do: repeated steps, and steps that fail.
	brief bool
}

// victim is a container that uses everything that a container can occupy on the host.
func victim(r *faultRig, image string) map[string]any {
	return map[string]any{
		"Image": image, "Cmd": []string{"sleep", "1000"},
		"ExposedPorts": map[string]any{"80/tcp": map[string]any{}, "53/udp": map[string]any{}},
		"Volumes":      map[string]any{"/anonymous": map[string]any{}, "/data": map[string]any{}},
		"HostConfig": map[string]any{
			"Binds": []string{r.path("bound") + ":/bound", "victim-volume:/named"},
			"Tmpfs": map[string]string{"/scratch": "size=1m"},
			"PortBindings": map[string]any{
				"80/tcp": []any{map[string]string{"HostPort": "18080"}},
				"53/udp": []any{map[string]string{"HostIp": "127.0.0.1", "HostPort": "18053"}},
			},
			"IpcMode": "shareable", "Memory": 64 << 20, "PidsLimit": 50,
		},
	}
}

func createVictim(r *faultRig) error {
	_, err := r.call("POST", "/containers/create?name=victim", victim(r, "faulty"))
	return err
}

func startVictim(r *faultRig) error {
	_, err := r.call("POST", "/containers/victim/start", nil)
	return err
}

// must makes a setup of operations that have to succeed.
func must(steps ...func(r *faultRig) error) func(r *faultRig) {
	return func(r *faultRig) {
		r.t.Helper()
		for _, s := range steps {
			if err := s(r); err != nil {
				r.t.Fatalf("setup: %v\n%s", err, r.log())
			}
		}
	}
}

// request is one call as a step.
func request(method, path string, body any) func(r *faultRig) error {
	return func(r *faultRig) error {
		_, err := r.call(method, path, body)
		return err
	}
}

func exists(want string) func(r *faultRig) error {
	return func(r *faultRig) error {
		in := r.inspect("victim")
		switch {
		case in == nil && want != "":
			return fmt.Errorf("the container is gone, want it %s", want)
		case in != nil && in.State.Status != want:
			return fmt.Errorf("the container is %s, want %q", in.State.Status, want)
		}
		return nil
	}
}

func execVictim(r *faultRig) error {
	raw, err := r.call(
		"POST", "/containers/victim/exec",
		map[string]any{"Cmd": []string{"true"}, "AttachStdout": true},
	)
	if err != nil {
		return err
	}
	var x struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(raw, &x); err != nil {
		return err
	}
	_, err = r.call("POST", "/exec/"+x.ID+"/start", map[string]any{"Detach": true})
	return err
}

func faultCases(t *testing.T, saved []byte) []faultCase {
	started := must(createVictim, startVictim)
	autoRemoved := func(r *faultRig) error {
		spec := victim(r, "faulty")
		spec["HostConfig"].(map[string]any)["AutoRemove"] = true
		_, err := r.call("POST", "/containers/create?name=victim", spec)
		return err
	}
	foreign := func(r *faultRig) error {
		spec := victim(r, "faulty")
		spec["HostConfig"].(map[string]any)["CgroupParent"] = r.foreignParent()
		_, err := r.call("POST", "/containers/create?name=victim", spec)
		return err
	}
	return []faultCase{
		{
			name: "import",
			run:  request("POST", "/images/create?fromSrc=-&repo=victim-image", tree(t, "imported")),
		},
		{name: "load", run: request("POST", "/images/load", saved)},
		{
			name: "remove image", setup: must(request("POST", "/images/load", saved)),
			run: request("DELETE", "/images/loaded-image", nil),
		},
		{name: "create", run: createVictim, acknowledged: exists("created")},
		{
			name: "start", setup: must(createVictim), run: startVictim,
			acknowledged: exists("running"),
		},
		{name: "exec", setup: started, run: execVictim, acknowledged: exists("running")},
		{
			name: "end", setup: started, run: request("POST", "/containers/victim/kill", nil),
			acknowledged: exists("exited"),
		},
		{
			name: "restart", brief: true, setup: started,
			run:          request("POST", "/containers/victim/restart?t=0", nil),
			acknowledged: exists("running"),
		},
		{
			name: "pause", setup: started, run: request("POST", "/containers/victim/pause", nil),
			acknowledged: exists("paused"),
		},
		{name: "unpause", setup: must(
			createVictim, startVictim, request("POST", "/containers/victim/pause", nil),
		),
			run: request("POST", "/containers/victim/unpause", nil), acknowledged: exists("running")},
		{
			name: "update", setup: started,
			run: request(
				"POST", "/containers/victim/update",
				map[string]any{"Memory": 48 << 20, "MemorySwap": 96 << 20},
			),
			acknowledged: exists("running"),
		},
		{
			name:  "rename",
			setup: must(createVictim, request("POST", "/containers/victim/rename?name=other", nil)),
			run:   request("POST", "/containers/other/rename?name=victim", nil),
		},
		{name: "remove", setup: must(
			createVictim, startVictim, request("POST", "/containers/victim/kill", nil),
		),
			run: request("DELETE", "/containers/victim?v=1", nil), acknowledged: exists("")},
		{
			name: "remove by force", brief: true, setup: started,
			run: request("DELETE", "/containers/victim?v=1&force=1", nil), acknowledged: exists(""),
		},
		{
			name: "remove itself", brief: true, setup: must(autoRemoved, startVictim),
			run: request("POST", "/containers/victim/kill", nil),
		},
		{
			name: "create network",
			run: request(
				"POST", "/networks/create",
				map[string]any{"Name": "victim-net", "EnableIPv6": true},
			),
		},
		{
			name:  "remove network",
			setup: must(request("POST", "/networks/create", map[string]any{"Name": "victim-net"})),
			run:   request("DELETE", "/networks/victim-net", nil),
		},
		{name: "connect", setup: must(
			createVictim, startVictim,
			request("POST", "/networks/create", map[string]any{"Name": "victim-net"}),
		),
			run: request("POST", "/networks/victim-net/connect", map[string]any{"Container": "victim"}), acknowledged: exists("running")},
		{name: "disconnect", setup: must(createVictim, startVictim, request(
			"POST", "/networks/create", map[string]any{"Name": "victim-net"},
		),
			request("POST", "/networks/victim-net/connect", map[string]any{"Container": "victim"})),
			run: request("POST", "/networks/victim-net/disconnect", map[string]any{"Container": "victim"}), acknowledged: exists("running")},
		{
			name: "start below a foreign parent", setup: must(foreign), run: startVictim,
			acknowledged: exists("running"),
		},
		{
			name: "end below a foreign parent", setup: must(foreign, startVictim),
			run:          request("POST", "/containers/victim/kill", nil),
			acknowledged: exists("exited"),
		},
		// The next engine is killed while it deals with what the last one left.
		{name: "recover", setup: func(r *faultRig) {
			started(r)
			r.must("POST", "/containers/create?name=other", victim(r, "faulty"))
			r.order(order{Step: "exit: record", N: 1})
			r.call("POST", "/containers/victim/kill", nil)
			<-r.ended
			r.forget()
		}, run: func(r *faultRig) error {
			if !r.launch() {
				<-r.ended // by itself
				return io.ErrUnexpectedEOF
			}
			return nil
		}},
	}
}

// anchor is the container that lives through everything.
type anchor struct {
	before inspected
	port   string
	pods   podState
}

// intact says whether the anchor is what it was and answers on its published port.
func (a *anchor) intact(r *faultRig) error {
	now := r.inspect("anchor")
	if now == nil || now.State != a.before.State ||
		now.address() != a.before.address() {
		return fmt.Errorf("the anchor is %+v, was %+v", now, a.before)
	}
	pods := r.podState()
	for id, was := range a.pods.Sandboxes {
		if pods.Sandboxes[id] != was {
			return fmt.Errorf("sandbox %s is %q, was %q", id, pods.Sandboxes[id], was)
		}
	}
	for id, was := range a.pods.Tasks {
		if pods.Tasks[id] != was || was <= 0 {
			return fmt.Errorf("task %s is process %d, was %d", id, pods.Tasks[id], was)
		}
	}
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		err = link.Enter(r.ns, func() error {
			c, err := net.DialTimeout("tcp", "127.0.0.1:"+a.port, time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			got, err := io.ReadAll(c)
			if string(got) != "ok\n" {
				return fmt.Errorf("the anchor's port says %q %v", got, err)
			}
			return nil
		})
		if err == nil {
			return nil
		}
	}
	return err
}

// clean removes what the case may rightly have left: containers, volumes, images, networks.
// Whatever exists has to be whole, which is to say that it can be used and removed.
func (r *faultRig) clean() error {
	if err := r.cleanPods(); err != nil {
		return err
	}
	for _, name := range []string{"victim", "other"} {
		in := r.inspect(name)
		if in == nil {
			continue
		}
		if in.State.Status != "running" && in.State.Status != "paused" {
			if _, err := r.call("POST", "/containers/"+name+"/start", nil); err != nil {
				if strings.Contains(err.Error(), "No such container") ||
					strings.Contains(err.Error(), "marked for removal") {
					// The engine is finishing a removal that it found begun; one that failed it
					// does not repeat by itself.
					if _, err := r.call(
						"DELETE", "/containers/"+name+"?v=1&force=1", nil,
					); err != nil && !strings.Contains(err.Error(), "No such container") &&
						!strings.Contains(err.Error(), "already in progress") {
						return err
					}
					r.until("the end of a removal", func() bool { return r.inspect(name) == nil })
					continue
				}
				return fmt.Errorf("what is left cannot be started: %w", err)
			}
		}
		if _, err := r.call("DELETE", "/containers/"+name+"?v=1&force=1", nil); err != nil &&
			!strings.Contains(err.Error(), "No such container") {
			return err
		}
	}
	for _, image := range []string{"victim-image", "loaded-image"} {
		// Without a network: a namespace that nobody used would wait for the next container.
		spec := map[string]any{
			"Image": image, "Cmd": []string{"true"},
			"HostConfig": map[string]any{"NetworkMode": "none"},
		}
		if _, err := r.call("POST", "/containers/create?name=prober", spec); err != nil {
			if strings.Contains(err.Error(), "No such image") {
				continue
			}
			return err
		}
		for _, step := range []struct{ method, path string }{
			{"POST", "/containers/prober/start"}, {"POST", "/containers/prober/wait"},
			{"DELETE", "/containers/prober"}, {"DELETE", "/images/" + image + "?force=1"},
		} {
			if _, err := r.call(step.method, step.path, nil); err != nil {
				return err
			}
		}
	}
	for _, path := range []string{"/volumes/victim-volume", "/networks/victim-net"} {
		if _, err := r.call("DELETE", path, nil); err != nil && !answered(err, 404) {
			return err
		}
	}
	return nil
}

// TestFaults ends straked with SIGKILL at every step of every operation, starts the next one on the
// same directories, and compares the host with what it was: nothing of what was not acknowledged
// may be left, nothing of what was may be lost. Which steps there are a first run of each operation
// says, so a step that is added is tested by that. A second round lets each step of the engine fail
// instead.
func TestFaults(t *testing.T) {
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	r.must("POST", "/images/create?fromSrc=-&repo=loaded-image", tree(t, "loaded"))
	saved := r.must("GET", "/images/loaded-image/get", nil)
	r.must("DELETE", "/images/loaded-image", nil)
	r.must("POST", "/containers/create?name=anchor", map[string]any{
		"Image":        "faulty",
		"Cmd":          []string{"sh", "-c", "while true; do echo ok | nc -l -p 80; done"},
		"ExposedPorts": map[string]any{"80/tcp": map[string]any{}},
		"HostConfig": map[string]any{
			"PortBindings": map[string]any{
				"80/tcp": []any{map[string]string{"HostIp": "127.0.0.1"}},
			},
			"IpcMode": "shareable", "Binds": []string{"anchor-volume:/v"},
		},
	})
	r.must("POST", "/containers/anchor/start", nil)
	must(podRequest("POST", "/sandbox?id=anchor-pod"),
		podRequest("POST", "/task?id=anchor-one&sandbox=anchor-pod&script="+podLoop),
		podRequest("POST", "/task?id=anchor-two&sandbox=anchor-pod&script="+podLoop))(r)
	a := &anchor{before: *r.inspect("anchor"), pods: r.podState()}
	if ports := a.before.NetworkSettings.Ports["80/tcp"]; len(ports) == 1 {
		a.port = ports[0].HostPort
	}
	if err := a.intact(r); err != nil {
		t.Fatal(err)
	}
	// One whole round, so that what is made once (directories, locks) is there, then a fresh
	// engine.
	must(
		createVictim, startVictim, request("DELETE", "/containers/victim?v=1&force=1", nil),
		request("DELETE", "/volumes/victim-volume", nil),
	)(r)
	r.kill()
	r.mustLaunch()
	before := r.calm()
	rounds := 0
	var always func(r *faultRig) error
	check := func(what string) {
		t.Helper()
		rounds++
		began := time.Now()
		defer func() {
			if d := time.Since(began); d > 2*time.Second {
				r.t.Logf("%s: took %s to check", what, d)
			}
		}()
		errs := []any{}
		if err := a.intact(r); err != nil {
			errs = append(errs, err)
		}
		if always != nil {
			if err := always(r); err != nil {
				errs = append(errs, err)
			}
		}
		if err := r.clean(); err != nil {
			errs = append(errs, err)
		}
		if diff := r.settles(before); len(diff) > 0 {
			errs = append(errs, "\n"+strings.Join(diff, "\n"))
		}
		if len(errs) > 0 {
			t.Errorf("%s: %v", what, errs)
			if os.Getenv("STRAKE_TEST_FAULTS_ALL") == "" {
				t.FailNow()
			}
		}
	}
	for _, fc := range append(faultCases(t, saved), podCases()...) {
		t.Run(fc.name, func(t *testing.T) {
			r.t, always = t, fc.always
			begin := func(o order) (err error) {
				t.Helper()
				if fc.setup != nil {
					fc.setup(r)
				}
				r.order(o)
				err = fc.run(r)
				r.forget()
				return err
			}
			if err := begin(order{}); err != nil {
				t.Fatalf("the undisturbed operation: %v\n%s", err, r.log())
			}
			points := r.reached()
			check("undisturbed")
			type point struct {
				step string
				n    int
			}
			var list []point
			seen := map[string]int{}
			for _, p := range points {
				// Further times of the same step are further ports, layers or namespaces: the
				// second stands for them.
				if seen[p]++; seen[p] == 1 || seen[p] == 2 && !fc.brief {
					list = append(list, point{p, seen[p]})
				}
			}
			missed := 0
			for _, p := range list {
				acknowledged := begin(order{Step: p.step, N: p.n}) == nil
				if acknowledged && !r.dead() {
					missed++ // in the background, which does not always come this far
				}
				r.kill()
				r.mustLaunch()
				what := fmt.Sprintf("killed before %q (%d)", p.step, p.n)
				if acknowledged && fc.acknowledged != nil {
					if err := fc.acknowledged(r); err != nil {
						t.Errorf("%s: acknowledged, but %v", what, err)
					}
				}
				check(what)
			}
			for _, p := range list {
				if p.n > 1 || fc.brief || strings.Contains(p.step, "/") ||
					strings.HasPrefix(p.step, "volume: ") {
					continue
				}
				err := begin(order{Step: p.step, N: 1, Fail: true})
				if r.dead() {
					r.mustLaunch()
				}
				check(fmt.Sprintf("failed at %q: %v", p.step, err))
			}
			if missed*3 > len(list) {
				t.Errorf("%d of %d points were not reached again: %v", missed, len(list), list)
			}
			t.Logf(
				"%d points: %s", len(list),
				strings.Join(slices.Compact(slices.Sorted(slices.Values(points))), ", "),
			)
		})
		if t.Failed() {
			return
		}
	}
	r.t = t
	t.Logf("%d rounds", rounds)
}
