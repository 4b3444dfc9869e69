package progress

import "testing"

// TestMeter counts bytes in steps of a hundredth, of 512 KiB at least, and the last one always.
func TestMeter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		total, start int64
		step         int64
		want         []int64 // what events say
	}{
		{"large", 400 << 20, 0, 100 << 20, []int64{100 << 20, 200 << 20, 300 << 20, 400 << 20}},
		{"small steps", 1 << 20, 0, 256 << 10, []int64{512 << 10, 1 << 20}},
		{"small", 1000, 0, 500, []int64{1000}},
		{"continued", 1 << 20, 512 << 10, 256 << 10, []int64{768 << 10, 1 << 20}},
	} {
		var got []int64
		m := Meter{
			Reporter: New(func(e Event) {
				if e.Total != tc.total || e.ID != "id" || e.Status != "Moving" {
					t.Errorf("%s: event %+v", tc.name, e)
				}
				got = append(got, e.Current)
			}),
			ID: "id", Status: "Moving", Total: tc.total, Current: tc.start,
		}
		for m.Current < tc.total {
			m.Add(tc.step)
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			}
		}
		if m.Restart(); m.Current != 0 {
			t.Errorf("%s: %d bytes after Restart", tc.name, m.Current)
		}
	}
	New(nil).Send(Event{}) // must not panic
}
