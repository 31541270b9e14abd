package reach

import "maps"

// table is a map over another one that does not change any more. A judge that is made
// of another one shares with it what both have in common: what it adds goes where the
// other does not see it, so that judges never change, and what was only tried leaves
// nothing behind. The zero table is empty.
type table[K comparable, V any] struct {
	own   map[K]V
	under *table[K, V]
}

func (t *table[K, V]) get(key K) (v V, ok bool) {
	for ; t != nil; t = t.under {
		if v, ok = t.own[key]; ok {
			return v, true
		}
	}
	return v, false
}

// find is get for a text in the making.
func find[V any](t *table[string, V], key []byte) (v V, ok bool) {
	for ; t != nil; t = t.under {
		if v, ok = t.own[string(key)]; ok {
			return v, true
		}
	}
	return v, false
}

func (t *table[K, V]) put(key K, v V) {
	if t.own == nil {
		t.own = map[K]V{}
	}
	t.own[key] = v
}

// over returns an empty table over one that must not change from now on. Tables of
// like size become one, so that there are never many.
func (t *table[K, V]) over() table[K, V] {
	t = &table[K, V]{t.own, t.under} // which holds nothing that t is part of
	for len(t.own) == 0 && t.under != nil {
		t = t.under
	}
	for t.under != nil && 2*len(t.own) > len(t.under.own) {
		both := make(map[K]V, len(t.own)+len(t.under.own))
		maps.Copy(both, t.under.own)
		maps.Copy(both, t.own)
		t = &table[K, V]{both, t.under.under}
	}
	return table[K, V]{under: t}
}
