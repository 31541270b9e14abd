package netset

import (
	"iter"
	"net/netip"
	"slices"
)

// Addresses is a set of IP addresses of both families.
type Addresses struct{ spans []span[netip.Addr] }

type addressOrder struct{}

func (addressOrder) compare(a, b netip.Addr) int { return a.Compare(b) }

func (addressOrder) next(v netip.Addr) (netip.Addr, bool) {
	after := v.Next()
	return after, after.IsValid()
}

func (addressOrder) prev(v netip.Addr) (netip.Addr, bool) {
	before := v.Prev()
	return before, before.IsValid()
}

// The whole of each address family.
var (
	AllIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	AllIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// Prefix returns the addresses of p; host bits are ignored. An invalid prefix
// is the empty set.
func Prefix(p netip.Prefix) Addresses {
	if !p.IsValid() {
		return Addresses{}
	}
	return Addresses{[]span[netip.Addr]{{p.Masked().Addr(), LastAddress(p)}}}
}

// Prefixes returns the addresses of all the prefixes together.
func Prefixes(prefixes ...netip.Prefix) Addresses {
	all := make([]span[netip.Addr], 0, len(prefixes))
	for _, p := range prefixes {
		all = append(all, Prefix(p).spans...)
	}
	return Addresses{normalize[netip.Addr, addressOrder](all)}
}

// EveryAddress returns all addresses of both families.
func EveryAddress() Addresses { return Prefixes(AllIPv4, AllIPv6) }

// AddressSpan returns the addresses from first to last, both included and of
// one family; it is empty when first is above last.
func AddressSpan(first, last netip.Addr) Addresses {
	return Addresses{normalize[netip.Addr, addressOrder]([]span[netip.Addr]{{first, last}})}
}

// JoinAddresses returns what is in any of the sets.
func JoinAddresses(sets ...Addresses) Addresses {
	var all []span[netip.Addr]
	for _, s := range sets {
		all = append(all, s.spans...)
	}
	return Addresses{normalize[netip.Addr, addressOrder](all)}
}

// LastAddress returns the last address of p.
func LastAddress(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().As16()
	// As 16 bytes, an IPv4 address stands behind 96 bits of its own.
	from := p.Bits() + 128 - p.Addr().BitLen()
	for i := from / 8; i < len(bytes); i++ {
		bytes[i] |= 0xff >> max(0, from-8*i)
	}
	last := netip.AddrFrom16(bytes)
	if p.Addr().Is4() {
		return last.Unmap()
	}
	return last
}

// Union returns what is in a or in b.
func (a Addresses) Union(b Addresses) Addresses {
	return Addresses{union[netip.Addr, addressOrder](a.spans, b.spans)}
}

// Intersect returns what is in a and in b.
func (a Addresses) Intersect(b Addresses) Addresses {
	return Addresses{intersect[netip.Addr, addressOrder](a.spans, b.spans)}
}

// Minus returns what is in a and not in b.
func (a Addresses) Minus(b Addresses) Addresses {
	return Addresses{minus[netip.Addr, addressOrder](a.spans, b.spans)}
}

// Contains reports whether v is in the set.
func (a Addresses) Contains(v netip.Addr) bool {
	return contains[netip.Addr, addressOrder](a.spans, v)
}

// Covers reports whether all of b is in a.
func (a Addresses) Covers(b Addresses) bool { return b.Minus(a).IsEmpty() }

// Overlaps reports whether a and b have an address in common.
func (a Addresses) Overlaps(b Addresses) bool { return !a.Intersect(b).IsEmpty() }

// IsEmpty reports whether nothing is in the set.
func (a Addresses) IsEmpty() bool { return len(a.spans) == 0 }

// Equal reports whether both hold the same addresses.
func (a Addresses) Equal(b Addresses) bool { return slices.Equal(a.spans, b.spans) }

// Spans yields the first and last address of every run, in order, IPv4 first.
func (a Addresses) Spans() iter.Seq2[netip.Addr, netip.Addr] {
	return func(yield func(first, last netip.Addr) bool) {
		for _, s := range a.spans {
			if !yield(s.first, s.last) {
				return
			}
		}
	}
}

// Block is the addresses of a CIDR less those of its exceptions.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Addresses returns the block as a set.
func (b Block) Addresses() Addresses { return Prefix(b.CIDR).Minus(Prefixes(b.Except...)) }

// String prints "0.0.0.0/0 except 10.0.0.0/8, 192.168.0.0/16".
func (b Block) String() string {
	text := b.CIDR.String()
	for i, e := range b.Except {
		if i == 0 {
			text += " except "
		} else {
			text += ", "
		}
		text += e.String()
	}
	return text
}

// Blocks returns the set as disjoint blocks, with as few CIDRs in all as can
// be: "0.0.0.0/0 except 10.0.0.0/8" rather than the eight CIDRs beside it.
func (a Addresses) Blocks() []Block {
	return append(a.cut(AllIPv4).blocks, a.cut(AllIPv6).blocks...)
}

// CIDRs returns the set as disjoint CIDRs, as few as can be, in order.
func (a Addresses) CIDRs() []netip.Prefix {
	return append(a.cut(AllIPv4).in, a.cut(AllIPv6).in...)
}

// cuts is a prefix cut into the CIDRs that are in a set and those that are out
// of it, and the blocks of what is in.
type cuts struct {
	in, out []netip.Prefix
	blocks  []Block
	cidrs   int // in all of the blocks
}

func (a Addresses) cut(p netip.Prefix) cuts {
	inside := a.Intersect(Prefix(p))
	switch {
	case inside.IsEmpty():
		return cuts{out: []netip.Prefix{p}}
	case inside.Equal(Prefix(p)):
		return cuts{in: []netip.Prefix{p}, blocks: []Block{{CIDR: p}}, cidrs: 1}
	}
	low, high := halves(p)
	l, h := inside.cut(low), inside.cut(high)
	c := cuts{append(l.in, h.in...), append(l.out, h.out...), append(l.blocks, h.blocks...), l.cidrs + h.cidrs}
	if whole := 1 + len(c.out); whole < c.cidrs {
		c.blocks, c.cidrs = []Block{{CIDR: p, Except: slices.Clone(c.out)}}, whole
	}
	return c
}

func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	return low, netip.PrefixFrom(LastAddress(low).Next(), p.Bits()+1)
}
