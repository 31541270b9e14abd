package simulator

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Key is what flows may be grouped by.
type Key struct {
	name string
	end  Ends
	of   func(*policies.Flow, *policies.FlowPeer, *policies.Hit) string
}

// Ends says of which ends of a flow something is meant.
type Ends uint8

// A key of an OneEnd counts a flow for each of its ends, once where they are alike.
const (
	NoEnd Ends = iota
	OneEnd
	FromEnd
	ToEnd
)

var endKeys = []Key{
	{name: "namespace", of: func(_ *policies.Flow, p *policies.FlowPeer, _ *policies.Hit) string {
		if isNamed(p) {
			return p.Namespace
		}
		return nameless(p)
	}},
	{name: "workload", of: func(_ *policies.Flow, p *policies.FlowPeer, _ *policies.Hit) string { return nameOf(p).String() }},
	{name: "pod", of: func(_ *policies.Flow, p *policies.FlowPeer, _ *policies.Hit) string {
		switch {
		case !isNamed(p):
			return nameless(p)
		case p.Pod == "" && p.PodPrefix != "":
			return p.Namespace + "/" + p.PodPrefix + "*"
		case p.Pod == "":
			return NotRecorded
		}
		return p.Namespace + "/" + p.Pod
	}},
	{name: "address", of: func(_ *policies.Flow, p *policies.FlowPeer, _ *policies.Hit) string {
		if !p.Address.IsValid() {
			return NotRecorded
		}
		return plain(p.Address).String()
	}},
}

const policyKey, tierKey, hourKey, dayKey, verdictKey = "policy", "tier", "hour", "day", "verdict"

var flowKeys = []Key{
	{name: "port", of: func(f *policies.Flow, _ *policies.FlowPeer, _ *policies.Hit) string { return PortName(f) }},
	{name: "protocol", of: func(f *policies.Flow, _ *policies.FlowPeer, _ *policies.Hit) string {
		if f.Protocol == 0 {
			return NotRecorded
		}
		return f.Protocol.String()
	}},
	{name: policyKey, of: func(_ *policies.Flow, _ *policies.FlowPeer, h *policies.Hit) string {
		switch {
		case h == nil:
			return NotRecorded
		case h.Policy.Name == "":
			return "(end of tier)"
		}
		return h.Policy.String()
	}},
	{name: tierKey, of: func(_ *policies.Flow, _ *policies.FlowPeer, h *policies.Hit) string {
		if h == nil || h.Tier == "" {
			return NotRecorded
		}
		return h.Tier
	}},
	{name: "reporter", of: func(f *policies.Flow, _ *policies.FlowPeer, _ *policies.Hit) string {
		return cmp.Or(f.Origin.Reporter.String(), NotRecorded)
	}},
	{name: "format", of: func(f *policies.Flow, _ *policies.FlowPeer, _ *policies.Hit) string {
		return cmp.Or(f.Origin.Format, NotRecorded)
	}},
	// What reports of one flow may differ in is known only when they are paired.
	{name: verdictKey},
	{name: hourKey},
	{name: dayKey},
}

// KeyNames returns the names that ParseKeys knows.
func KeyNames() []string {
	var names []string
	for _, prefix := range []string{"", "from.", "to."} {
		for _, k := range endKeys {
			names = append(names, prefix+k.name)
		}
	}
	for _, k := range flowKeys {
		names = append(names, k.name)
	}
	return names
}

// ParseKeys reads the keys of groups, as in "from.namespace,port". A key of an end
// stands behind from. or to.; without either, a flow counts for both its ends.
func ParseKeys(text string) ([]Key, error) {
	var keys []Key
	for name := range strings.SplitSeq(text, ",") {
		k, ok := keyNamed(name)
		switch {
		case !ok:
			return nil, fmt.Errorf("key %q is none of %s%s", name, strings.Join(KeyNames(), ", "), policies.Near(name, KeyNames()))
		case slices.ContainsFunc(keys, func(l Key) bool { return l.name == k.name }):
			return nil, fmt.Errorf("key %q is there twice", name)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func keyNamed(name string) (Key, bool) {
	if i := slices.IndexFunc(flowKeys, func(k Key) bool { return k.name == name }); i >= 0 {
		return flowKeys[i], true
	}
	end, base := OneEnd, name
	if rest, ok := strings.CutPrefix(name, "from."); ok {
		end, base = FromEnd, rest
	} else if rest, ok := strings.CutPrefix(name, "to."); ok {
		end, base = ToEnd, rest
	}
	i := slices.IndexFunc(endKeys, func(k Key) bool { return k.name == base })
	if i < 0 {
		return Key{}, false
	}
	return Key{name: name, end: end, of: endKeys[i].of}, true
}

// String returns the key's name.
func (k Key) String() string { return k.name }

// PortName is a flow's port as it is written in questions, NotRecorded where
// the record says none.
func PortName(f *policies.Flow) string {
	switch {
	case f.Protocol == 0, f.Port == 0 && f.Protocol.HasPorts():
		return NotRecorded
	case f.Protocol.HasPorts():
		return f.Protocol.String() + "/" + strconv.Itoa(int(f.Port))
	case f.Port == 0:
		return f.Protocol.String()
	}
	return f.Protocol.String() + "/" + strconv.Itoa(int(f.Port>>8)) + "/" + strconv.Itoa(int(f.Port&0xff))
}

// Top counts flows by group. Its memory grows with the different connections,
// not with the flows.
type Top struct {
	keys          []Key
	groups, total *ledger
	oneEnd, byHit bool
	records       uint64
	buffer        []byte
}

// NewTop returns a Top that tells at most so many connections apart.
func NewTop(keys []Key, most int) *Top {
	has := func(names ...string) bool {
		return slices.ContainsFunc(keys, func(k Key) bool { return slices.Contains(names, k.name) })
	}
	return &Top{
		keys: keys, groups: newLedger(most, has(hourKey, dayKey)), total: newLedger(most, false),
		oneEnd: slices.ContainsFunc(keys, func(k Key) bool { return k.end == OneEnd }), byHit: has(policyKey, tierKey),
	}
}

// TellsTuples reports whether the keys ask for nothing that flows of one tuple differ
// in but for the time, the side and the verdict: then AddSum will do.
func (t *Top) TellsTuples() bool {
	return !slices.ContainsFunc(t.keys, func(k Key) bool {
		return slices.Contains([]string{"pod", "address", policyKey, tierKey, "format"}, strings.TrimPrefix(strings.TrimPrefix(k.name, "from."), "to."))
	})
}

// Add counts a flow. It fails with a TooManyError.
func (t *Top) Add(f *policies.Flow) error { return t.AddSum(f, 1) }

// AddSum counts what some records of one hour, side and verdict come to.
func (t *Top) AddSum(f *policies.Flow, records uint64) error {
	t.records += records
	if err := t.total.add("", f); err != nil {
		return err
	}
	ends := []*policies.FlowPeer{nil}
	if t.oneEnd {
		ends = []*policies.FlowPeer{&f.From, &f.To}
	}
	hits := []*policies.Hit{nil}
	if t.byHit && len(f.Hits) > 0 {
		hits = hits[:0]
		for i := range f.Hits {
			hits = append(hits, &f.Hits[i])
		}
	}
	var counted []string
	for _, end := range ends {
		for _, hit := range hits {
			group := t.group(f, end, hit)
			if slices.Contains(counted, group) {
				continue
			}
			counted = append(counted, group)
			if err := t.groups.add(group, f); err != nil {
				return err
			}
		}
	}
	return nil
}

const separator = "\x00"

// group returns the values of a flow's keys, but for those that are known when
// reports are paired, joined by separators.
func (t *Top) group(f *policies.Flow, end *policies.FlowPeer, hit *policies.Hit) string {
	t.buffer = t.buffer[:0]
	for i, k := range t.keys {
		if i > 0 {
			t.buffer = append(t.buffer, separator...)
		}
		p := end
		switch k.end {
		case FromEnd:
			p = &f.From
		case ToEnd:
			p = &f.To
		}
		if k.of != nil {
			// Logs may have any text for a name.
			t.buffer = append(t.buffer, strings.ReplaceAll(k.of(f, p, hit), separator, "\ufffd")...)
		}
	}
	if len(t.keys) == 1 && t.keys[0].of == nil {
		return ""
	}
	return string(t.buffer)
}

// Ranking is the groups of a Top, those with most first.
type Ranking struct {
	Keys    []string
	Rows    []Rank
	Groups  int    // how many there are, with those that Rows lacks
	Total   Counts // of all flows, each counted once
	Records uint64
}

// Rank is one group. Rows of keys that a flow has several of, such as the
// namespaces of either end, come to more than the total.
type Rank struct {
	Values []string // of the keys
	Counts
}

// Ranking returns the first groups by what they come to: "flows", "bytes" or
// "packets" in both directions.
func (t *Top) Ranking(by string, most int) *Ranking {
	r := &Ranking{Records: t.records}
	for _, k := range t.keys {
		r.Keys = append(r.Keys, k.name)
	}
	t.total.each(func(_ connectionKey, _ report, c Counts) { r.Total.join(c) })
	groups := map[string]*Counts{}
	t.groups.each(func(c connectionKey, of report, counts Counts) {
		group := t.complete(c.group, of)
		if groups[group] == nil {
			groups[group] = &Counts{}
		}
		groups[group].join(counts)
	})
	for group, counts := range groups {
		r.Rows = append(r.Rows, Rank{strings.Split(group, separator), *counts})
	}
	slices.SortFunc(r.Rows, func(a, b Rank) int {
		return cmp.Or(cmp.Compare(b.measure(by), a.measure(by)), cmp.Compare(b.Flows, a.Flows), slices.Compare(a.Values, b.Values))
	})
	r.Groups = len(r.Rows)
	r.Rows = r.Rows[:min(most, len(r.Rows))]
	return r
}

// complete adds to a group what is known now.
func (t *Top) complete(group string, r report) string {
	if !slices.ContainsFunc(t.keys, func(k Key) bool { return k.of == nil }) {
		return group
	}
	values := make([]string, len(t.keys))
	copy(values, strings.Split(group, separator))
	for i, k := range t.keys {
		switch k.name {
		case verdictKey:
			values[i] = r.verdict.String()
		case hourKey:
			values[i] = momentOf(r.hour, "2006-01-02T15:00Z")
		case dayKey:
			values[i] = momentOf(r.hour, time.DateOnly)
		}
	}
	return strings.Join(values, separator)
}

func momentOf(hour int64, layout string) string {
	at := time.Unix(hour*3600, 0).UTC()
	if at.Year() <= 1 {
		return NotRecorded
	}
	return at.Format(layout)
}

func (c *Counts) measure(by string) uint64 {
	switch by {
	case "bytes":
		return c.Bytes + c.ReplyBytes
	case "packets":
		return c.Packets + c.Replies
	}
	return c.Flows
}

// Share is the part that a group has of a total, from 0 to 1, by what Ranking
// sorts by; 0 where there is none of it.
func (c *Counts) Share(total *Counts, by string) float64 {
	if whole := total.measure(by); whole > 0 {
		return float64(c.measure(by)) / float64(whole)
	}
	return 0
}

// String prints "shop/web"; "shop/(not recorded)" where the record says no more
// than the namespace.
func (n endName) String() string {
	switch {
	case n.namespace == "":
		return n.name
	case n.name == "":
		return n.namespace + "/" + NotRecorded
	}
	return n.namespace + "/" + n.name
}
