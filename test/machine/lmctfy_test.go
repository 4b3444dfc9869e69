package machine

import "testing"

// TestResourceContainersVersion2 runs lmctfy's tests on a host with nothing but version 2 of
// control groups, whose one tree has all controllers.
func TestResourceContainersVersion2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, p := range []struct{ name, pkg, tests string }{
		{"lmctfy", "strake/lmctfy", "."}, {"lmctfy-cli", "strake/lmctfy/cli", "Version2"},
	} {
		m.build("/tests/"+p.name, p.pkg, true)
		m.jobs = append(m.jobs, job{
			Name: p.name, Args: []string{"/tests/" + p.name, "-test.v", "-test.run", p.tests},
			Dir: "/tmp", Seconds: 200,
		})
	}
	for _, r := range m.run() {
		report(t, r)
	}
}
