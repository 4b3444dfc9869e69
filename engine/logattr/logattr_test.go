package logattr

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/engine"
)

func TestText(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"com.a": "1", "com.b": "<2>", "org": "3", "": "nameless"}
	env := []string{"A=1", "AB=x=y", "C", "D="}
	c := &Container{
		FullID: strings.Repeat("1", 64), Name: "web",
		ImageFullID: "sha256:" + strings.Repeat("a", 64), ImageName: "busybox",
	}
	for _, tt := range []struct {
		name string
		cfg  engine.LogConfig
		want string
	}{
		{"nothing", engine.LogConfig{}, ""},
		{"a label", engine.LogConfig{Labels: "com.a,missing,"}, `{"com.a":"1"}`},
		{
			"labels by an expression", engine.LogConfig{LabelsRegex: "^com"},
			`{"com.a":"1","com.b":"\u003c2\u003e"}`,
		},
		{"variables", engine.LogConfig{Env: "AB,C,D"}, `{"AB":"x=y","D":""}`},
		{"variables by an expression", engine.LogConfig{EnvRegex: "A$"}, `{"A":"1"}`},
		{"none of them", engine.LogConfig{Labels: "x", Env: "x", EnvRegex: "x"}, ""},
		{
			"a tag beside them", engine.LogConfig{Labels: "org", Tag: "{{.Name}}/{{.ID}}"},
			`{"org":"3","tag":"web/111111111111"}`,
		},
		{
			"a tag of the image",
			engine.LogConfig{Tag: "{{.ImageName}} {{.ImageID}} {{slice .ImageFullID 0 9}}"},
			`{"tag":"busybox aaaaaaaaaaaa sha256:aa"}`,
		},
		{
			"functions",
			engine.LogConfig{
				Tag: `{{upper .Name}}{{pad .Name 1 2}}{{truncate .FullID 2}}` +
					`{{json .Name}}{{join (split "a.b" ".") "-"}}{{.DaemonName}}`,
			},
			`{"tag":"WEB web  11\"web\"a-bdocker"}`,
		},
		{"the host", engine.LogConfig{Tag: "{{.Hostname}}"}, `{"tag":"` + host + `"}`},
		{"an empty tag", engine.LogConfig{Tag: "{{if false}}x{{end}}"}, ""},
	} {
		if err := Check(&tt.cfg); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		got, err := Text(Select(&tt.cfg, labels, env), tt.cfg.Tag, c)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []engine.LogConfig{
		{LabelsRegex: "("}, {EnvRegex: "["}, {Tag: "{{"}, {Tag: "{{.Nothing}}"},
	} {
		if err := Check(&c); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	long := map[string]string{"a": strings.Repeat("x", maxBytes)}
	if _, err := Text(long, "", &Container{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
