package system

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"strake/cli/api"
	"strake/cli/command"
)

func TestEventLine(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_767_323_045, 5).Format("2006-01-02T15:04:05.000000000Z07:00")
	e := api.Event{Type: "container", Action: "start", Time: 1, TimeNano: 1_767_323_045_000_000_005}
	e.Actor.ID = "abc"
	if got, want := eventLine(&e), at+" container start abc\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	e.Actor.Attributes = map[string]string{"name": "web", "image": "bb"}
	if got, want := eventLine(&e), at+" container start abc (image=bb, name=web)\n"; got != want {
		t.Errorf("with attributes: got %q, want %q", got, want)
	}
	e.TimeNano = 0
	second := time.Unix(1, 0).Format("2006-01-02T15:04:05")
	if got := eventLine(&e); !strings.HasPrefix(got, second) {
		t.Errorf("of an engine without nanoseconds: %q", got)
	}
}

func TestEventWriter(t *testing.T) {
	t.Parallel()
	events := []json.RawMessage{
		json.RawMessage(`{"Type":"image","Action":"pull"}`),
		json.RawMessage(`{"Type":"network","Action":"create"}`), nil,
	}
	for name, c := range map[string]struct{ text, output, want, fails string }{
		"array": {
			output: "json",
			want: `[{"Type":"image","Action":"pull"},` +
				`{"Type":"network","Action":"create"}]` + "\n",
		},
		"template":    {text: "{{.Type}} {{.Action}}", want: "image pull\nnetwork create\n"},
		"two forms":   {text: "x", output: "json", fails: "conflicting options"},
		"no form":     {output: "yaml", fails: `--output "yaml": want json`},
		"no template": {text: "{{", fails: "template: --format"},
		"no field":    {text: "{{.Nothing}}", fails: `no entry for key "Nothing"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			s := &command.Session{Env: command.Env{Out: &out}}
			show, err := eventWriter(s, c.text, c.output)
			for i := 0; err == nil && i < len(events); i++ {
				err = show(events[i])
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want an error with %q", err, c.fails)
				}
				return
			}
			if err != nil || out.String() != c.want {
				t.Errorf("got %q, %v; want %q", &out, err, c.want)
			}
		})
	}
}

func TestUsageRows(t *testing.T) {
	t.Parallel()
	type usage = struct{ Size, RefCount int64 }
	u := &api.DiskUsage{
		LayersSize: 10_000_000,
		Images: []api.Image{
			{Size: 6_000_000, SharedSize: 2_000_000, Containers: 1}, {Size: 5_000_000},
		},
		Containers: []api.Container{
			{State: "running", SizeRw: 1000}, {State: "paused", SizeRw: 1000},
			{State: "exited", SizeRw: 2000},
		},
		Volumes: []api.Volume{
			{UsageData: &usage{Size: 3000, RefCount: 1}}, {UsageData: &usage{Size: 1000}},
			{UsageData: &usage{Size: -1}}, {},
		},
		BuildCache: []api.BuildRecord{
			{Size: 10, InUse: true}, {Size: 20}, {Size: 40, Shared: true},
		},
	}
	want := []usageRow{
		{Type: "Images", TotalCount: "2", Active: "1", Size: "10MB", Reclaimable: "6MB (60%)"},
		{Type: "Containers", TotalCount: "3", Active: "2", Size: "4kB", Reclaimable: "2kB (50%)"},
		{
			Type: "Local Volumes", TotalCount: "4", Active: "1", Size: "4kB",
			Reclaimable: "1kB (25%)",
		},
		{Type: "Build Cache", TotalCount: "3", Active: "1", Size: "30B", Reclaimable: "20B"},
	}
	got := usageRows(u)
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	for _, r := range usageRows(&api.DiskUsage{}) {
		if r.Reclaimable != "0B" || r.TotalCount != "0" {
			t.Errorf("of nothing: %+v", r)
		}
	}
}

func TestPlacesOf(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]int{
		"": 4, "container": 1, "image": 1, "network": 1, "volume": 1,
	} {
		if got, err := placesOf(kind); err != nil || len(got) != want {
			t.Errorf("%q: got %d places, %v; want %d", kind, len(got), err, want)
		}
	}
	if _, err := placesOf("thing"); err == nil || !strings.Contains(err.Error(), `"thing"`) {
		t.Errorf("no kind: %v", err)
	}
}
