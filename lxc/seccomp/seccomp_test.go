package seccomp

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/container/seccomp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const archs = `"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]`
	for _, c := range []struct{ name, policy, want, warnings string }{
		{
			"denylist kills", "2\ndenylist\nmount\numount2\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["mount","umount2"],"action":"SCMP_ACT_KILL"}]}`, "",
		},
		{
			"old words", "2\nblacklist\nmount errno 1\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`, "",
		},
		{
			"allowlist with a default", "2\nwhitelist errno 38\n[all]\nread\nwrite trap # why\n",
			`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,` + archs +
				`,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},` +
				`{"names":["write"],"action":"SCMP_ACT_TRAP"}]}`, "",
		},
		{
			"force umount", "2\ndenylist\nreject_force_umount  # comment\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["umount2"],"action":"SCMP_ACT_ERRNO","errnoRet":13,` +
				`"args":[{"index":1,"value":1,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`, "",
		},
		{
			"conditions", "2\ndenylist\nioctl errno 1 [1,0x5412,SCMP_CMP_EQ][2,4,&=,0xff]\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":1,` +
				`"args":[{"index":1,"value":21522,"op":"SCMP_CMP_EQ"},` +
				`{"index":2,"value":255,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"}]}]}`, "",
		},
		{
			"a condition without an action", "2\ndenylist kill\nkill [0,1,<=]\n",
			`{"defaultAction":"SCMP_ACT_KILL",` + archs +
				`,"syscalls":[{"names":["kill"],"action":"SCMP_ACT_KILL",` +
				`"args":[{"index":0,"value":1,"op":"SCMP_CMP_LE"}]}]}`, "",
		},
		{
			"sections", "2\ndenylist\n[arm64]\nread\n[X86]\nmount\n[all]\nsync\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["mount","sync"],"action":"SCMP_ACT_KILL"}]}`, "",
		},
		{
			"unknown calls", "2\ndenylist\nfuture_call\nmount\n",
			`{"defaultAction":"SCMP_ACT_ALLOW",` + archs +
				`,"syscalls":[{"names":["mount"],"action":"SCMP_ACT_KILL"}]}`,
			"line 3: future_call is not a system call here; the rule is left out",
		},
		{
			"version 1", "1\nallowlist\n0\n# a comment\n1\n9999\n",
			`{"defaultAction":"SCMP_ACT_KILL","architectures":["SCMP_ARCH_X86_64"],` +
				`"syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"}]}`,
			"line 6: 9999 is not the number of a system call; the rule is left out",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]byte(c.policy), Host{Arch: "amd64"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(p.Filter)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if w := strings.Join(p.Warnings, "\n"); w != c.warnings {
				t.Errorf("warnings: got %q, want %q", w, c.warnings)
			}
			if _, err := seccomp.Compile(p.Filter, seccomp.Options{Arch: "amd64"}); err != nil {
				t.Errorf("the library refuses the result: %v", err)
			}
		})
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	p, err := Parse(
		[]byte("2\nallowlist\n[x86]\nopen\n[arm]\nopenat notify\n"), Host{Arch: "arm64"},
	)
	if err != nil {
		t.Fatal(err)
	}
	f := p.Filter
	if !p.Notify || len(f.Syscalls) != 1 || f.Syscalls[0].Names[0] != "openat" ||
		f.Architectures[0] != "SCMP_ARCH_AARCH64" {
		t.Errorf("got %+v, %+v", p, f)
	}
	p, err = Parse([]byte("2\ndenylist\nnew_call\n"), Host{
		Arch: "amd64", Known: func(name string) bool { return name == "new_call" },
	})
	if err != nil || len(p.Filter.Syscalls) != 1 || p.Notify {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		"":                                   "line 0: the policy ends here: want a version",
		"2\n":                                "line 1: the policy ends here",
		"3\nallowlist\n":                     `line 1: version "3": want 1 or 2`,
		"2\nlist\n":                          `line 2: "list": want allowlist or denylist`,
		"1\ndenylist\n":                      `line 2: "denylist": version 1`,
		"1\nallowlist errno 1\n":             "line 2: ",
		"1\nallowlist\nread\n":               `line 3: "read": want the number`,
		"2\nallowlist debug\n":               `line 2: action "debug": want kill, trap, errno N`,
		"2\nallowlist notify\n":              "line 2: notify: want it",
		"2\nallowlist kill all\n":            "line 2: ",
		"2\n\n# x\nallowlist\n[vax]\n":       `line 5: section "[vax]": want one of all, arm`,
		"2\nallowlist\n[all\n":               `line 3: section "[all"`,
		"2\nallowlist\nread errno\n":         `line 3: errno "": want a number from 0 to 4095`,
		"2\nallowlist\nread errno 5000\n":    `line 3: errno "5000"`,
		"2\nallowlist\nread stop\n":          `line 3: action "stop": want kill, trap, errno N`,
		"2\nallowlist\nre-ad\n":              `line 3: "re-ad": want the name`,
		"2\nallowlist\nread allow it\n":      `line 3: "it": want conditions`,
		"2\nallowlist\nread [0,1]\n":         "line 3: [0,1]: want [index,value,op]",
		"2\nallowlist\nread [6,1,==]\n":      `line 3: [6,1,==]: index "6": want 0 to 5`,
		"2\nallowlist\nread [0,x,==]\n":      `line 3: [0,x,==]: "x": want a number`,
		"2\nallowlist\nread [0,1,=]\n":       `line 3: [0,1,=]: operator "=": want one of != <`,
		"2\nallowlist\nread [0,1,==\n":       "line 3: ",
		"2\ndenylist\nreject_force_umount 1": `line 3: action "1"`,
	} {
		_, err := Parse([]byte(policy), Host{Arch: "amd64"})
		if err == nil || !strings.HasPrefix(err.Error(), want) ||
			!errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: got %v, want %s…", policy, err, want)
		}
	}
	if _, err := Parse([]byte("2\nallowlist\n"), Host{Arch: "vax"}); err == nil {
		t.Error("a filter for an architecture that the library does not know")
	}
}

// FuzzParse: no policy makes the parser fail otherwise than with an error about a line, and what it
// takes is a filter.
func FuzzParse(f *testing.F) {
	f.Add([]byte("2\nallowlist errno 1\n[all]\nread\nioctl trap [1,0x5401,&=,3]\n"))
	f.Add([]byte("1\nwhitelist\n0\n1\n"))
	f.Add([]byte("2\ndenylist\nreject_force_umount\n[arm]\nopen\n"))
	f.Fuzz(func(t *testing.T, policy []byte) {
		p, err := Parse(policy, Host{Arch: "amd64"})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("%q: %v", policy, err)
			}
			return
		}
		if p.Notify {
			p.Filter.ListenerPath = "/run/agent"
		}
		// Policies may contradict themselves, or be too long for the kernel.
		_, err = seccomp.Compile(p.Filter, seccomp.Options{Arch: "amd64"})
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", policy, err)
		}
	})
}
