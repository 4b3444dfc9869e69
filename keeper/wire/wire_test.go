package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// fill sets every field of a message to something that is not its zero value.
func fill(v reflect.Value, rnd *rand.Rand) {
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), rnd)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "T" {
				fill(v.Field(i), rnd)
			}
		}
	case reflect.String:
		v.SetString("text" + string(rune('a'+rnd.IntN(26))))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-1 - rnd.Int64N(1<<40))
	case reflect.Uint8:
		v.SetUint(1)
		if v.Type() == reflect.TypeFor[LogDriver]() {
			v.SetUint(uint64(LogJSONAttributes)) // the one that has all fields of Log
		}
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + rnd.Uint64N(1<<15))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), rnd)
		}
	}
}

// Every message comes back as it was, and neither shortened nor lengthened.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for typ := Type(1); typ <= typeLast; typ++ {
		b := newBody(typ)
		if b == nil {
			t.Fatalf("type %d has no body", typ)
		}
		if b.Type() != typ {
			t.Errorf("body of type %d says %d", typ, b.Type())
		}
		fill(reflect.ValueOf(b), rnd)
		packet, err := Encode(nil, uint32(typ)+7, b)
		if err != nil {
			t.Fatal(err)
		}
		request, got, err := Decode(packet)
		if err != nil || request != uint32(typ)+7 || !reflect.DeepEqual(got, b) {
			t.Errorf("type %d: got %+v, %v, want %+v", typ, got, err, b)
		}
		if _, _, err := Decode(append(packet, 0)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("type %d: a trailing byte: %v", typ, err)
		}
		for n := range packet {
			if _, _, err := Decode(packet[:n]); !errdefs.IsInvalidArgument(err) {
				t.Errorf("type %d: %d of %d bytes: %v", typ, n, len(packet), err)
			}
		}
	}
	if newBody(0) != nil || newBody(typeLast+1) != nil {
		t.Error("there are types beyond the last")
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, b := range []Body{
		&Simple{TypeForget, strings.Repeat("x", maxID+1)},
		&Start{Note: strings.Repeat("x", maxNote+1)},
		&Start{Inputs: make([]string, MaxFDs+1)},
		&Start{Kind: KindHold + 1},
		&Start{EndCommand: make([]string, maxWords+1)},
		&Start{Keep: make([]string, maxWords+1)},
		&Start{EndCommand: []string{strings.Repeat("x", maxText+1)}},
		&Start{Owner: strings.Repeat("x", maxOwner+1)},
		&Start{Log: Log{Driver: LogJSONAttributes + 1}},
		&Start{Inputs: []string{strings.Repeat("x", maxPath), strings.Repeat("x", maxPath+1)}},
		&Start{Inputs: slicesOf(strings.Repeat("x", maxPath), 20)},
	} {
		if _, err := Encode(nil, 1, b); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%T: %v", b, err)
		}
	}
}

// What few processes have costs the others no byte, and is what a peer of before does not know: it
// reads the last byte as a truth value.
func TestRareFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		plain, rare Body
		last        byte
	}{
		{&Start{}, &Start{EndCommand: []string{"/a"}}, 0},
		{&Start{}, &Start{Keep: []string{"tty1"}}, 0},
		{&Process{}, &Process{Kept: []string{"tty1"}}, 0},
		{&Process{}, &Process{Bare: true}, 0},
		{&Start{Hold: true}, &Start{Hold: true, EndCommand: []string{"/a"}}, 1},
		{&Process{More: true}, &Process{More: true, EndCommand: []string{"/a"}}, 1},
	} {
		plain, err := Encode(nil, 1, tc.plain)
		if err != nil {
			t.Fatal(err)
		}
		if got := plain[len(plain)-1]; got != tc.last {
			t.Errorf("%T: last byte %d, want %d", tc.plain, got, tc.last)
		}
		rare, err := Encode(nil, 1, tc.rare)
		if err != nil || !bytes.HasPrefix(rare, plain[:len(plain)-1]) ||
			rare[len(plain)-1] <= 1 {
			t.Errorf("%T: %x, %v, where %x is plain", tc.rare, rare, err, plain)
		}
		empty := append(bytes.Clone(plain), 0, 0, 0, 0)
		empty[len(plain)-1] |= 2 // an empty list is announced
		if _, _, err := Decode(empty); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%T: an empty list: %v", tc.plain, err)
		}
	}
}

func slicesOf(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func TestVersion(t *testing.T) {
	t.Parallel()
	packet, err := Encode(nil, 1, &Hello{})
	if err != nil {
		t.Fatal(err)
	}
	packet[0]++
	want := fmt.Sprintf("version %d, want %d", Version+1, Version)
	if _, _, err := Decode(packet); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

// What decodes encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for typ := Type(1); typ <= typeLast; typ++ {
		b := newBody(typ)
		fill(reflect.ValueOf(b), rnd)
		packet, err := Encode(nil, 1, b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		request, b, err := Decode(packet)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		again, err := Encode(nil, request, b)
		if len(packet) <= MaxMessage && (err != nil || !bytes.Equal(again, packet)) {
			t.Errorf("%x became %x, %v", packet, again, err)
		}
	})
}
