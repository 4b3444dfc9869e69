package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(
		"# CONFIG_BRIDGE is not set\nCONFIG_NAMESPACES=y\nCONFIG_VETH=m\nCONFIG_VETHX=y\nCONFIG_IPC_NS=n\n",
	), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(config string) (string, int) {
		t.Setenv("CONFIG", config)
		var out bytes.Buffer
		code := Main(context.Background(), &Process{
			Out: &out, Err: &out, Program: []string{"strake-lxc"}, Version: "1",
		}, "checkconfig", nil)
		return out.String(), code
	}
	out, code := check(file)
	for _, want := range []string{
		"\nNamespaces: enabled\n", "\nVeth pair device: enabled", "\nBridges: missing\n",
		"\nIpc namespace: required\n", "\n--- Control groups ---\n", "CONFIG=/path/to/config strake-lxc",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("no %q in, status %d:\n%s", want, code, out)
		}
	}
	if out, code := check(file + "-missing"); code != 1 || !strings.Contains(out, "no such file") {
		t.Errorf("status %d, %s", code, out)
	}
	// Without a configuration the kernel is asked.
	k := kernelCheck{}
	ns := feature{sign: "/proc/self/ns/mnt", config: "NAMESPACES"}
	if known, has := k.has(&ns); !known || !has {
		t.Error("the kernel seems to have no namespaces")
	}
	for sign, want := range map[string]bool{"/proc/filesystems proc": true, "/proc/filesystems no": false} {
		if _, has := k.has(&feature{sign: sign}); has != want {
			t.Errorf("%s: %t", sign, has)
		}
	}
}
