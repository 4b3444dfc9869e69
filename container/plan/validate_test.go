package plan

import (
	"strings"
	"testing"
)

// TestSameSysctlRefused compiles a configuration with two refused parameters several times: each
// time the error names the same one.
func TestSameSysctlRefused(t *testing.T) {
	t.Parallel()
	for range 50 {
		s := base()
		s.Linux.Sysctl = map[string]string{"vm.swappiness": "1", "kernel.panic": "1"}
		_, err := Init(s, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), "linux.sysctl[kernel.panic]: ") {
			t.Fatalf("got %v, want an error about kernel.panic", err)
		}
	}
}
