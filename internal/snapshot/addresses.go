package snapshot

import (
	"crypto/aes"
	"crypto/cipher"
	"net/netip"
)

// addresses renames addresses one to one, such that two of them share as many
// leading bits afterwards as before: what lay in a range lies in its new range.
// Ranges with a meaning of their own stay where they are, and nothing else moves
// into them.
type addresses struct {
	block cipher.Block
	flips map[netip.Prefix]bool
}

// fixed are the ranges that stay where they are: private, shared, loopback,
// link-local, multicast and reserved ones, and the address where clouds serve
// metadata.
var fixed = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "169.254.169.254/32",
	"172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
	"::1/128", "64:ff9b::/96", "2000::/3", "fc00::/7", "fe80::/10", "ff00::/8",
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// newAddresses takes a key of 16 bytes.
func newAddresses(key []byte) *addresses {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has another length: a mistake in this package
	}
	return &addresses{block, map[netip.Prefix]bool{}}
}

func (a *addresses) address(old netip.Addr) netip.Addr {
	return a.prefix(netip.PrefixFrom(old, old.BitLen())).Addr()
}

// prefix renames a range; bits behind its prefix are dropped.
func (a *addresses) prefix(old netip.Prefix) netip.Prefix {
	old = old.Masked()
	bytes := old.Addr().AsSlice()
	for bit := range old.Bits() {
		before, _ := old.Addr().Prefix(bit)
		if a.flipsAfter(before) {
			bytes[bit/8] ^= 0x80 >> (bit % 8)
		}
	}
	renamed, _ := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(renamed, old.Bits())
}

// flipsAfter reports whether the bit after a prefix flips.
func (a *addresses) flipsAfter(p netip.Prefix) bool {
	flips, known := a.flips[p]
	if known {
		return flips
	}
	flips = true
	for _, f := range fixed {
		flips = flips && (f.Bits() <= p.Bits() || !p.Overlaps(f))
	}
	if flips {
		var in, out [aes.BlockSize]byte
		copy(in[:], p.Addr().AsSlice())
		a.block.Encrypt(out[:], in[:])
		in = out
		in[0] ^= byte(p.Bits())
		in[1] ^= byte(p.Addr().BitLen())
		a.block.Encrypt(out[:], in[:])
		flips = out[0]&1 == 1
	}
	a.flips[p] = flips
	return flips
}
