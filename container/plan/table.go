package plan

// table is a small map that the linker writes: a map of Go would be built anew at every start of
// the program, which costs more than all that is looked up in it.
type table[K comparable, V any] []row[K, V]

type row[K comparable, V any] struct {
	key   K
	value V
}

// get returns the value of a key, and whether there is one.
func (t table[K, V]) get(key K) (V, bool) {
	for i := range t {
		if t[i].key == key {
			return t[i].value, true
		}
	}
	var none V
	return none, false
}
