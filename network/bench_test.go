package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"strake/network/place"
)

func benchManager(b *testing.B, pool int, v6 bool) *Manager {
	b.Helper()
	needRoot(b)
	host, _ := labNamespaces(b)
	conf := filepath.Join(b.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	m, err := Open(
		Config{
			StateDir: filepath.Join(b.TempDir(), "state"), Prefix: "sk", NetNS: host,
			ResolvConf: conf, PoolSize: pool, DefaultIPv6: v6,
		},
	)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Teardown(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return m
}

// BenchmarkAttachRelease is a container that does not use its network, one after the other: the
// pool's best case.
func BenchmarkAttachRelease(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(fmt.Sprintf("ipv6=%v", v6), func(b *testing.B) {
			m := benchManager(b, 16, v6)
			if _, err := m.Attach(b.Context(), Request{ContainerID: "warm"}); err != nil {
				b.Fatal(err)
			}
			idle(b, m)
			b.ResetTimer()
			for i := range b.N {
				id := fmt.Sprint("c", i)
				if _, err := m.Attach(
					b.Context(), Request{ContainerID: id, Name: id, Recycling: RecycleIfUnused},
				); err != nil {
					b.Fatal(err)
				}
				if err := m.Release(b.Context(), id); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "containers/s")
		})
	}
}

// BenchmarkAttachReleaseParallel is the same from as many goroutines as there are processors,
// including the time that inspecting released namespaces takes.
func BenchmarkAttachReleaseParallel(b *testing.B) {
	m := benchManager(b, 16, false)
	if _, err := m.Attach(b.Context(), Request{ContainerID: "warm"}); err != nil {
		b.Fatal(err)
	}
	idle(b, m)
	var n atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := fmt.Sprint("c", n.Add(1))
			if _, err := m.Attach(
				b.Context(), Request{ContainerID: id, Name: id, Recycling: RecycleIfUnused},
			); err != nil {
				b.Error(err)
				return
			}
			if err := m.Release(b.Context(), id); err != nil {
				b.Error(err)
				return
			}
		}
	})
	idle(b, m)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "containers/s")
}

// BenchmarkAttachFresh never recycles: every container costs a namespace.
func BenchmarkAttachFresh(b *testing.B) {
	m := benchManager(b, 16, false)
	b.ResetTimer()
	for i := range b.N {
		id := fmt.Sprint("c", i)
		if _, err := m.Attach(b.Context(), Request{ContainerID: id}); err != nil {
			b.Fatal(err)
		}
		if err := m.Release(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	idle(b, m)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "containers/s")
}

// BenchmarkAttachPort publishes a port each time.
func BenchmarkAttachPort(b *testing.B) {
	m := benchManager(b, 16, false)
	b.ResetTimer()
	for i := range b.N {
		id := fmt.Sprint("c", i)
		if _, err := m.Attach(
			b.Context(),
			Request{
				ContainerID: id,
				Ports: []place.Port{
					{Proto: place.TCP, ContainerPort: 80, HostPort: uint16(20000 + i%1000)},
				},
			},
		); err != nil {
			b.Fatal(err)
		}
		if err := m.Release(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

// idle waits until nothing runs in the background.
func idle(tb testing.TB, m *Manager) {
	tb.Helper()
	if err := m.removals.settle(); err != nil {
		tb.Error(err)
	}
}
