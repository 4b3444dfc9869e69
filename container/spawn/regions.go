package spawn

import (
	"cmp"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// live belongs to the process, as its address space does: one Machine's children must not be born
// without their memory because another Machine clones at the same time.
var live regions

// regions are the mappings that children are being cloned with.
//
// A child needs nothing of this process, so nothing else is copied into it: before a clone, all
// that is mapped is marked MADV_DONTFORK, except what another goroutine is about to clone with,
// whose child would otherwise be born without a program.
type regions struct {
	mu   sync.Mutex
	list [][]byte // sorted by address; guarded by mu
}

func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

func byAddress(a, b []byte) int { return cmp.Compare(address(a), address(b)) }

// mmap marks what is mapped now and maps size bytes, which are copied into the next child. They are
// not on the Go heap: the collector never sees them, and the child can keep them alone.
func (r *regions) mmap(size int) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// That madvise reports holes (ENOMEM) is expected. What another thread maps after it is copied,
	// and unmapped by the child. The standard library's own vfork shares memory instead of copying
	// it and does not notice.
	from := uintptr(0)
	for _, mem := range r.list {
		at := address(mem)
		unix.RawSyscall(unix.SYS_MADVISE, from, at-from, unix.MADV_DONTFORK)
		from = at + pages(len(mem))
	}
	unix.RawSyscall(unix.SYS_MADVISE, from, addressSpace-from, unix.MADV_DONTFORK)
	// Every page of it is written before the clone; populated, they come with one fault.
	mem, err := unix.Mmap(
		-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE,
	)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearchFunc(r.list, mem, byAddress)
	r.list = slices.Insert(r.list, at, mem)
	return mem, nil
}

func (r *regions) munmap(mem []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, found := slices.BinarySearchFunc(r.list, mem, byAddress); found {
		r.list = slices.Delete(r.list, at, at+1)
	}
	unix.Munmap(mem)
}

func pages(n int) uintptr {
	page := uintptr(unix.Getpagesize())
	return (uintptr(n) + page - 1) &^ (page - 1)
}
