package seccomp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// call is struct seccomp_data without the instruction pointer.
type call struct {
	nr, arch uint32
	args     [6]uint64
}

func (c call) String() string {
	return fmt.Sprintf("{arch %#x nr %#x args %#x}", c.arch, c.nr, c.args)
}

// word is what a load of four bytes at an offset reads.
func (c *call) word(offset uint32) (uint32, error) {
	switch {
	case offset == 0:
		return c.nr, nil
	case offset == 4:
		return c.arch, nil
	case offset >= 16 && offset < 64 && offset%4 == 0:
		return uint32(c.args[(offset-16)/8] >> (8 * (offset % 8))), nil
	}
	return 0, fmt.Errorf("load at %d", offset)
}

// run interprets a program as the kernel does (Documentation/networking/filter.rst,
// kernel/seccomp.c) and counts the instructions. It knows what libseccomp emits, too.
func run(prog []unix.SockFilter, c call) (value uint32, steps int, err error) {
	var acc uint32
	for pc := 0; pc < len(prog); steps++ {
		in := prog[pc]
		pc++
		cond := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if acc, err = c.word(in.K); err != nil {
				return 0, steps, err
			}
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps + 1, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			cond = acc == in.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			cond = acc > in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			cond = acc >= in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			cond = acc&in.K != 0
		default:
			return 0, steps, fmt.Errorf("instruction %d has code %#x", pc-1, in.Code)
		}
		if cond {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return 0, steps, fmt.Errorf("ran off the end")
}

// verify checks what the kernel checks when a filter is installed (net/core/filter.c
// bpf_check_classic, kernel/seccomp.c seccomp_check_filter).
func verify(prog []unix.SockFilter) error {
	if len(prog) == 0 || len(prog) > 4096 {
		return fmt.Errorf("%d instructions", len(prog))
	}
	for i, in := range prog {
		rest := len(prog) - i - 1
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K >= 64 || in.K%4 != 0 {
				return fmt.Errorf("instruction %d loads at %d", i, in.K)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			if int(in.K) >= rest {
				return fmt.Errorf("instruction %d jumps out", i)
			}
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K,
			unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			if int(in.Jt) >= rest || int(in.Jf) >= rest {
				return fmt.Errorf("instruction %d branches out", i)
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, unix.BPF_RET | unix.BPF_K:
		default:
			return fmt.Errorf("instruction %d has code %#x", i, in.Code)
		}
	}
	if prog[len(prog)-1].Code != unix.BPF_RET|unix.BPF_K {
		return fmt.Errorf("the last instruction is no return")
	}
	return nil
}
