package netset_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weir-policy/weir/policies/netset"
)

func prefixes(texts ...string) netset.Addresses {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return netset.Prefixes(all...)
}

func TestBlocks(t *testing.T) {
	everyone := netset.EveryAddress()
	for _, row := range []struct {
		name string
		set  netset.Addresses
		want string
	}{
		{"nothing", netset.Addresses{}, "[]"},
		{"everything", everyone, "[0.0.0.0/0 ::/0]"},
		{"a hole is an exception", everyone.Minus(prefixes("10.0.0.0/8", "192.168.0.0/16")), "[0.0.0.0/0 except 10.0.0.0/8, 192.168.0.0/16 ::/0]"},
		{"half is no exception", prefixes("128.0.0.0/1"), "[128.0.0.0/1]"},
		{"neighbours join", prefixes("10.0.0.0/9", "10.128.0.0/9"), "[10.0.0.0/8]"},
		{"far apart", prefixes("10.0.0.1/32", "2001:db8::/32"), "[10.0.0.1/32 2001:db8::/32]"},
		{"a hole in a part", prefixes("10.0.0.0/8", "192.0.2.0/24").Minus(prefixes("10.1.0.0/16")), "[10.0.0.0/8 except 10.1.0.0/16 192.0.2.0/24]"},
		{"the last address", prefixes("255.255.255.255/32"), "[255.255.255.255/32]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := fmt.Sprint(row.set.Blocks()); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestBlocksAndCIDRsHoldTheSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var set netset.Addresses
		for range random.IntN(6) {
			address := netip.AddrFrom4([4]byte{byte(random.IntN(4)), byte(random.IntN(4)), byte(random.IntN(256)), byte(random.IntN(256))})
			part := netset.Prefix(netip.PrefixFrom(address, random.IntN(33)))
			if random.IntN(3) == 0 {
				set = set.Minus(part)
			} else {
				set = set.Union(part)
			}
		}
		var blocks, cidrs netset.Addresses
		for _, b := range set.Blocks() {
			if blocks.Overlaps(b.Addresses()) {
				t.Fatalf("%v: block %s overlaps one before it", set, b)
			}
			blocks = blocks.Union(b.Addresses())
		}
		for _, p := range set.CIDRs() {
			cidrs = cidrs.Union(netset.Prefix(p))
		}
		if !blocks.Equal(set) || !cidrs.Equal(set) {
			t.Fatalf("set %v: its blocks hold %v and its CIDRs %v", set, blocks, cidrs)
		}
	}
}

func TestLastAddress(t *testing.T) {
	for cidr, want := range map[string]string{
		"0.0.0.0/0": "255.255.255.255", "10.0.0.0/9": "10.127.255.255", "10.1.2.3/8": "10.255.255.255",
		"10.0.0.0/32": "10.0.0.0", "::/0": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/33": "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
		"::1/128": "::1", "::ffff:10.0.0.0/104": "::ffff:10.255.255.255",
	} {
		if got := netset.LastAddress(netip.MustParsePrefix(cidr)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %s, want %s", cidr, got, want)
		}
	}
}
