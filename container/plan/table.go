package plan

// table is a small map. One that is a constant the linker writes, where a map of Go would be built
// anew at every start of this program; and what has few rows needs less memory than in a map.
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

// set adds a row, or changes the one that the key has.
func (t *table[K, V]) set(key K, value V) {
	for i := range *t {
		if (*t)[i].key == key {
			(*t)[i].value = value
			return
		}
	}
	if *t == nil {
		*t = make(table[K, V], 0, 6)
	}
	*t = append(*t, row[K, V]{key, value})
}
