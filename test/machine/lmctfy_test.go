package machine

import "testing"

// TestResourceContainersVersion2 runs lmctfy's tests on a host with nothing but version 2 of control
// groups, whose one tree has all controllers.
func TestResourceContainersVersion2(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.build("/tests/lmctfy", "strake/lmctfy", true)
	m.jobs = append(m.jobs, job{
		Name: "lmctfy", Args: []string{"/tests/lmctfy", "-test.v"}, Dir: "/tmp", Seconds: 200,
	})
	for _, r := range m.run() {
		report(t, r)
	}
}
