package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// choices draws what a profile is made of from the fuzzer's bytes, and when they are used up, from
// a generator.
type choices struct {
	data []byte
	rest *rand.PCG
}

func (c *choices) Uint64() uint64 {
	if len(c.data) < 2 {
		return c.rest.Uint64()
	}
	v := binary.LittleEndian.Uint16(c.data)
	c.data = c.data[2:]
	return uint64(v) * 0x0001000100010001 // spread: a small choice is made from the high bits
}

// FuzzProfiles looks for a profile whose filter says something else than a naive reading.
func FuzzProfiles(f *testing.F) {
	f.Add([]byte("strake"), true)
	f.Add(make([]byte, 400), false)
	f.Fuzz(func(t *testing.T, data []byte, amd64 bool) {
		arch := "arm64"
		if amd64 {
			arch = "amd64"
		}
		rng := rand.New(&choices{data, rand.NewPCG(uint64(len(data)), 1)})
		cfg := randomProfile(rng, arch)
		check(t, cfg, arch, mustCompile(t, cfg, arch), rand.New(rand.NewPCG(1, 1)))
	})
}
