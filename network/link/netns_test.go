package link

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamespaces: a thread comes home, errors come back, and a cookie names one namespace.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	var cookies [2]uint64
	spaces := [2]*os.File{}
	for i := range spaces {
		spaces[i] = inNamespace(t, func(*os.File, *Socket) (err error) {
			cookies[i], err = Cookie()
			return err
		})
	}
	home, err := Cookie()
	if err != nil {
		t.Fatal(err)
	}
	if cookies[0] == cookies[1] || cookies[0] == home || cookies[1] == home {
		t.Errorf("cookies %v and at home %d: want three", cookies, home)
	}
	thread, err := NewThread()
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for i, ns := range spaces {
		err := thread.Enter(ns, func() error {
			if c, err := Cookie(); err != nil || c != cookies[i] {
				t.Errorf("entered %d: got cookie %d, %v; want %d", i, c, err, cookies[i])
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Errorf("error in namespace %d: got %v", i, err)
		}
		if c, err := Cookie(); err != nil || c != home {
			t.Errorf("came home to cookie %d, %v; want %d", c, err, home)
		}
	}
	if ns, err := thread.Create(func(*os.File) error { return boom }); ns != nil ||
		!errors.Is(err, boom) {
		t.Errorf("creation that fails: got %v, %v", ns, err)
	}
	if err := thread.Enter(nil, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("without a namespace: got %v", err)
	}
	if err := thread.Close(); err != nil {
		t.Error(err)
	}
	file, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Enter(file, func() error { return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("enter what is no namespace: got %v, want EINVAL", err)
	}
}
