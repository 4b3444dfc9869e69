package seccomp

import "testing"

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arch   string
		number int
		want   string
	}{
		{"amd64", 0, "read"}, {"amd64", 257, "openat"}, {"arm64", 56, "openat"},
		{"amd64", 9999, ""}, {"amd64", -1, ""}, {"riscv64", 0, ""},
	} {
		if got, ok := Name(c.arch, c.number); got != c.want || ok != (c.want != "") {
			t.Errorf("Name(%s, %d) = %q, %v, want %q", c.arch, c.number, got, ok, c.want)
		}
	}
	for _, c := range []struct {
		arch, name string
		want       bool
	}{
		{"amd64", "openat", true}, {"amd64", "open", true}, {"arm64", "arm_fadvise64_64", true},
		{"amd64", "waitpid", true}, {"amd64", "arm_fadvise64_64", false}, {"arm64", "none", false},
		{"riscv64", "read", false},
	} {
		if got := Has(c.arch, c.name); got != c.want {
			t.Errorf("Has(%s, %s) = %v", c.arch, c.name, got)
		}
	}
}
