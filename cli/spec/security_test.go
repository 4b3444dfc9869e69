package spec

import "testing"

// TestBareSecurityOptions: the options that have no value. docker's client of 2025 does not know
// writable-cgroups without one yet, so this is not among the requests that are compared with it.
func TestBareSecurityOptions(t *testing.T) {
	t.Parallel()
	for opt, want := range map[string]bool{
		"no-new-privileges": true, "writable-cgroups": true, "writable": false,
	} {
		got, err := securityOpt(opt, Source{})
		if ok := err == nil && got == opt; ok != want {
			t.Errorf("%s: got %q, %v", opt, got, err)
		}
	}
}
