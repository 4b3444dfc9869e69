package backend

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"golang.org/x/sys/unix"
)

// TestRemoveOnFullDisk gives up leases and collects on a disk without space, with databases of many
// sizes. It needs root, to mount a small tmpfs.
func TestRemoveOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 10, 40, 100, 160, 250, 400} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			root := t.TempDir()
			if err := unix.Mount("strake-test", root, "tmpfs", 0, "size=16m"); err != nil {
				t.Skipf("needs root, to mount a tmpfs: %v", err)
			}
			t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
			b := open(t, root)
			ctx := Context(t.Context())
			var all []leases.Lease
			for i := range n {
				l, err := b.Stores().Leases.Create(ctx, leases.WithID(fmt.Sprintf("l%d", i)))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, l)
				o := Operation{b: b, lease: l, held: map[leases.Resource]bool{}}
				if err := o.WriteDocument(
					t.Context(), "blob", fmt.Appendf(nil, "blob %d", i), nil,
				); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(
				filepath.Join(root, "fill"), make([]byte, 16<<20), 0o600,
			); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("fill the disk: %v", err)
			}
			for i, l := range all {
				if i%2 == 0 {
					continue // so that every page of the database stays, and changes
				}
				if err := b.Stores().Leases.Delete(ctx, l); err != nil {
					t.Fatalf("delete a lease: %v", err)
				}
			}
			if err := b.Collect(t.Context()); err != nil {
				t.Fatalf("collect: %v", err)
			}
		})
	}
}
