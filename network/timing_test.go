package network

import (
	"fmt"
	"os"
	"sort"
	"strake/network/link"
	"testing"
	"time"
)

func TestTiming(t *testing.T) {
	host, _ := labNamespaces(t)
	var rt *link.Socket
	link.Enter(host, func() (err error) { rt, err = link.Open(); return })
	rt.Do(link.AddBridge("br0", macOf(ResolverAddr), 0))
	br, _ := rt.ByName("br0")
	d := map[string][]time.Duration{}
	lap := func(n string, t0 time.Time) { d[n] = append(d[n], time.Since(t0)) }
	for i := 0; i < 100; i++ {
		t0 := time.Now()
		ns, err := link.Create(func(ns *os.File) error {
			lap("unshare", t0)
			t1 := time.Now()
			writeSysctl("net.ipv6.conf.default.disable_ipv6", "1")
			lap("sysctl", t1)
			t1 = time.Now()
			s, _ := link.Open()
			lap("sockopen", t1)
			t1 = time.Now()
			if err := rt.Do(
				link.AddVeth(
					link.Veth{
						Name: fmt.Sprint("v", i), Bridge: br.Index, PeerName: "eth0",
						PeerNS: int(ns.Fd()),
					},
				),
			); err != nil {
				return err
			}
			lap("veth", t1)
			t1 = time.Now()
			in, _ := s.ByName("eth0")
			lap("byname", t1)
			t1 = time.Now()
			s.Do(link.SetUp(in.Index))
			lap("up", t1)
			t1 = time.Now()
			inspect(s, false)
			lap("inspect", t1)
			t1 = time.Now()
			s.Close()
			lap("sockclose", t1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		lap("create total", t0)
		t0 = time.Now()
		link.Enter(ns, func() error { return nil })
		lap("enter", t0)
		t0 = time.Now()
		rt.Do(link.DeleteName(fmt.Sprint("v", i)))
		lap("dellink", t0)
		t0 = time.Now()
		ns.Close()
		lap("close", t0)
	}
	for k, v := range d {
		sort.Slice(v, func(i, j int) bool { return v[i] < v[j] })
		t.Log(k, "med", v[len(v)/2], "p90", v[len(v)*9/10], "max", v[len(v)-1])
	}
}
