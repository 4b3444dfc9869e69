package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// updateFlags are the options of update. Only those that were given change anything.
type updateFlags struct {
	file                                    string
	blkioWeight                             uint
	cpuPeriod, cpuShare, cpuBurst, rtPeriod uint64
	cpuQuota, rtRuntime, pids               int64
	memory, reservation, swap               size
	cpuIdle                                 int64
	cpus, mems                              string
}

// size is a number of bytes as an option: 1048576, 1024k, 1M, 1MiB or 0.5g, all powers of 1024, or
// -1.
type size int64

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }

func (s *size) Set(text string) error {
	if text == "-1" {
		*s = -1
		return nil
	}
	number := strings.ToLower(text)
	shift := 0
	for _, unit := range []string{"ib", "b", ""} {
		rest, ok := strings.CutSuffix(number, unit)
		if !ok || rest == "" {
			continue
		}
		at := strings.IndexByte("kmgtp", rest[len(rest)-1])
		if at >= 0 {
			number, shift = rest[:len(rest)-1], 10*(at+1)
		} else if unit == "b" {
			number = rest
		}
		break
	}
	number = strings.TrimSuffix(number, " ")
	if strings.Trim(number, "0123456789.") != "" {
		return errSize
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n<<shift>>shift == n {
		*s = size(n << shift)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if f *= float64(int64(1) << shift); err != nil || f >= math.MaxInt64 {
		return errSize
	}
	*s = size(f)
	return nil
}

var errSize = errors.New("want a number of bytes, perhaps with k, M, G, T or P, or -1")

func (u *updateFlags) define(fs *flag.FlagSet) {
	for _, n := range []string{"resources", "r"} {
		fs.StringVar(&u.file, n, "", "`file` with limits as JSON; - for standard input")
	}
	fs.UintVar(&u.blkioWeight, "blkio-weight", 0, "block I/O `weight`, 10 to 1000")
	fs.Uint64Var(&u.cpuPeriod, "cpu-period", 0, "CFS period in `microseconds`")
	fs.Int64Var(&u.cpuQuota, "cpu-quota", 0, "CFS quota in `microseconds` per period")
	fs.Uint64Var(&u.cpuBurst, "cpu-burst", 0, "CFS burst in `microseconds`")
	fs.Uint64Var(&u.cpuShare, "cpu-share", 0, "CPU `shares`")
	fs.Uint64Var(&u.rtPeriod, "cpu-rt-period", 0, "realtime period in `microseconds`")
	fs.Int64Var(&u.rtRuntime, "cpu-rt-runtime", 0, "realtime runtime in `microseconds`")
	fs.Int64Var(&u.cpuIdle, "cpu-idle", 0, "1 makes the group idle, 0 normal")
	fs.StringVar(&u.cpus, "cpuset-cpus", "", "`processors` to run on, as 0-2,7")
	fs.StringVar(&u.mems, "cpuset-mems", "", "memory `nodes`, as 0,1")
	fs.Var(&u.memory, "memory", "memory limit in `bytes`, as 52428800 or 50M; -1 for none")
	fs.Var(&u.reservation, "memory-reservation", "soft memory limit in `bytes`")
	fs.Var(&u.swap, "memory-swap", "limit of memory and swap in `bytes`; -1 for none")
	fs.Int64Var(&u.pids, "pids-limit", 0, "highest `number` of processes; -1 for no limit")
	fs.Var(new(size), "kernel-memory", "accepted for runc's sake")
	fs.Var(new(size), "kernel-memory-tcp", "accepted for runc's sake")
}

func (u *updateFlags) resources(fs *flag.FlagSet, stdin io.Reader) (*specs.LinuxResources, error) {
	res := new(specs.LinuxResources)
	if u.file != "" {
		in := stdin
		if u.file != "-" {
			f, err := os.Open(u.file)
			if err != nil {
				return nil, fmt.Errorf("--resources: %w", err)
			}
			defer f.Close()
			in = f
		}
		if err := json.NewDecoder(in).Decode(res); err != nil {
			return nil, fmt.Errorf("--resources %s: %w", u.file, err)
		}
		return res, nil
	}
	cpu, mem := new(specs.LinuxCPU), new(specs.LinuxMemory)
	any := false
	fs.Visit(func(f *flag.Flag) {
		any = true
		switch f.Name {
		case "blkio-weight":
			w := uint16(u.blkioWeight)
			res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		case "cpu-period":
			cpu.Period = &u.cpuPeriod
		case "cpu-quota":
			cpu.Quota = &u.cpuQuota
		case "cpu-burst":
			cpu.Burst = &u.cpuBurst
		case "cpu-share":
			cpu.Shares = &u.cpuShare
		case "cpu-rt-period":
			cpu.RealtimePeriod = &u.rtPeriod
		case "cpu-rt-runtime":
			cpu.RealtimeRuntime = &u.rtRuntime
		case "cpu-idle":
			cpu.Idle = &u.cpuIdle
		case "cpuset-cpus":
			cpu.Cpus = u.cpus
		case "cpuset-mems":
			cpu.Mems = u.mems
		case "memory":
			mem.Limit = (*int64)(&u.memory)
		case "memory-reservation":
			mem.Reservation = (*int64)(&u.reservation)
		case "memory-swap":
			mem.Swap = (*int64)(&u.swap)
		case "pids-limit":
			res.Pids = &specs.LinuxPids{Limit: &u.pids}
		}
	})
	if !any {
		return nil, fmt.Errorf("update: no limit to change was given")
	}
	if u.blkioWeight > 1000 || u.blkioWeight != 0 && u.blkioWeight < 10 {
		return nil, fmt.Errorf("--blkio-weight %d: want 10 to 1000", u.blkioWeight)
	}
	if *cpu != (specs.LinuxCPU{}) {
		res.CPU = cpu
	}
	if *mem != (specs.LinuxMemory{}) {
		res.Memory = mem
	}
	return res, nil
}
