package volume

import (
	"strings"
	"testing"

	"strake/cli/command"
	"strake/cli/internal/verbtest"
)

func TestVerbs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verb         command.Command
		args, answer string
		asked, out   string
		fails        string
	}{
		"create": {
			create(), "-d other -o type=tmpfs -o o=size=1m --label a=b data", `{"Name":"data"}`,
			`POST /volumes/create {"Name":"data","Driver":"other",` +
				`"DriverOpts":{"o":"size=1m","type":"tmpfs"},"Labels":{"a":"b"}}`, "data\n", "",
		},
		"create, the engine names it": {
			create(), "", `{"Name":"0123"}`,
			`POST /volumes/create {"Driver":"local"}`, "0123\n", "",
		},
		"create, by the old flag": {
			create(), "--name data", `{"Name":"data"}`,
			`POST /volumes/create {"Name":"data","Driver":"local"}`, "data\n", "",
		},
		"create, named twice": {create(), "--name a b", "", "", "", "conflicting options"},
		"create, no option":   {create(), "-o =x", "", "", "", "--opt"},
		"ls": {
			list(), "-f dangling=true",
			`{"Volumes":[{"Name":"z","Driver":"local"},{"Name":"a","Driver":"local"}],` +
				`"Warnings":["a plugin is absent"]}`,
			`GET /volumes?filters=%7B%22dangling%22%3A%7B%22true%22%3Atrue%7D%7D`,
			"DRIVER    VOLUME NAME\nlocal     a\nlocal     z\nWARNING: a plugin is absent\n", "",
		},
		"ls, what is known of their use": {
			list(), "--format {{.Name}}:{{.Links}}:{{.Size}}:{{.Labels}}",
			`{"Volumes":[{"Name":"a","UsageData":{"Size":2000,"RefCount":3},"Labels":{"k":"v"}},` +
				`{"Name":"b"}]}`,
			"GET /volumes", "a:3:2kB:k=v\nb:N/A:N/A:\n", "",
		},
		"ls, names alone": {
			list(), "-q", `{"Volumes":[{"Name":"a"}]}`, "GET /volumes", "a\n", "",
		},
		"rm": {
			remove(), "-f a b", "",
			"DELETE /volumes/a?force=1\nDELETE /volumes/b?force=1", "a\nb\n", "",
		},
		"inspect": {
			inspect(), "-f {{.Name}} a", `{"Name":"a"}`, "GET /volumes/a", "a\n", "",
		},
		"prune": {
			prune(), "-f", `{"VolumesDeleted":["a","b"],"SpaceReclaimed":123456}`,
			"POST /volumes/prune",
			"Deleted Volumes:\na\nb\n\nTotal reclaimed space: 123.5kB\n", "",
		},
		"prune, named ones too": {
			prune(), "-af --filter label=x", `{}`,
			`POST /volumes/prune?filters=%7B%22all%22%3A%7B%22true%22%3Atrue%7D%2C` +
				`%22label%22%3A%7B%22x%22%3Atrue%7D%7D`, "Total reclaimed space: 0B\n", "",
		},
		"prune, unanswered": {
			prune(), "", "", "",
			"WARNING! This will remove anonymous local volumes not used by at least one " +
				"container.\n" +
				"Are you sure you want to continue? [y/N] \n", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := verbtest.Run(t, c.verb, c.answer, c.args)
			if c.fails != "" {
				if got.Err == nil || !strings.Contains(got.Err.Error(), c.fails) ||
					got.Asked != "" {
					t.Errorf(
						"got %v after %q, want an error with %q and no request", got.Err, got.Asked,
						c.fails,
					)
				}
				return
			}
			if want := (verbtest.Result{Asked: c.asked, Out: c.out}); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}
