package netset_test

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies/netset"
)

// Maps are what a map of Go would be, stay so, and differ in what was put and deleted
// in between.
func TestAddressMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b netset.AddressBuilder[int]
		now := map[netip.Addr]int{}
		type edition struct {
			made netset.AddressMap[int]
			want map[netip.Addr]int
		}
		var editions []edition
		for range rapid.IntRange(1, 8).Draw(t, "editions") {
			for range rapid.IntRange(0, 400).Draw(t, "changes") {
				a := netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 2).Draw(t, "c")), rapid.Byte().Draw(t, "d")})
				if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
					b.Delete(a)
					delete(now, a)
				} else {
					v := rapid.IntRange(0, 3).Draw(t, "value")
					b.Put(a, v)
					now[a] = v
				}
			}
			editions = append(editions, edition{b.Map(), maps.Clone(now)})
		}
		for _, e := range editions {
			got, last := map[netip.Addr]int{}, netip.Addr{}
			for a, v := range e.made.All() {
				if !last.Less(a) {
					t.Fatalf("%s is not behind %s", a, last)
				}
				got[a], last = v, a
				if one, ok := e.made.Get(a); !ok || one != v {
					t.Fatalf("%s has %d, %t", a, one, ok)
				}
			}
			if diff := cmp.Diff(e.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || e.made.Len() != len(e.want) {
				t.Fatal(e.made.Len(), diff)
			}
			if _, ok := e.made.Get(netip.MustParseAddr("10.0.9.9")); ok {
				t.Fatal("an address is there that nobody put")
			}
		}
		x := editions[rapid.IntRange(0, len(editions)-1).Draw(t, "from")]
		y := editions[rapid.IntRange(0, len(editions)-1).Draw(t, "to")]
		moved := maps.Clone(x.want)
		for a, v := range y.made.Differ(x.made) {
			was, had := moved[a]
			if (v[0] != nil) != had || had && *v[0] != was || v[1] != nil && had && *v[1] == was {
				t.Fatalf("%s differs by %v, was %d, %t", a, v, was, had)
			}
			if delete(moved, a); v[1] != nil {
				moved[a] = *v[1]
			}
		}
		if !maps.Equal(moved, y.want) {
			t.Fatal("what differs does not lead from one to the other")
		}
	})
}
