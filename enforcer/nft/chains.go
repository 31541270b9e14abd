package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// discovery is what hosts send each other that share a link, without which IPv6 does
// not work at all: no policy is about it.
var discovery = []byte{130, 131, 132, 133, 134, 135, 136, 137, 143}

// addWay adds the chain that a direction begins with, and that for all who are in no
// vector.
func (b *builder) addWay(w way, nobody string) {
	b.chains = append(b.chains, Chain{Name: w.name(""), Rules: []Rule{
		{Classify{[]Field{w.other()}, w.name("peers_")}, Dispatch{[]Field{FieldClass}, w.name("vectors_")}},
		{Dispatch{[]Field{w.other()}, w.name("blocks_")}},
		{Verdict{Goto, nobody}},
	}})
	b.counters = append(b.counters, nobody)
	b.chains = append(b.chains, Chain{Name: nobody, Rules: append([]Rule{{Declassify{}}}, b.deny(w, nobody, 0)...)})
	b.lead(w, nobodysClass, nobody)
}

// deny returns the rules that end a vector. What a pod sends itself is asked for last, so
// that it costs nothing what passes anyhow.
func (b *builder) deny(w way, name string, id uint64) []Rule {
	return []Rule{
		w.toItself(),
		{Count{name + suffixDenied(name)}, b.log('D', w, id)},
		{Verdict{Action: Drop}},
	}
}

// toItself lets through what a pod sends itself.
func (w way) toItself() Rule {
	return Rule{In{[]Field{w.source, w.destination}, "itself" + w.suffix}, Verdict{Action: Accept}}
}

// suffixDenied is what the counter of what is denied has behind a vector's name. What
// meets no vector is all denied, and counted once.
func suffixDenied(name string) string {
	if strings.HasSuffix(name, "_none") {
		return ""
	}
	return "_denied"
}

func (b *builder) log(verdict byte, w way, id uint64) Log {
	return Log{Mark{verdict, w.Direction, id}.String(), b.in.LogGroup, b.in.LogRate}
}

// lead makes a class lead to a chain.
func (b *builder) lead(w way, class uint32, chain string) {
	k := key(binary.BigEndian.AppendUint32(nil, class))
	b.set(w.name("vectors_"), []Type{Class}, true, false).add(Element{First: k, Last: k, To: Verdict{Goto, chain}})
}

// part is what of a ruleset a vector is.
type part struct {
	content  []entry
	sets     []Set
	chains   []Chain
	counters []string
}

// addVector adds the chain of a vector, with its maps and counters.
func (b *builder) addVector(w way, v *vector) {
	b.vectors = append(b.vectors, Vector{v.id, w.Direction, w.ipv6, v.name})
	b.lead(w, v.class(), v.name)
	p := b.memory.parts[v.name]
	same := func(x, y entry) bool { return x.at == y.at && x.pattern == y.pattern }
	if p == nil || !slices.EqualFunc(p.content, v.content, same) {
		p = b.partOf(w, v)
	}
	b.parts[v.name] = p
}

// partOf makes a part.
func (b *builder) partOf(w way, v *vector) *part {
	p := &part{content: v.content, counters: []string{v.name, v.name + "_denied"}}
	rest, seen := v.name+"_rest", v.name+"_seen"
	to := func(o outcome) Verdict {
		switch o {
		case allowed:
			return w.pass()
		case observed:
			return Verdict{Goto, seen}
		}
		return Verdict{Goto, rest}
	}
	observes, denies := false, false
	elements := map[string][]Element{}
	for _, e := range v.content {
		observes = observes || e.whole == observed || e.excepts(observed)
		denies = denies || e.excepts(denied)
		e.elements(e.at, to, func(suffix, first, last string, to Verdict) {
			elements[suffix] = append(elements[suffix], Element{First: first, Last: last, To: to})
		})
	}
	rules := []Rule{{Declassify{}, Count{v.name}, Label{LabelOf(w.Direction, v.id)}}}
	for _, t := range tables(w.ipv6) {
		if len(elements[t.suffix]) == 0 {
			continue
		}
		s := Set{Name: v.name + "_" + t.suffix, Key: append([]Type{w.address}, t.key...), Map: true, Interval: t.interval, Elements: elements[t.suffix]}
		s.finish()
		p.sets = append(p.sets, s)
		rules = append(rules, Rule{Dispatch{append([]Field{w.own()}, t.fields...), s.Name}})
	}
	end := b.deny(w, v.name, v.id)
	if denies {
		p.chains = append(p.chains, Chain{Name: rest, Rules: end})
		end = []Rule{{Verdict{Goto, rest}}}
	}
	p.chains = append(p.chains, Chain{Name: v.name, Rules: append(rules, end...)})
	if observes {
		p.counters = append(p.counters, v.name+"_observed")
		p.chains = append(p.chains, Chain{Name: seen, Rules: []Rule{
			w.toItself(),
			{Count{v.name + "_observed"}, Label{Bit(ObservedBit + int(w.Direction))}, b.log('O', w, v.id)},
			{w.pass()},
		}})
	}
	return p
}

// The base chains. Connections that were let in and not revoked pass at once, by way of
// known: a packet of a new one is not asked whether it is revoked, for it is judged anew.
const (
	forward = "pods_forward"
	input   = "pods_input"
	known   = "known"
	// keeper is never reached: the kernel only keeps labels while some rule sets one.
	keeper = "keep_labels"
)

func (b *builder) addBase() {
	through := []Rule{{Established{}, Verdict{Goto, known}}}
	toNode := append(slices.Clone(through), Rule{In{[]Field{FieldICMPv6Type}, "discovery"}, Verdict{Action: Accept}})
	for _, f := range bothFamilies {
		if b.sets["strangers"+f.suffix] == nil {
			continue
		}
		for _, w := range []way{{policies.Egress, f}, {policies.Ingress, f}} {
			through = append(through, Rule{In{[]Field{w.own()}, "strangers" + f.suffix}, Verdict{Jump, w.name("strangers_")}})
		}
		w := way{policies.Egress, f}
		toNode = append(toNode, Rule{In{[]Field{w.own()}, "strangers" + f.suffix}, Verdict{Jump, w.name("strangers_")}})
	}
	for _, f := range bothFamilies {
		w := way{policies.Egress, f}
		leave := Rule{In{[]Field{w.own()}, w.name("isolated_")}, Verdict{Jump, w.name("")}}
		through, toNode = append(through, leave), append(toNode, leave)
		w.Direction = policies.Ingress
		through = append(through, Rule{In{[]Field{w.own()}, w.name("isolated_")}, Verdict{Goto, w.name("")}})
	}
	b.chains = append(b.chains,
		Chain{Name: forward, Hook: "forward", Rules: through},
		Chain{Name: input, Hook: "input", Rules: toNode},
		Chain{Name: known, Rules: []Rule{{Labelled{RevokedBit}, Verdict{Action: Drop}}, {Verdict{Action: Accept}}}},
		Chain{Name: keeper, Rules: []Rule{{Label{Bit(RevokedBit)}}}},
	)
	set := b.set("discovery", []Type{ICMPv6Type}, false, false)
	for _, kind := range discovery {
		set.add(Element{First: key([]byte{kind}), Last: key([]byte{kind})})
	}
}

// ruleset returns what was built, in order.
func (b *builder) ruleset() *Ruleset {
	b.addBase()
	r := &Ruleset{Counters: b.counters, Vectors: b.vectors}
	names := map[string]string{}
	for name, s := range b.sets {
		s.finish()
		names[name] = s.Name
		r.Sets = append(r.Sets, *s)
	}
	for _, c := range b.chains {
		c.rename(names)
	}
	r.Chains = b.chains
	for _, p := range b.parts {
		r.Sets, r.Chains, r.Counters = append(r.Sets, p.sets...), append(r.Chains, p.chains...), append(r.Counters, p.counters...)
	}
	slices.Sort(r.Counters)
	slices.SortFunc(r.Sets, func(x, y Set) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(r.Chains, func(x, y Chain) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(r.Vectors, func(x, y Vector) int { return strings.Compare(x.Name, y.Name) })
	return r
}

// finish orders the elements of a set. One with intervals is named after its contents,
// too: what is found in one that changes is not certain for a moment, so such sets never
// change, see docs/decisions/0016.
func (s *Set) finish() {
	slices.SortFunc(s.Elements, byKey)
	if !s.Interval {
		return
	}
	sum := sha256.New()
	for _, e := range s.Elements {
		fmt.Fprintf(sum, "%x-%x:%s\n", e.First, e.Last, e.To)
	}
	s.Name = fmt.Sprintf("%s_%x", s.Name, sum.Sum(nil)[:4])
}

// rename calls sets in the rules of a chain by other names.
func (c *Chain) rename(names map[string]string) {
	for _, r := range c.Rules {
		for i, s := range r {
			switch s := s.(type) {
			case Dispatch:
				r[i] = Dispatch{s.Fields, names[s.Map]}
			case In:
				r[i] = In{s.Fields, names[s.Set]}
			}
		}
	}
}

func byKey(x, y Element) int { return strings.Compare(x.First, y.First) }
