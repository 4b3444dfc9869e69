package supervisor

import (
	"fmt"
	"testing"
	"time"

	"strake/engine"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	var b eventBus
	start := time.Now()
	for i := range eventHistory + 10 {
		b.publish(engine.Event{Type: "container", Action: "start", ID: fmt.Sprint(i)})
	}
	past, live, cancel := b.subscribe(
		engine.EventQuery{Since: start, Match: func(e engine.Event) bool { return e.Action == "start" }},
	)
	if len(past) != eventHistory || past[0].ID != "10" ||
		past[len(past)-1].ID != fmt.Sprint(eventHistory+9) {
		t.Fatalf("got %d events from %s to %s", len(past), past[0].ID, past[len(past)-1].ID)
	}
	for i := 1; i < len(past); i++ {
		if !past[i].Time.After(past[i-1].Time) {
			t.Fatalf("event %d is not later than its predecessor", i)
		}
	}
	b.publish(engine.Event{Action: "stop"})
	b.publish(engine.Event{Action: "start", ID: "live"})
	if ev := <-live; ev.ID != "live" {
		t.Errorf("got %+v, want only what matches", ev)
	}
	cancel()
	cancel()
	if _, ok := <-live; ok {
		t.Error("channel is open after cancel")
	}
	if past, _, cancel := b.subscribe(engine.EventQuery{}); len(past) != 0 {
		t.Error("past events without Since")
	} else {
		cancel()
	}
	if past, _, cancel := b.subscribe(
		engine.EventQuery{Since: start, Until: past[3].Time},
	); len(past) != 4-2 {
		t.Errorf("%d events until the fourth, two of which are forgotten", len(past))
	} else {
		cancel()
	}
}

func TestEventsSlowSubscriber(t *testing.T) {
	t.Parallel()
	var b eventBus
	_, slow, cancel := b.subscribe(engine.EventQuery{})
	defer cancel()
	_, quick, cancel2 := b.subscribe(engine.EventQuery{})
	defer cancel2()
	for i := range eventBacklog + 1 {
		b.publish(engine.Event{ID: fmt.Sprint(i)})
		if ev := <-quick; ev.ID != fmt.Sprint(i) {
			t.Fatalf("quick subscriber got %s, want %d", ev.ID, i)
		}
	}
	n := 0
	for range slow {
		n++
	}
	if n != eventBacklog {
		t.Errorf("slow subscriber got %d events before it was cut off, want %d", n, eventBacklog)
	}
}
