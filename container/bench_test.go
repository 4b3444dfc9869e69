package container

import "testing"

// BenchmarkRun is a whole life of a container with standard mounts, namespaces and groups, in a
// process that runs already.
func BenchmarkRun(b *testing.B) {
	rt := runtimeFor(b)
	spec := config(rootfs(b), "")
	spec.Process.Args = []string{"/bin/true"}
	for b.Loop() {
		c, p, err := rt.Create(
			b.Context(),
			CreateOptions{ID: "strake-bench", Bundle: "/", Spec: spec, Raw: []byte("{}")},
		)
		if err != nil {
			b.Fatal(err)
		}
		ws, err := p.Wait()
		p.Close()
		if err != nil || ws.ExitStatus() != 0 {
			b.Fatal(ws, err)
		}
		if err := c.Delete(b.Context(), true); err != nil {
			b.Fatal(err)
		}
	}
}
