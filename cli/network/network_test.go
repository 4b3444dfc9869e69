package network

import (
	"encoding/json"
	"strings"
	"testing"

	"strake/cli/command"
	"strake/cli/internal/verbtest"
)

// TestCreate: each range, gateway and address is sent with the subnet that it lies in.
func TestCreate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args  string
		want  string // the request
		fails string
	}{
		"no options": {"mine", `{"Name":"mine","Driver":"bridge"}`, ""},
		"all": {
			"-d custom -o a=b --label c=d --internal --attachable --ipv4=false --ipv6 " +
				"--ipam-driver other --ipam-opt e=f mine",
			`{"Name":"mine","Driver":"custom","EnableIPv4":false,"EnableIPv6":true,` +
				`"Internal":true,"Attachable":true,"IPAM":{"Driver":"other","Options":{"e":"f"}},` +
				`"Options":{"a":"b"},"Labels":{"c":"d"}}`, "",
		},
		"two subnets": {
			"--subnet 10.1.0.0/16,fd00::/64 --gateway fd00::1 --gateway 10.1.0.1 " +
				"--ip-range 10.1.2.0/24 --aux-address router=10.1.0.9 --aux-address b=fd00::9 mine",
			`{"Name":"mine","Driver":"bridge","IPAM":{"Driver":"default","Config":[` +
				`{"Subnet":"10.1.0.0/16","IPRange":"10.1.2.0/24","Gateway":"10.1.0.1",` +
				`"AuxiliaryAddresses":{"router":"10.1.0.9"}},` +
				`{"Subnet":"fd00::/64","Gateway":"fd00::1",` +
				`"AuxiliaryAddresses":{"b":"fd00::9"}}]}}`, "",
		},
		"no subnet": {"--subnet 10.1 mine", "", `--subnet "10.1": want ADDRESS/LENGTH`},
		"subnets overlap": {
			"--subnet 10.1.0.0/16,10.1.2.0/24 mine", "", "overlaps with 10.1.0.0/16",
		},
		"no range":        {"--ip-range x mine", "", `--ip-range "x": want ADDRESS/LENGTH`},
		"range elsewhere": {"--ip-range 10.1.0.0/24 mine", "", "no matching --subnet"},
		"no gateway":      {"--gateway x mine", "", `--gateway "x"`},
		"gateway elsewhere": {
			"--subnet 10.1.0.0/16 --gateway 10.2.0.1 mine", "", "no matching --subnet",
		},
		"two gateways": {
			"--subnet 10.1.0.0/16 --gateway 10.1.0.1,10.1.0.2 mine", "",
			"subnet 10.1.0.0/16 has one already",
		},
		"two ranges": {
			"--subnet 10.1.0.0/16 --ip-range 10.1.1.0/24,10.1.2.0/24 mine", "", "has one already",
		},
		"no address": {"--aux-address x mine", "", `--aux-address "x": want NAME=ADDRESS`},
		"no option":  {"-o =x mine", "", "--opt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := verbtest.Run(t, create(), `{"Id":"the-id"}`, c.args)
			asked, out, err := got.Asked, got.Out, got.Err
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || asked != "" {
					t.Errorf(
						"got %v after %q, want an error with %q and no request", err, asked,
						c.fails,
					)
				}
				return
			}
			if err != nil || out != "the-id\n" {
				t.Fatalf("got %q, %v; want the ID", out, err)
			}
			body, ok := strings.CutPrefix(asked, "POST /networks/create ")
			if !ok || !sameJSON(t, body, c.want) {
				t.Errorf("got  %s\nwant %s", asked, c.want)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	text := func(s string) string {
		var v any
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		raw, _ := json.Marshal(v) // maps are sorted
		return string(raw)
	}
	return text(a) == text(b)
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verb         command.Command
		args, answer string
		asked, out   string
		fails        string
	}{
		"connect": {
			connect(), "--ip 10.1.0.5 --ip6 fd00::5 --alias a --driver-opt o=v " +
				"--gw-priority 3 n c", "",
			`POST /networks/n/connect {"Container":"c","EndpointConfig":{"IPAMConfig":` +
				`{"IPv4Address":"10.1.0.5","IPv6Address":"fd00::5"},"Aliases":["a"],` +
				`"DriverOpts":{"o":"v"},"GwPriority":3}}`, "", "",
		},
		"connect, with nothing said": {
			connect(), "n c", "",
			`POST /networks/n/connect {"Container":"c","EndpointConfig":{}}`, "", "",
		},
		"connect, with no address": {
			connect(), "--ip x n c", "", "", "", `--ip "x": not an IP address`,
		},
		"disconnect": {
			disconnect(), "-f n c", "",
			`POST /networks/n/disconnect {"Container":"c","Force":true}`, "", "",
		},
		"ls": {
			list(), "-f driver=bridge", `[{"Name":"z","Id":"0123456789abcdef","Driver":"bridge",` +
				`"Scope":"local"},{"Name":"a","Id":"1"}]`,
			`GET /networks?filters=%7B%22driver%22%3A%7B%22bridge%22%3Atrue%7D%7D`,
			"NETWORK ID     NAME      DRIVER    SCOPE\n1              a                   \n" +
				"0123456789ab   z         bridge    local\n", "",
		},
		"ls, what old engines leave out": {
			list(), "--format {{.IPv4}}/{{.IPv6}}",
			`[{"Name":"a"},{"Name":"b","EnableIPv4":false,"EnableIPv6":true}]`,
			"GET /networks", "true/false\nfalse/true\n", "",
		},
		"rm": {remove(), "n", "", "DELETE /networks/n", "n\n", ""},
		"prune": {
			prune(), "-f --filter until=1h", `{"NetworksDeleted":["a","b"]}`,
			`POST /networks/prune?filters=%7B%22until%22%3A%7B%221h%22%3Atrue%7D%7D`,
			"Deleted Networks:\na\nb\n", "",
		},
		"prune, unanswered": {
			prune(), "", "", "",
			"WARNING! This will remove all custom networks not used by at least one container.\n" +
				"Are you sure you want to continue? [y/N] \n", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := verbtest.Run(t, c.verb, c.answer, c.args)
			asked, out, err := got.Asked, got.Out, got.Err
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, want an error with %q", err, c.fails)
				}
				return
			}
			if err != nil || asked != c.asked || out != c.out {
				t.Errorf("asked %s\nwant  %s\noutput %q\nwant   %q\nerror %v", asked, c.asked, out,
					c.out, err)
			}
		})
	}
}
