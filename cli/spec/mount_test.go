package spec

import (
	"reflect"
	"strings"
	"testing"

	"strake/cli/api"
)

// TestMount has each option of --mount, and what is wrong with it.
func TestMount(t *testing.T) {
	t.Parallel()
	const bind, volume, tmpfs = "type=bind,src=/s,dst=/d,", "dst=/d,", "type=tmpfs,dst=/d,"
	of := func(change func(m *api.Mount)) api.Mount {
		m := api.Mount{Type: "bind", Source: "/s", Target: "/d", BindOptions: &api.BindOptions{}}
		change(&m)
		return m
	}
	ofVolume := func(o api.VolumeOptions) api.Mount {
		return api.Mount{Type: "volume", Target: "/d", VolumeOptions: &o}
	}
	ofTmpfs := func(o api.TmpfsOptions) api.Mount {
		return api.Mount{Type: "tmpfs", Target: "/d", TmpfsOptions: &o}
	}
	for _, c := range []struct {
		mount string
		want  api.Mount
		fails string
	}{
		{
			mount: "type=BIND,source=/s,destination=/d",
			want:  api.Mount{Type: "bind", Source: "/s", Target: "/d"},
		},
		{mount: "target=/d", want: api.Mount{Type: "volume", Target: "/d"}},
		{mount: "dst=/d,readonly", want: api.Mount{Type: "volume", Target: "/d", ReadOnly: true}},
		{mount: "dst=/d,ro=1", want: api.Mount{Type: "volume", Target: "/d", ReadOnly: true}},
		{mount: "dst=/d,ro,ro=false", want: api.Mount{Type: "volume", Target: "/d"}},
		{mount: "dst=/d,ro=yes", fails: "want true or false"},
		{
			mount: "dst=/d,consistency=cached",
			want:  api.Mount{Type: "volume", Target: "/d", Consistency: "cached"},
		},

		{
			mount: bind + "bind-propagation=rslave",
			want:  of(func(m *api.Mount) { m.BindOptions.Propagation = "rslave" }),
		},
		{mount: bind + "bind-propagation=up", fails: "want private, rprivate"},
		{
			mount: bind + "bind-nonrecursive",
			want:  of(func(m *api.Mount) { m.BindOptions.NonRecursive = true }),
		},
		{
			mount: bind + "bind-create-src=true",
			want:  of(func(m *api.Mount) { m.BindOptions.CreateMountpoint = true }),
		},
		{mount: bind + "bind-recursive=enabled", want: of(func(*api.Mount) {})},
		{
			mount: bind + "bind-recursive=disabled",
			want:  of(func(m *api.Mount) { m.BindOptions.NonRecursive = true }),
		},
		{
			mount: bind + "bind-recursive=writable",
			want:  of(func(m *api.Mount) { m.BindOptions.ReadOnlyNonRecursive = true }),
		},
		{
			mount: bind + "bind-recursive=readonly",
			want:  of(func(m *api.Mount) { m.BindOptions.ReadOnlyForceRecursive = true }),
		},
		{mount: bind + "bind-recursive=no", fails: "want enabled, disabled, writable or readonly"},
		{mount: bind + "bind-what=x", fails: "unknown key 'bind-what'"},

		{mount: volume + "volume-nocopy", want: ofVolume(api.VolumeOptions{NoCopy: true})},
		{mount: volume + "volume-subpath=x", want: ofVolume(api.VolumeOptions{Subpath: "x"})},
		{
			mount: volume + "volume-label=a=b",
			want:  ofVolume(api.VolumeOptions{Labels: map[string]string{"a": "b"}}),
		},
		{mount: volume + "volume-label=a", fails: "want volume-label=NAME=VALUE"},
		{
			mount: volume + "volume-driver=d",
			want:  ofVolume(api.VolumeOptions{DriverConfig: &api.VolumeDriver{Name: "d"}}),
		},
		{
			mount: volume + "volume-opt=a=b=c,volume-opt=d=",
			want: ofVolume(api.VolumeOptions{DriverConfig: &api.VolumeDriver{
				Options: map[string]string{"a": "b=c", "d": ""},
			}}),
		},
		{mount: volume + "volume-opt==b", fails: "want volume-opt=NAME=VALUE"},
		{mount: volume + "volume-what=x", fails: "unknown key 'volume-what'"},

		{mount: tmpfs + "tmpfs-size=1k", want: ofTmpfs(api.TmpfsOptions{SizeBytes: 1024})},
		{mount: tmpfs + "tmpfs-size=x", fails: "tmpfs-size=x"},
		{mount: tmpfs + "tmpfs-mode=1777", want: ofTmpfs(api.TmpfsOptions{Mode: 0o1777})},
		{mount: tmpfs + "tmpfs-mode=9", fails: "want an octal number"},
		{mount: tmpfs + "tmpfs-what=x", fails: "unknown key 'tmpfs-what'"},
		{mount: tmpfs + "source=/s", fails: "a tmpfs has no source"},

		{mount: "type=image,dst=/d", fails: "want bind, volume or tmpfs"},
		{mount: "type", fails: "want KEY=VALUE"},
		{mount: "what", fails: "want KEY=VALUE"},
		{mount: "bind=x", fails: "unknown key 'bind'"},
		{mount: `"dst=/d`, fails: "extraneous or missing"},
		{mount: bind + "tmpfs-mode=7", fails: "cannot mix 'tmpfs-mode' with mount type 'bind'"},
		{mount: tmpfs + "bind-nonrecursive", fails: "cannot mix 'bind-nonrecursive' with mount " +
			"type 'tmpfs'"},
	} {
		got, err := parseMount(c.mount)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: got %+v, %v; want an error with %q", c.mount, got, err, c.fails)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", c.mount, got, err, c.want)
		}
	}
}
