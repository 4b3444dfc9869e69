package tasktest

import (
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"

	"strake/task"
)

// keep keeps duplicates of files.
func (p *fakeProcess) keep(list []task.Kept) error {
	p.kept = map[string]*os.File{}
	for i, k := range list {
		if k.Name == "" || p.kept[k.Name] != nil {
			p.closeKept()
			return fmt.Errorf("keep[%d] %q: %w", i, k.Name, errdefs.ErrInvalidArgument)
		}
		fd, err := syscall.Dup(int(k.File.Fd()))
		if err != nil {
			p.closeKept()
			return err
		}
		p.kept[k.Name] = os.NewFile(uintptr(fd), k.Name)
	}
	return nil
}

func (p *fakeProcess) closeKept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.kept {
		f.Close()
	}
	p.kept = nil
}

func (p *fakeProcess) Kept(name string) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		return nil, failed("it is deleted")
	}
	f := p.kept[name]
	if f == nil {
		return nil, fmt.Errorf("kept %q: %w", name, errdefs.ErrNotFound)
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
