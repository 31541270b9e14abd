package netset_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weir-policy/weir/policies/netset"
)

func tcp(first, last uint16) netset.Ports { return netset.PortSpan(netset.TCP, first, last) }

func TestPartition(t *testing.T) {
	for _, row := range []struct {
		name string
		sets []netset.Ports
		want string
	}{
		{"no sets", nil, "[]"},
		{"an empty set has no part", []netset.Ports{{}, tcp(80, 80)}, "[{TCP/80 [1]}]"},
		{"equal sets share one part", []netset.Ports{tcp(80, 89), tcp(80, 89)}, "[{TCP/80-89 [0 1]}]"},
		{"apart", []netset.Ports{tcp(90, 99), tcp(80, 89)}, "[{TCP/80-89 [1]} {TCP/90-99 [0]}]"},
		{"overlapping", []netset.Ports{tcp(80, 95), tcp(90, 99)}, "[{TCP/80-89 [0]} {TCP/90-95 [0 1]} {TCP/96-99 [1]}]"},
		{"one inside another leaves two spans of one part", []netset.Ports{tcp(80, 99), tcp(90, 90)}, "[{TCP/80-89,91-99 [0]} {TCP/90 [0 1]}]"},
		{"up to the last of all", []netset.Ports{netset.PortSpan(255, 0, 65535), netset.AllTraffic()}, "[{any [1]} {255 [0 1]}]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := fmt.Sprint(netset.Partition(row.sets)); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestPartsAreTheAtoms(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		sets := make([]netset.Ports, random.IntN(6))
		for i := range sets {
			for range random.IntN(4) {
				first := uint16(random.IntN(30))
				sets[i] = sets[i].Union(netset.PortSpan(netset.Transports[random.IntN(3)], first, first+uint16(random.IntN(10))))
			}
		}
		parts := netset.Partition(sets)
		seen := map[string]bool{}
		var joined []netset.Ports
		for _, p := range parts {
			for _, earlier := range joined {
				if !p.Ports.Intersect(earlier).IsEmpty() {
					t.Fatalf("sets %v: part %v overlaps %v", sets, p.Ports, earlier)
				}
			}
			if key := fmt.Sprint(p.Sets); seen[key] {
				t.Fatalf("sets %v: two parts of %s", sets, key)
			} else {
				seen[key] = true
			}
			joined = append(joined, p.Ports)
			for i, set := range sets {
				within := p.Ports.Minus(set).IsEmpty()
				if apart := p.Ports.Intersect(set).IsEmpty(); within == apart || within != slices.Contains(p.Sets, i) {
					t.Fatalf("sets %v: part %v and set %d", sets, p, i)
				}
			}
		}
		if got, want := netset.JoinPorts(joined...), netset.JoinPorts(sets...); !got.Equal(want) {
			t.Fatalf("sets %v: the parts hold %v, want %v", sets, got, want)
		}
	}
}
