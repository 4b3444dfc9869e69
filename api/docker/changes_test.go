package docker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/image"
)

func TestChanges(t *testing.T) {
	t.Parallel()
	c, err := changesOf(image.RunConfig{}, []string{
		"CMD [\"a\", \"b\"]\nENTRYPOINT run it", `ENV A="1"`, "ENV B 2", `LABEL "k"="v"`, "USER me",
		"WORKDIR /w", "STOPSIGNAL INT", "ONBUILD RUN x", "EXPOSE 80 53/udp", `VOLUME ["/a", "/b"]`,
		"volume /c /d", "  ", "CMD [rubbish",
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"User":"me","ExposedPorts":{"53/udp":{},"80/tcp":{}},"Env":["A=1","B=2"],` +
		`"Entrypoint":["/bin/sh","-c","run it"],"Cmd":["/bin/sh","-c","[rubbish"],` +
		`"Volumes":{"/a":{},"/b":{},"/c":{},"/d":{}},"WorkingDir":"/w","Labels":{"k":"v"},` +
		`"StopSignal":"INT","OnBuild":["RUN x"]}`
	if string(raw) != want {
		t.Errorf("got\n%s, want\n%s", raw, want)
	}
	for _, bad := range []string{"RUN x", "CMD", "LABEL x"} {
		if _, err := changesOf(image.RunConfig{}, []string{bad}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestChangesExpand: instructions replace variables by what was set before them, and quotes and
// escapes are those of a Dockerfile.
func TestChangesExpand(t *testing.T) {
	t.Parallel()
	base := image.RunConfig{ImageConfig: ocispec.ImageConfig{
		Env: []string{"PATH=/bin", "A=1"}, WorkingDir: "/w",
	}}
	for lines, want := range map[string]string{
		"ENV PATH=/x:$PATH":               `Env ["PATH=/x:/bin","A=1"]`,
		"ENV A=2 B=$A C=${A}x":            `Env ["PATH=/bin","A=2","B=1","C=1x"]`,
		"ENV A=2\nENV B=$A":               `Env ["PATH=/bin","A=2","B=2"]`,
		`ENV B='$A' C="$A b" D=a\ b\$A`:   `Env ["PATH=/bin","A=1","B=$A","C=1 b","D=a b$A"]`,
		"ENV B=${N:-d$A} C=${A:-e}":       `Env ["PATH=/bin","A=1","B=d1","C=1"]`,
		"ENV B=${A:+f} C=${N:+g} D=$N.":   `Env ["PATH=/bin","A=1","B=f","C=","D=."]`,
		"ENV B some words $A":             `Env ["PATH=/bin","A=1","B=some words 1"]`,
		`ENV B="a\nb" C=$ D=5$`:           `Env ["PATH=/bin","A=1","B=a\\nb","C=$","D=5$"]`,
		`LABEL a=$A "b c"="d e"`:          `Labels {"a":"1","b c":"d e"}`,
		"USER u$A":                        `User "u1"`,
		"WORKDIR sub/$A":                  `WorkingDir "/w/sub/1"`,
		"WORKDIR /abs/":                   `WorkingDir "/abs"`,
		"EXPOSE 8${A} 53/udp":             `ExposedPorts {"53/udp":{},"81/tcp":{}}`,
		"VOLUME /v$A":                     `Volumes {"/v1":{}}`,
		"CMD echo $A":                     `Cmd ["/bin/sh","-c","echo $A"]`,
		"HEALTHCHECK NONE":                `Healthcheck {"Test":["NONE"]}`,
		"HEALTHCHECK CMD curl -f x":       `Healthcheck {"Test":["CMD-SHELL","curl -f x"]}`,
		`HEALTHCHECK CMD ["curl", "x"]`:   `Healthcheck {"Test":["CMD","curl","x"]}`,
		"healthcheck --retries=3 CMD a b": `Healthcheck {"Test":["CMD-SHELL","a b"],"Retries":3}`,
		"HEALTHCHECK --interval=5s --timeout=1m --start-period=2s " +
			"--start-interval=3s CMD x": `Healthcheck {"Test":["CMD-SHELL","x"],` +
			`"Interval":5000000000,"Timeout":60000000000,"StartPeriod":2000000000,` +
			`"StartInterval":3000000000}`,
	} {
		c, err := changesOf(base, []string{lines})
		if err != nil {
			t.Errorf("%q: %v", lines, err)
			continue
		}
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(want, " ")
		if string(fields[name]) != value {
			t.Errorf("%q: got %s %s, want %s", lines, name, fields[name], want)
		}
	}
	if !slices.Equal(base.Env, []string{"PATH=/bin", "A=1"}) {
		t.Errorf("the environment that was given is %q now", base.Env)
	}
	for _, bad := range []string{
		"ENV A", "ENV A=1 B", `ENV A="x`, "ENV A=${", "ENV A=${}", "ENV A=${B:?x}", "ENV =x",
		"HEALTHCHECK RUN x", "HEALTHCHECK CMD", "HEALTHCHECK --often=1s CMD x",
		"HEALTHCHECK --interval=x CMD x", "HEALTHCHECK --interval=1us CMD x",
		"HEALTHCHECK --retries=-1 CMD x", "USER ${", "EXPOSE ${", "VOLUME ${", "WORKDIR ${",
	} {
		if _, err := changesOf(base, []string{bad}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestCommitConfig: an image of a container has what the container was created with, and changes
// apply to that.
func TestCommitConfig(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	f.images.env = []string{"PATH=/bin", "GONE=1"}
	inspectedOf(t, f, "exited", `{"Image":"one","Env":["A=1","GONE"],"User":"me",
		"WorkingDir":"/w","Labels":{"own":"1"},"Volumes":{"/own":{}},
		"ExposedPorts":{"80/tcp":{}},"Healthcheck":{"Test":["CMD","x"],"Retries":2}}`, nil)
	f.taken()
	const path = "/v1.56/commit?container=exited&changes=ENV%20PATH=/x:$PATH"
	got := exchange(
		f, "POST", path,
		`{"Env":["A=2"],"User":"you","Entrypoint":["other"],"Labels":{"own":"2"}}`, nil,
	)
	for _, want := range []string{
		`"Env":["A=2","PATH=/x:/bin"]`, `"User":"you"`, `"Entrypoint":["other"]`,
		`"WorkingDir":"/w"`, `"Labels":{"image":"1","own":"2","state":"image"}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the image asked for has no %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, `"Cmd"`) {
		t.Errorf("the image has the arguments of another entrypoint: %s", got)
	}
	if got := exchange(f, "POST", path, "{", nil); !strings.Contains(got, "400") {
		t.Errorf("got %s for a body that is no JSON", got)
	}
	got = exchange(f, "POST", path, "null", nil)
	for _, want := range []string{
		`"Env":["A=1","PATH=/x:/bin"]`, `"User":"me"`, `"WorkingDir":"/w"`,
		`"Labels":{"image":"1","own":"1","state":"image"}`, `"Volumes":{"/own":{},"/v":{}}`,
		`"ExposedPorts":{"443/tcp":{},"80/tcp":{}}`, `"Entrypoint":["init"]`, `"Cmd":["sh"]`,
		`"StopSignal":"INT"`, `"Healthcheck":{"Test":["CMD","x"],"Retries":2}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the image has no %s:\n%s", want, got)
		}
	}
}
