package userdb

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const passwd = `# accounts
root:x:0:0:root:/root:/bin/sh
1000:x:0:0:a user that is called like a number:/evil:/bin/sh
app:x:1234:1235::/srv/app:/bin/sh
big:x:4294967296:0::/:/bin/sh
neg:x:-1:0::/:/bin/sh
word:x:ten:0::/:/bin/sh
bigg:x:5:4294967296::/:/bin/sh
short:x:77:78
+nis
`

const group = `root:x:0:root
app:x:1235:
video:x:44:app,root
audio:x:29:other,app
huge:x:4294967340:app
2000:x:0:
`

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, spec string
		add        []string
		want       Identity
		fails      string
	}{
		{name: "empty is root", want: Identity{Groups: []uint32{0, 44}, Home: "/root"}},
		{name: "name", spec: "app", want: Identity{1234, 1235, []uint32{1235, 44, 29}, "/srv/app"}},
		{
			name: "number of an account", spec: "1234",
			want: Identity{1234, 1235, []uint32{1235, 44, 29}, "/srv/app"},
		},
		{name: "number is never a name", spec: "1000", want: Identity{1000, 0, []uint32{0}, "/"}},
		{name: "unknown number", spec: "42", want: Identity{42, 0, []uint32{0}, "/"}},
		{
			name: "explicit group drops memberships", spec: "app:video",
			want: Identity{1234, 44, []uint32{44}, "/srv/app"},
		},
		{
			name: "group number is never a name", spec: "app:2000",
			want: Identity{1234, 2000, []uint32{2000}, "/srv/app"},
		},
		{
			name: "added groups", spec: "42:43", add: []string{"audio", "7", "43"},
			want: Identity{42, 43, []uint32{43, 29, 7}, "/"},
		},
		{name: "empty group", spec: "42:", want: Identity{42, 0, []uint32{0}, "/"}},
		{name: "short line", spec: "short", want: Identity{77, 78, []uint32{78}, "/"}},
		{name: "unknown name", spec: "nobody", fails: "unable to find user nobody"},
		{name: "unknown group", spec: "app:none", fails: "unable to find group none"},
		{
			name: "unknown added group", spec: "app", add: []string{"none"},
			fails: "unable to find group none",
		},
		{name: "too big", spec: "4294967296", fails: "range"},
		{name: "wraps to root in 64 bits", spec: "18446744073709551616", fails: "range"},
		{name: "negative", spec: "-1", fails: "range"},
		{name: "group too big", spec: "1:4294967296", fails: "range"},
		{name: "account too big", spec: "big", fails: "4294967296"},
		{name: "account negative", spec: "neg", fails: "-1"},
		{name: "account no number", spec: "word", fails: "ten"},
		{name: "account group too big", spec: "bigg", fails: "4294967296"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Lookup(tt.spec, tt.add, []byte(passwd), []byte(group))
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) ||
					!errdefs.IsInvalidArgument(err) {
					t.Fatalf(
						"got %+v, %v; want an invalid argument that says %q", got, err, tt.fails,
					)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzLookup(f *testing.F) {
	f.Add("app", passwd, group)
	f.Add("1000:video", passwd, group)
	f.Fuzz(func(t *testing.T, spec, p, g string) {
		id, err := Lookup(spec, nil, []byte(p), []byte(g))
		if err == nil && (id.UID > maxID || id.GID > maxID || len(id.Groups) == 0) {
			t.Fatalf("Lookup(%q) = %+v", spec, id)
		}
	})
}
