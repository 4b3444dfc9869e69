package registry

import "testing"

func TestInsecure(t *testing.T) {
	t.Parallel()
	r := Config{Insecure: []string{"10.0.0.0/8", "reg.example:5000", "plain.example"}}
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.1.2.3": true, "[::1]:80": true, "10.2.3.4:5000": true,
		"11.2.3.4": false, "reg.example:5000": true, "reg.example": false, "plain.example:1": true,
		"docker.io": false,
	} {
		if r.insecure(host) != want {
			t.Errorf("insecure(%q) is %v", host, !want)
		}
	}
}
