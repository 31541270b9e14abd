package snapshot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names are the made-up names of a world that Anonymize has renamed.
type Names struct {
	key       []byte
	addresses *addresses
	words     map[string]string // made-up words by what they stand for
	used      map[string]bool
	stems     map[string]string // the part of a name that is a name itself
	policies  map[string]string
	tiers     map[string]string
}

func newNames(key []byte) *Names {
	sum := sha256.Sum256(key)
	return &Names{
		key:       sum[:],
		addresses: newAddresses(sum[:16]),
		words:     map[string]string{},
		used:      map[string]bool{},
		stems:     map[string]string{},
		policies:  map[string]string{},
		tiers:     map[string]string{},
	}
}

// Name returns what anything but a policy, a tier and an address is called now.
func (n *Names) Name(old string) string {
	for _, prefix := range profilePrefixes {
		if rest, ok := strings.CutPrefix(old, prefix); ok {
			namespace, account, both := strings.Cut(rest, ".")
			if both {
				return prefix + n.Name(namespace) + "." + n.Name(account)
			}
			return prefix + n.Name(namespace)
		}
	}
	if stem, has := n.stems[old]; has {
		return n.Name(stem) + "-" + n.word(old[len(stem)+1:])
	}
	return n.word(old)
}

// profilePrefixes begin the names of the profiles that Calico makes for
// namespaces and service accounts.
var profilePrefixes = []string{"kns.", "ksa."}

// Policy returns what a policy is called now. The order of policies by name
// stays as it was, for it decides between those of equal rank.
func (n *Names) Policy(old string) string { return known(n.policies, old, n.Name) }

// Tier returns what a tier is called now.
func (n *Names) Tier(old string) string { return known(n.tiers, old, n.Name) }

func known(in map[string]string, old string, otherwise func(string) string) string {
	if renamed, ok := in[old]; ok {
		return renamed
	}
	return otherwise(old)
}

// Address returns where an address is now.
func (n *Names) Address(old netip.Addr) netip.Addr { return n.addresses.address(old) }

// Prefix returns where a range is now.
func (n *Names) Prefix(old netip.Prefix) netip.Prefix { return n.addresses.prefix(old) }

// Originals returns what each made-up word, and each policy and tier, stands
// for.
func (n *Names) Originals() map[string]string {
	all := map[string]string{}
	for _, names := range []map[string]string{n.words, n.policies, n.tiers} {
		for old, renamed := range names {
			all[renamed] = old
		}
	}
	return all
}

// kept are words that tell nothing of a cluster, and that Weir or its users know
// by heart.
var (
	kept = []string{
		"", "default", "kube-system", "kube-public", "kube-node-lease", "kubernetes", "kube-dns", "istio-system",
		"true", "false", "linux", "windows", "k8s", "calico-system", "projectcalico-default-allow",
		"kube-admin", "kube-baseline", "adminnetworkpolicy", "baselineadminnetworkpolicy",
	}
	number = regexp.MustCompile(`^[0-9]{1,3}$`)
)

func (n *Names) word(old string) string {
	if slices.Contains(kept, old) || number.MatchString(old) {
		return old
	}
	renamed, ok := n.words[old]
	for salt := 0; !ok || renamed == ""; salt++ {
		candidate := n.pronounceable(old, salt)
		if !n.used[candidate] {
			renamed, ok = candidate, true
			n.words[old], n.used[candidate] = candidate, true
		}
	}
	return renamed
}

// pronounceable makes a word such as "lusab-babad" of 32 bits. It is short
// enough for the name of a port.
func (n *Names) pronounceable(old string, salt int) string {
	mac := hmac.New(sha256.New, n.key)
	mac.Write([]byte(strconv.Itoa(salt) + "/" + old))
	bits := binary.BigEndian.Uint32(mac.Sum(nil))
	word := make([]byte, 0, len("lusab-babad"))
	for range 2 {
		for letter := range 5 {
			if letter%2 == 0 {
				word = append(word, "bdfghjklmnprstvz"[bits&15])
				bits >>= 4
			} else {
				word = append(word, "aiou"[bits&3])
				bits >>= 2
			}
		}
		if len(word) == 5 {
			word = append(word, '-')
		}
	}
	return string(word)
}

// rank gives names new ones that sort alike, if their prefixes do.
func rank(into map[string]string, names map[string]bool, prefix func(string) string) {
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	digits := len(strconv.Itoa(len(sorted)))
	for i, name := range sorted {
		number := strconv.Itoa(i + 1)
		into[name] = prefix(name) + strings.Repeat("0", digits-len(number)) + number
	}
}
