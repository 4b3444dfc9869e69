package api_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"strake/cli/api"
)

// pairs are the bodies of requests and answers with moby's types for the same bodies. A field of
// ours has to be in each of them, or in one where the body of several endpoints is one type of
// ours.
var pairs = []struct {
	ours   any
	theirs []any
}{
	{api.CreateRequest{}, []any{container.CreateRequest{}}},
	{api.Created{}, []any{container.CreateResponse{}}},
	{api.Waited{}, []any{container.WaitResponse{}}},
	{api.Container{}, []any{container.Summary{}}},
	{api.ContainerState{}, []any{container.InspectResponse{}}},
	{api.ExecRequest{}, []any{container.ExecCreateRequest{}}},
	{api.ExecStart{}, []any{container.ExecStartRequest{}}},
	{api.ExecState{}, []any{container.ExecInspectResponse{}}},
	{api.Top{}, []any{container.TopResponse{}}},
	{api.Change{}, []any{container.FilesystemChange{}}},
	{api.Update{}, []any{container.UpdateConfig{}}},
	{api.Stats{}, []any{container.StatsResponse{}}},
	{api.Image{}, []any{image.Summary{}}},
	{api.ImageDeleted{}, []any{image.DeleteResponse{}}},
	{api.Layer{}, []any{image.HistoryResponseItem{}}},
	{api.Network{}, []any{network.Summary{}}},
	{api.NetworkCreate{}, []any{network.CreateRequest{}}},
	{api.NetworkConnect{}, []any{network.ConnectRequest{}, network.DisconnectRequest{}}},
	{api.Volume{}, []any{volume.Volume{}}},
	{api.Volumes{}, []any{volume.ListResponse{}}},
	{api.VolumeCreate{}, []any{volume.CreateRequest{}}},
	{api.Pruned{}, []any{
		container.PruneReport{}, image.PruneReport{}, network.PruneReport{}, volume.PruneReport{},
	}},
	{api.Event{}, []any{events.Message{}}},
	{api.Version{}, []any{system.VersionResponse{}}},
	{api.DiskUsage{}, []any{system.DiskUsage{}}},
	{api.BuildRecord{}, []any{build.CacheRecord{}}},
	{api.AuthConfig{}, []any{registry.AuthConfig{}}},
	{api.AuthStatus{}, []any{registry.AuthResponse{}}},
}

// older are fields that moby's newest types lack, with the reason for which ours have them.
var older = map[string]string{
	"DiskUsage.LayersSize": before152, "DiskUsage.Images": before152,
	"DiskUsage.Containers": before152, "DiskUsage.Volumes": before152,
	"DiskUsage.BuildCache": before152,
}

const before152 = "engines with an API before 1.52 answer so"

// TestSameAsMoby finds fields that are not, or not in this form, in the types that moby publishes
// for the API.
func TestSameAsMoby(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	seen := map[string]bool{}
	for _, p := range pairs {
		ours := reflect.TypeOf(p.ours)
		var theirs []reflect.Type
		for _, v := range p.theirs {
			theirs = append(theirs, reflect.TypeOf(v))
		}
		c := comparison{older: older, used: used, seen: seen}
		c.structs(ours.Name(), ours, theirs)
		for _, fault := range c.faults {
			t.Error(fault)
		}
	}
	for name := range older {
		if !used[name] {
			t.Errorf("%s is said to be missing in moby's types and is not", name)
		}
	}
	for _, name := range structNames(t) {
		if !seen[name] {
			t.Errorf("type %s is compared with nothing", name)
		}
	}
}

// comparison collects what differs between two types.
type comparison struct {
	older  map[string]string
	used   map[string]bool // names of older that were needed
	seen   map[string]bool // names of our types that were compared
	faults []string
}

func (c *comparison) fault(path, format string, args ...any) {
	if c.older[path] != "" {
		c.used[path] = true
		return
	}
	c.faults = append(c.faults, path+": "+fmt.Sprintf(format, args...))
}

// structs compares each field of ours with that of the same name in JSON, which at least one of
// theirs must have.
func (c *comparison) structs(path string, ours reflect.Type, theirs []reflect.Type) {
	c.seen[ours.Name()] = true
	for i := range ours.NumField() {
		if f := ours.Field(i); f.Anonymous {
			c.seen[f.Type.Name()] = true
		}
	}
	mine := wireFields(ours)
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		found := false
		for _, t := range theirs {
			if other, ok := wireFields(t)[name]; ok {
				found = true
				c.types(path+"."+name, mine[name], other)
			}
		}
		if !found {
			c.fault(path+"."+name, "not in %v", theirs)
		}
	}
}

var text = reflect.TypeFor[encoding.TextMarshaler]()

// types compares what two types are in JSON.
func (c *comparison) types(path string, ours, theirs reflect.Type) {
	for ours.Kind() == reflect.Pointer {
		ours = ours.Elem()
	}
	for theirs.Kind() == reflect.Pointer {
		theirs = theirs.Elem()
	}
	if theirs.Kind() == reflect.Interface {
		c.fault(path, "%v has no form of its own", theirs)
		return
	}
	switch a, b := form(ours), form(theirs); {
	case a != b:
		c.fault(path, "%s (%v), want %s (%v)", a, ours, b, theirs)
	case a == "array":
		c.types(path+"[]", ours.Elem(), theirs.Elem())
	case a == "map":
		if key := form(theirs.Key()); form(ours.Key()) != key {
			c.fault(path, "keys are %v, want %v", ours.Key(), theirs.Key())
		}
		c.types(path+"{}", ours.Elem(), theirs.Elem())
	case a == "object":
		c.structs(path, ours, []reflect.Type{theirs})
	}
}

// form names what a type is in JSON. Integers are told from other numbers.
func form(t reflect.Type) string {
	if t.Implements(text) || reflect.PointerTo(t).Implements(text) {
		return "string"
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String:
		return t.Kind().String()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint,
		reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Map:
		return "map"
	case reflect.Struct:
		return "object"
	}
	return t.Kind().String()
}

// wireFields are the fields of a struct by their names in JSON, those of embedded structs among
// them.
func wireFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	var embedded []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			e := f.Type
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			embedded = append(embedded, e)
		case !f.IsExported() || name == "-":
		case name == "":
			fields[f.Name] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	for _, e := range embedded {
		for name, typ := range wireFields(e) {
			if _, ok := fields[name]; !ok {
				fields[name] = typ
			}
		}
	}
	return fields
}

// structNames are the names of this package's structs.
func structNames(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(
			token.NewFileSet(), e.Name(), nil, parser.SkipObjectResolution,
		)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok {
				if _, ok := s.Type.(*ast.StructType); ok {
					names = append(names, s.Name.Name)
				}
			}
			return true
		})
	}
	return names
}

// TestComparison gives the comparison types that differ.
func TestComparison(t *testing.T) {
	t.Parallel()
	type theirs struct {
		Name    string
		Number  int64
		ID      string `json:"Id"`
		List    []string
		Map     map[string]string
		Nested  struct{ Inner bool }
		Signed  json.Number
		Omitted string `json:"-"`
	}
	for name, c := range map[string]struct {
		ours any
		want string
	}{
		"the same":           {struct{ Name, Signed string }{}, ""},
		"another width":      {struct{ Number *uint16 }{}, ""},
		"no such field":      {struct{ Nmae string }{}, "x.Nmae: not in"},
		"the wrong tag":      {struct{ ID string }{}, "x.ID: not in"},
		"not on the wire":    {struct{ Omitted string }{}, "x.Omitted: not in"},
		"another kind":       {struct{ Number string }{}, "x.Number: string (string), want"},
		"another element":    {struct{ List []int }{}, "x.List[]: integer"},
		"another value":      {struct{ Map map[string]bool }{}, "x.Map{}: bool"},
		"another key":        {struct{ Map map[int]string }{}, "x.Map: keys are int"},
		"inside":             {struct{ Nested struct{ Outer bool } }{}, "x.Nested.Outer: not in"},
		"by a pointer":       {struct{ Nested *struct{ Inner int } }{}, "x.Nested.Inner: integer"},
		"number, not string": {struct{ Signed int }{}, "x.Signed: integer (int), want string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmp := comparison{used: map[string]bool{}, seen: map[string]bool{}}
			cmp.structs("x", reflect.TypeOf(c.ours), []reflect.Type{reflect.TypeFor[theirs]()})
			got := strings.Join(cmp.faults, "\n")
			if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
