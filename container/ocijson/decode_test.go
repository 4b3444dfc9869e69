package ocijson

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestEveryField fills every field of the types and reads what encoding/json made of it.
func TestEveryField(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		var want, got specs.Spec
		fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(&want).Elem())
		text, err := json.Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		var theirs specs.Spec
		if err := json.Unmarshal(text, &theirs); err != nil {
			t.Fatal(err)
		}
		if err := Decode(text, &got); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(got, theirs) {
			t.Fatalf("seed %d: the result differs from encoding/json's", seed)
		}
	}
}

// fill gives every field a random value, some of them none.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(8) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.String:
		words := []string{
			"", "a", "CAP_KILL", "with \"quotes\" \\ and\nlines", "Grüße, 世界 😀", "\u2028<&>",
			"/sys/fs",
		}
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Uint64()) >> (64 - v.Type().Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 6))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key)
			fill(r, element)
			v.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(r, v.Field(i))
			} else {
				for k := range v.Field(i).NumField() { // an embedded struct with exported fields
					fill(r, v.Field(i).Field(k))
				}
			}
		}
	}
}

func TestErrorsNameTheField(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{
			`{"linux":{"resources":{"memory":{"limit":"64m"}}}}`,
			`linux.resources.memory.limit: "64m" is a string, want a number (byte 41)`,
		},
		{
			`{"process":{"user":{"uid":-1}}}`,
			`process.user.uid: -1, want a whole number from 0 to 4294967295 (byte 26)`,
		},
		{
			`{"process":{"user":{"uid":1.5}}}`,
			`process.user.uid: 1.5, want a whole number from 0 to 4294967295 (byte 26)`,
		},
		{
			`{"mounts":[{},{"options":["ro",7]}]}`,
			`mounts[1].options[1]: 7 is a number, want a string (byte 31)`,
		},
		{`{"annotations":{"a":{}}}`, `annotations.a: {} is an object, want a string (byte 20)`},
		{`{"root":[]}`, `root: [] is a list, want an object (byte 8)`},
		{`{"hostname":"a"`, `byte 15: the end of the text in an object, want a comma or its end`},
		{`{"hostname":"a"} x`, `byte 17: 'x' after the end of the value`},
		{`{hostname:1}`, `byte 1: 'h' in an object, want a name in quotes`},
		{`{"process":{"terminal":"yes, certainly and without any doubt at all"}}`,
			`process.terminal: "yes, certainly and without any doubt at... is a string, ` +
				`want true or false (byte 23)`},
		{``, `byte 0: the end of the text where a value begins`},
	} {
		err := Decode([]byte(c.text), new(specs.Spec))
		var e *Error
		if !errors.As(err, &e) || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"ociVersion":"1.0","process":{"args":["a","\u00e9\ud83d\ude00"],"capabilities":null},` +
			`"linux":{"resources":{"blockIO":{"weightDevice":[{"major":1,"weight":2}]}}}}`,
		`{"Hostname":"case","HOSTNAME":"again","annotations":{"a":"b","a":"c"}}`, `[1,2.5e3,-0]`,
		`{"mounts":[null,{}],"root":null}`, "{\"a\":\"\xff\"}",
		`{"linux":{"seccomp":{"syscalls":[{"args":[{"index":1,"value":18446744073709551615}]}]}}}`,
		`null`, `"\ud800"`, ` { } `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var ours, theirs specs.Spec
		err, terr := Decode(text, &ours), json.Unmarshal(text, &theirs)
		if (err == nil) != (terr == nil) {
			t.Fatalf("%q: we say %v, encoding/json says %v", text, err, terr)
		}
		if err == nil && !reflect.DeepEqual(ours, theirs) {
			t.Fatalf("%q: %+v, want %+v", text, ours, theirs)
		}
	})
}
