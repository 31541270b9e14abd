package simulator

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Rows are those of a Result. They take little space, for each is made, and its
// decision explained, when it is asked for.
type Rows struct {
	counts [len(Outcomes)]int
	at     func(i int) Row
}

// RowsOf returns rows that are given, by outcome.
func RowsOf(all ...Row) Rows {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Row) int { return cmp.Compare(a.Outcome.rank(), b.Outcome.rank()) })
	rows := Rows{at: func(i int) Row { return all[i] }}
	for i := range all {
		rows.counts[all[i].Outcome.rank()]++
	}
	return rows
}

// rank is the place of an outcome among Outcomes.
func (o Outcome) rank() int { return slices.Index(Outcomes[:], o) }

// Count returns how many rows there are of an outcome.
func (r Rows) Count(o Outcome) int { return r.counts[o.rank()] }

// All yields the rows, worst first, then those of most flows first.
func (r Rows) All() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, o := range Outcomes {
			for row := range r.Of(o) {
				if !yield(row) {
					return
				}
			}
		}
	}
}

// Of yields the rows of an outcome, those of most flows first.
func (r Rows) Of(o Outcome) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		first := 0
		for i := range o.rank() {
			first += r.counts[i]
		}
		for i := range r.Count(o) {
			if !yield(r.at(first + i)) {
				return
			}
		}
	}
}

// row is what a Row is made of.
type row struct {
	rowKey
	flows, bytes uint64
	seen         span
	example      *example
}

type rowKey struct {
	from, to                *policies.Peer // of which there is one for each name
	cause                   string
	outcome                 uint8 // its rank
	protocol                netset.Protocol
	port                    uint16
	recorded, before, after policies.Verdict
}

func (k *rowKey) compare(l *rowKey) int {
	// The ends are compared as far as it takes: many rows have as many flows.
	if c := compareEnds(*k.from, *l.from); c != 0 {
		return c
	}
	if c := compareEnds(*k.to, *l.to); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(k.protocol, l.protocol), cmp.Compare(k.port, l.port),
		cmp.Compare(k.recorded, l.recorded), cmp.Compare(k.before, l.before), cmp.Compare(k.after, l.after),
		strings.Compare(k.cause, l.cause),
	)
}

func compareRows(a, b row) int {
	if c := cmp.Or(cmp.Compare(a.outcome, b.outcome), cmp.Compare(b.flows, a.flows)); c != 0 {
		return c
	}
	return a.compare(&b.rowKey)
}

// joined makes one of the rows that are of the same key, in place.
func joined(rows []row) []row {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.outcome, b.outcome), a.compare(&b.rowKey)) })
	n := 0
	for i := range rows {
		if n == 0 || rows[n-1].rowKey != rows[i].rowKey {
			rows[n] = rows[i]
			n++
			continue
		}
		to, of := &rows[n-1], &rows[i]
		if compareExamples(of.example, to.example) < 0 {
			to.example = of.example
		}
		to.flows, to.bytes = to.flows+of.flows, to.bytes+of.bytes
		to.seen = to.seen.join(of.seen.First(), of.seen.Last())
	}
	return slices.Clip(rows[:n])
}

// gathering is a Result under way.
type gathering struct {
	*Replayer
	*Result
	causes map[string]uint64
	rows   []row
	names  map[endKey]*policies.Peer
}

// Result returns what the flows taken so far come to. It does not depend on
// their order. Its rows are made of what the Replayer holds, which stays as long as
// they do; they must not be made while it takes flows.
func (r *Replayer) Result() *Result {
	g := gathering{
		Replayer: r,
		Result:   &Result{Flows: r.total.flows, Bytes: r.total.bytes, First: r.total.seen.First(), Last: r.total.seen.Last(), Outcomes: map[Outcome]uint64{}},
		causes:   map[string]uint64{}, rows: make([]row, 0, len(r.answers)), names: map[endKey]*policies.Peer{},
	}
	for _, o := range Outcomes {
		g.Outcomes[o] = 0
	}
	for cause, u := range r.unresolved {
		flows := u.flows
		for _, c := range u.named {
			matched, half := c.pairs.matched(), c.half
			g.Bytes -= half.drop(matched)
			g.Paired += matched
			flows -= matched
		}
		g.causes[u.text(cause)] += flows
		g.Unresolved += flows
	}
	for _, a := range r.answers {
		g.take(a)
	}
	rows := joined(g.rows)
	slices.SortFunc(rows, compareRows)
	for i := range rows {
		g.Rows.counts[rows[i].outcome]++
	}
	g.Rows.at = func(i int) Row { return r.made(&rows[i]) }
	for text, flows := range g.causes {
		g.Causes = append(g.Causes, Cause{text, flows})
	}
	slices.SortFunc(g.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), strings.Compare(a.Text, b.Text))
	})
	return g.Result
}

// take adds up what was counted of an answer.
func (g *gathering) take(a *answer) {
	keys := a.keys()
	if len(keys) > 0 && (a.before.verdict != policies.Undecided || a.after.verdict != policies.Undecided) {
		g.Questions++
	}
	matched := a.pairs.matched()
	g.Paired += matched
	for _, key := range keys {
		t := *a.tally(key)
		if key.half {
			n := min(matched, t.flows)
			matched -= n
			g.Bytes -= t.drop(n)
		}
		if t.flows == 0 {
			continue
		}
		s := g.of(a, key.kind).sentence
		g.Outcomes[s.outcome] += t.flows
		if s.explained {
			g.Explained += t.flows
		}
		if s.outcome == Undecided {
			g.causes[s.cause] += t.flows
		}
		g.note(a, key.verdict, s, &t)
	}
}

// keys returns what the tallies of an answer are counted by, in order.
func (a *answer) keys() []tallyKey {
	keys := slices.Collect(maps.Keys(a.apart))
	for i := range a.counted {
		if a.counted[i].tally != nil {
			keys = append(keys, tallyKey{kind: a.counted[i].kind})
		}
	}
	slices.SortFunc(keys, tallyKey.compare)
	return keys
}

// note makes a row of a tally.
func (g *gathering) note(a *answer, verdict policies.Verdict, s *sentence, t *tally) {
	e := t.example
	key := rowKey{
		g.name(g.peer(e.from, e.address(0), s.outcome)), g.name(g.peer(e.to, e.address(1), s.outcome)),
		s.cause, uint8(s.outcome.rank()), a.protocol, a.port, verdict, a.before.verdict, a.after.verdict,
	}
	g.rows = append(g.rows, row{key, t.flows, t.bytes, t.seen, e})
}

type endKey struct {
	namespace, name, kind string
	cidr                  netip.Prefix
}

// name returns the one of the peers of a name that is kept.
func (g *gathering) name(p policies.Peer) *policies.Peer {
	k := endKey{namespace: p.Namespace, name: p.Name, kind: p.Kind}
	if p.CIDR != nil {
		k.cidr = *p.CIDR
	}
	known := g.names[k]
	if known == nil {
		known = &p
		g.names[k] = known
	}
	return known
}

// made makes a row.
func (r *Replayer) made(of *row) Row {
	row := Row{
		Outcome: Outcomes[of.outcome], From: *of.from, To: *of.to, Protocol: of.protocol, Port: of.port,
		Recorded: of.recorded, Before: of.before, After: of.after,
		Flows: of.flows, Bytes: of.bytes, First: of.seen.First(), Last: of.seen.Last(), Example: of.example.flow(), Cause: of.cause,
	}
	r.explain(&row)
	return row
}

// peer names a recorded end for a row, by the address of its example.
func (r *Replayer) peer(e *recorded, address netip.Addr, o Outcome) policies.Peer {
	loose := e.before.among.choice != ""
	switch folded := o == Stays; {
	case folded && e.outside && e.peer.Set.Name != "":
		return setPeer(e.peer.Set)
	case folded && e.outside && e.peer.Network != policies.AnyNetwork:
		return networkPeer(e.peer.Network)
	case folded && (e.outside && address.Is6()):
		return policies.Outside(netset.Block{CIDR: netset.AllIPv6})
	case folded && (e.outside || loose && e.peer.Set.Name == "" && e.peer.Network == policies.AnyNetwork):
		return policies.Outside(netset.Block{CIDR: netset.AllIPv4})
	case folded && e.peer.OwnNode:
		return policies.Peer{Kind: "Node"}
	case loose:
		return e.before.among.name
	case e.outside:
		return r.before.judge.Peer(r.before.judge.Outside(address))
	}
	p := r.before.judge.Peer(e.before.ends[0])
	p.Pod = ""
	return p
}

// explain decides a row's example with its reason.
func (r *Replayer) explain(row *Row) {
	d, verdict := r.after, row.After
	if row.Outcome == Drifts || r.after == nil {
		d, verdict = r.before, row.Before
	}
	if row.Outcome == Stays || verdict == policies.Undecided {
		return
	}
	row.Decision = r.decideExample(row, d)
	if row.Outcome == Breaks || row.Outcome == Opens {
		row.Base = r.decideExample(row, r.before)
	}
}

// decideExample decides a row's example in one world, by its own addresses.
func (r *Replayer) decideExample(row *Row, d *directory) policies.Decision {
	source, target := r.find(&row.Example.From), r.find(&row.Example.To)
	q := questionOf(&row.Example, source, target)
	if q.self {
		return policies.Decision{Verdict: policies.Allow, Because: "a pod always reaches itself"}
	}
	places := [2]place{source.before, target.before}
	if d == r.after {
		places = [2]place{source.after, target.after}
	}
	was, from, to := d.decide(q, places[0], places[1])
	if source.outside {
		from = d.judge.Outside(row.Example.From.Address)
	}
	if target.outside {
		to = d.judge.Outside(row.Example.To.Address)
	}
	if was.cause != "" || source.before.among.choice == "" && target.before.among.choice == "" {
		return d.judge.Decide(from, to, q.protocol, q.port)
	}
	names := [2]policies.Peer{d.judge.Peer(from), d.judge.Peer(to)}
	for i, end := range []*recorded{source, target} {
		if end.before.among.choice != "" {
			names[i] = end.before.among.name
		}
	}
	return d.judge.DecideTogether(from, to, names, netset.PortSpan(q.protocol, q.port, q.port))
}
