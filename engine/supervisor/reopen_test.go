package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/state"
	"strake/network/place"
)

// A name that was acknowledged is the one that the next engine knows, although nothing else was
// recorded after it.
func TestReopenKeepsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	id := w.create(e, w.spec("before", "sleep"))
	if err := e.Rename(t.Context(), "before", "after"); err != nil {
		t.Fatal(err)
	}
	e = w.reopen(e)
	if in := w.inspect(e, id); in.Spec.Name != "after" {
		t.Errorf("the container is %q, want after", in.Spec.Name)
	}
	if _, err := e.Inspect(t.Context(), "before"); !errdefs.IsNotFound(err) {
		t.Errorf("the old name: %v, want not found", err)
	}
}

// What was acknowledged is there for the next engine.
func TestReopenKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	ctx := t.Context()
	idle := w.create(e, w.spec("idle", "sleep"))
	live := w.start(e, w.spec("live", "sleep"))
	for from, to := range map[string]string{"idle": "idle2", "live": "live2"} {
		if err := e.Rename(ctx, from, to); err != nil {
			t.Fatal(err)
		}
	}
	e = w.reopen(e) // before any other change, which would write the record again
	memory := int64(64 << 20)
	if _, err := e.Update(
		ctx, "live2", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}},
		&engine.RestartPolicy{Name: state.PolicyUnlessStopped},
		func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage(`{"a":1}`), nil },
	); err != nil {
		t.Fatal(err)
	}
	e = w.reopen(e)
	for _, name := range []string{"idle2", "live2"} {
		for _, network := range []string{"second", "third"} {
			if err := e.ConnectNetwork(ctx, name, network, engine.EndpointSpec{
				Aliases: []string{"alias"},
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.DisconnectNetwork(ctx, name, "third"); err != nil {
			t.Fatal(err)
		}
	}
	before := w.inspect(e, live)
	e = w.reopen(e)
	for id, name := range map[string]string{idle: "idle2", live: "live2"} {
		in := w.inspect(e, name)
		if in.ID != id || in.Spec.Name != name {
			t.Errorf("%s is %s %q", name, in.ID, in.Spec.Name)
		}
		if eps := in.Spec.Endpoints; len(eps) != 2 || len(eps["second"].Aliases) != 1 {
			t.Errorf("%s: wishes for networks %+v", name, eps)
		}
	}
	for _, old := range []string{"idle", "live"} {
		if _, err := e.Inspect(ctx, old); !errdefs.IsNotFound(err) {
			t.Errorf("the old name %s: %v", old, err)
		}
		w.create(e, w.spec(old, "sleep")) // the name is free
	}
	in := w.inspect(e, live)
	if m := in.Spec.Resources.Memory; m == nil || m.Limit == nil || *m.Limit != memory ||
		in.Spec.Restart.Name != state.PolicyUnlessStopped || string(in.Spec.Front) != `{"a":1}` {
		t.Errorf("updated spec %+v", in.Spec)
	}
	if len(in.Networks) != 2 || !reflect.DeepEqual(in.Networks, before.Networks) {
		t.Errorf("networks %+v, want %+v", in.Networks, before.Networks)
	}
	if in.State.Status != engine.Running || in.State.Pid != before.State.Pid {
		t.Errorf("state %+v, want %+v", in.State, before.State)
	}
}

// A container that was taken out of its only network is in none for the next engine, not in the one
// that it would have without a wish.
func TestReopenKeepsNoNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	id := w.create(e, w.spec("box", "sleep"))
	if err := e.DisconnectNetwork(t.Context(), "box", "bridge"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if eps := w.inspect(e, id).Spec.Endpoints; eps == nil || len(eps) != 0 {
			t.Errorf("wishes for networks: %#v, want none", eps)
		}
		e = w.reopen(e)
	}
	if err := e.Start(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	if in := w.inspect(e, id); len(in.Networks) != 0 {
		t.Errorf("in the networks %+v, want none", in.Networks)
	}
}

func TestReopenKeepsHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	spec := w.spec("box", "sleep")
	spec.Health = &engine.HealthConfig{
		Test: []string{"CMD-SHELL", "exit 0"}, Interval: time.Hour, StartPeriod: time.Hour,
		StartInterval: time.Millisecond,
	}
	id := w.start(e, spec)
	w.until("the container is healthy", func() bool {
		return w.inspect(e, id).State.Health == state.HealthHealthy
	})
	before := w.inspect(e, id)
	in := w.inspect(w.reopen(e), id)
	if len(before.HealthLog) != 1 || in.State.Health != state.HealthHealthy ||
		!reflect.DeepEqual(in.HealthLog, before.HealthLog) {
		t.Errorf(
			"health %q, log %+v; want %+v", in.State.Health, in.HealthLog, before.HealthLog,
		)
	}
}

// A running container has the same addresses and ports for the next engine, and the network is told
// to keep them.
func TestReopenKeepsAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	spec := w.spec("box", "sleep")
	spec.Ports = []engine.PortBinding{{Proto: place.TCP, ContainerPort: 80}}
	id := w.start(e, spec)
	before := w.inspect(e, id)
	if len(before.Networks) != 1 || len(before.Ports) != 1 {
		t.Fatalf("networks %+v, ports %+v", before.Networks, before.Ports)
	}
	w.failAt("")
	e = w.reopen(e)
	in := w.inspect(e, id)
	if !reflect.DeepEqual(in.Networks, before.Networks) ||
		!reflect.DeepEqual(in.Ports, before.Ports) {
		t.Errorf("got %+v %+v, want %+v %+v", in.Networks, in.Ports, before.Networks, before.Ports)
	}
	told := w.net.told()
	if len(told) != 1 || !reflect.DeepEqual(told[id].Endpoints, before.Networks) ||
		told[id].NetnsPath == "" {
		t.Errorf("the network was told %+v", told)
	}
	for _, c := range w.called() {
		if c == "attach" || c == "detach" || c == "abort" {
			t.Errorf("the next engine called %q", c)
		}
	}
	if err := e.Stop(t.Context(), id, "", nil); err != nil {
		t.Fatal(err)
	}
	w.wantLeft("stopped")
}

func TestForeignRecordIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open(func(cfg *Config) { cfg.Owner = "cri" })
	id := w.start(e, w.spec("box", "sleep"))
	file := filepath.Join(w.path("data/containers"), id, "container.json")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e = w.reopen(e)
	if list, err := e.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list %+v %v", list, err)
	}
	if !strings.Contains(w.logged.String(), "a container belongs to another owner") {
		t.Errorf("not reported: %s", w.logged)
	}
	w.create(e, w.spec("box", "sleep")) // another owner's name is not taken
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(before) {
		t.Errorf("the record is now %q %v", after, err)
	}
	w.wantLeft("reopened", "task "+id)
}

// Processes of another owner, and none else, outlive an engine that does not know them.
func TestForeignProcessIsNotAborted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	known := w.start(e, w.spec("box", "sleep"))
	run := w.spec("", "sleep")
	for owner, id := range map[string]string{"cri": "foreign", DefaultOwner: "unknown"} {
		s := worldTaskSpec(owner, id, run.Entrypoint)
		if _, err := w.tasks.Start(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	e = w.reopen(e)
	w.wantLeft(
		"reopened", "task "+known, "task foreign", "place "+known, "group /own/"+known,
	)
	if got := w.inspect(e, known).State.Status; got != engine.Running {
		t.Errorf("the known container is %s", got)
	}
}

// Groups that an interrupted start left below a parent of the user's go with the next engine, and
// with the container.
func TestGroupBelowForeignParent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	spec := w.spec("box", "sleep")
	spec.CgroupParent = "/x"
	id := w.create(e, spec)
	leave := func() {
		for _, name := range []string{id, "another's"} {
			if _, err := w.groups.Create(t.Context(), "/x", name, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave()
	e = w.reopen(e)
	w.wantLeft("reopened", "group /x/another's")
	leave()
	if err := e.Remove(t.Context(), id, engine.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.wantLeft("removed", "group /x/another's")
}

// What is started at boot: the machine was restarted while containers of every kind existed.
func TestBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	type want struct{ ran, stopped, ended bool }
	policies := map[string]want{
		"":                        {},
		"no":                      {},
		state.PolicyAlways:        {ran: true, stopped: true},
		state.PolicyUnlessStopped: {ran: true},
		state.PolicyOnFailure:     {ran: true},
	}
	for policy := range policies {
		for _, kind := range []string{"ran", "stopped", "ended", "created"} {
			script := "sleep"
			if kind == "ended" {
				script = "exit 0"
			}
			spec := w.spec(kind+"-"+policy+"x", script)
			spec.Restart.Name = policy
			id := w.create(e, spec)
			if kind == "created" ||
				kind == "ended" && (policy == state.PolicyAlways || policy == state.PolicyUnlessStopped) {
				continue // it never ends: it is restarted
			}
			if err := e.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			switch kind {
			case "stopped":
				if err := e.Stop(t.Context(), id, "", nil); err != nil {
					t.Fatal(err)
				}
			case "ended":
				w.untilStatus(e, id, engine.Exited)
			}
		}
	}
	e = w.reboot(e)
	e.background.Wait()
	for policy, want := range policies {
		for kind, runs := range map[string]bool{
			"ran": want.ran, "stopped": want.stopped, "ended": want.ended, "created": false,
		} {
			in := w.inspect(e, kind+"-"+policy+"x")
			if got := in.State.Status == engine.Running; got != runs {
				t.Errorf("%s, policy %q: %+v, want running: %v", kind, policy, in.State, runs)
			}
			if kind == "ran" && !runs && (!in.State.Lost || in.State.ExitCode != 255) {
				t.Errorf("%s, policy %q: %+v, want it to be lost", kind, policy, in.State)
			}
		}
	}
}

// A container that was lost with the machine, and that the engine after it could not start, is
// started by the one after that: on-failure knows by State.Lost.
func TestBootAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.open()
	spec := w.spec("box", "sleep")
	spec.Restart.Name = state.PolicyOnFailure
	id := w.start(e, spec)
	w.failAt("attach")
	e = w.reboot(e)
	e.background.Wait()
	if st := w.inspect(e, id).State; st.Status != engine.Exited || !st.Lost || st.Error == "" {
		t.Fatalf("state %+v, want it exited and lost", st)
	}
	w.wantLeft("the start at boot failed")
	w.failAt("")
	e = w.reopen(e)
	e.background.Wait()
	if st := w.inspect(e, id).State; st.Status != engine.Running || st.Lost {
		t.Errorf("state %+v, want it running", st)
	}
}
