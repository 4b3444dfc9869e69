package docker

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSentence(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{
			"class at the end", fmt.Errorf("network x not found: %w", errdefs.ErrNotFound),
			"network x not found",
		},
		{
			"two classes",
			fmt.Errorf(
				"%w: %w", fmt.Errorf("image is used: %w", errdefs.ErrConflict),
				errdefs.ErrFailedPrecondition,
			),
			"image is used",
		},
		{
			"the kernel's words", fmt.Errorf("exec: %q: %w", "/etc", errdefs.ErrPermissionDenied),
			`exec: "/etc": permission denied`,
		},
		{"no class", errors.New("disk full"), "disk full"},
		{"only a class", errdefs.ErrNotFound, "not found"},
		{"class inside", fmt.Errorf("%w: x", errdefs.ErrNotFound), "not found: x"},
	} {
		if got := sentence(tc.err); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
