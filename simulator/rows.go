package simulator

import (
	"cmp"
	"errors"
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
	of     func(rank int) iter.Seq[Row] // of an outcome
	failed *error                       // nil where none can
}

// RowsOf returns rows that are given, by outcome.
func RowsOf(all ...Row) Rows {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Row) int { return cmp.Compare(a.Outcome.rank(), b.Outcome.rank()) })
	rows := Rows{of: func(rank int) iter.Seq[Row] {
		return func(yield func(Row) bool) {
			for i := range all {
				if all[i].Outcome.rank() == rank && !yield(all[i]) {
					return
				}
			}
		}
	}}
	for i := range all {
		rows.counts[all[i].Outcome.rank()]++
	}
	return rows
}

// Err returns why rows are missing of those that were yielded, or asked for. It is
// nil where all were there, as they are but for a Scratch that failed.
func (r Rows) Err() error {
	if r.failed == nil {
		return nil
	}
	return *r.failed
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
	if r.Count(o) == 0 {
		return func(func(Row) bool) {}
	}
	return r.of(o.rank())
}

// row is what a Row is made of.
type row struct {
	rowKey
	flows, bytes uint64
	seen         span
	example      *example
}

type rowKey struct {
	from, to                *policies.Peer // mostly of which there is one for each name
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

// compareRows orders rows of one outcome.
func compareRows(a, b *row) int {
	if c := cmp.Compare(b.flows, a.flows); c != 0 {
		return c
	}
	return a.compare(&b.rowKey)
}

// compareKeys orders rows so that those of one key stand together.
func compareKeys(a, b *row) int {
	return cmp.Or(cmp.Compare(a.outcome, b.outcome), a.compare(&b.rowKey))
}

// join adds a row of the same key.
func (r *row) join(of *row) {
	if compareExamples(of.example, r.example) < 0 {
		r.example = of.example
	}
	r.flows, r.bytes = r.flows+of.flows, r.bytes+of.bytes
	r.seen = r.seen.join(of.seen.First(), of.seen.Last())
}

// sum is a Result under way.
type sum struct {
	*Replayer
	*Result
	seen       span
	unresolved map[string]*unresolved // by cause, without those that have a twin
	causes     map[string]uint64      // of flows that are Undecided
	rows       *sorter[row]
	names      map[endKey]*policies.Peer
}

// newSum returns the sum of nothing. Where the Replayer spills, it holds some rows at
// a time.
func (r *Replayer) newSum() *sum {
	s := &sum{
		Replayer: r, Result: &Result{Outcomes: map[Outcome]uint64{}},
		unresolved: map[string]*unresolved{}, causes: map[string]uint64{}, names: map[endKey]*policies.Peer{},
		rows: &sorter[row]{open: r.open, most: max(2, r.most/16), compare: compareKeys, append: appendRow, read: readRow},
	}
	for _, o := range Outcomes {
		s.Outcomes[o] = 0
	}
	return s
}

// Result returns what the flows taken so far come to. It does not depend on
// their order. Its rows are made of what the Replayer holds, which stays as long as
// they do; they must not be made while it takes flows.
func (r *Replayer) Result() *Result {
	s, err := r.newSum(), r.failed
	if err == nil && r.aside != nil {
		err = r.putAside()
	}
	if err == nil {
		err = s.add()
	}
	return s.result(err)
}

// add adds what the Replayer holds, and what it put aside.
func (s *sum) add() error {
	s.Flows, s.Bytes, s.seen = s.total.flows, s.total.bytes, s.total.seen
	for cause, u := range s.Replayer.unresolved {
		s.unresolved[cause] = &unresolved{flows: u.flows, example: u.example, several: u.several}
		for _, c := range u.named {
			s.addNamed(cause, c.half, c.pairs.matched())
		}
	}
	for _, a := range s.answers {
		if err := s.take(a); err != nil {
			return err
		}
	}
	if s.aside == nil {
		return nil
	}
	return s.addAside()
}

// addNamed leaves out reports of ends that are nowhere which have a twin.
func (s *sum) addNamed(cause string, half tally, matched uint64) {
	s.Bytes -= half.drop(matched)
	s.Paired += matched
	s.unresolved[cause].flows -= matched
}

// result returns what was added.
func (s *sum) result(err error) *Result {
	result := *s.Result
	result.First, result.Last = s.seen.First(), s.seen.Last()
	causes := maps.Clone(s.causes)
	for cause, u := range s.unresolved {
		causes[u.text(cause)] += u.flows
		result.Unresolved += u.flows
	}
	for text, flows := range causes {
		result.Causes = append(result.Causes, Cause{text, flows})
	}
	slices.SortFunc(result.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), strings.Compare(a.Text, b.Text))
	})
	result.Rows = s.ordered(err)
	return &result
}

var errEnough = errors.New("no more rows are asked for")

// ordered returns the rows, of which there is one for each key.
func (s *sum) ordered(err error) Rows {
	var all [len(Outcomes)]*sorter[row]
	for rank := range all {
		// As they are read again, rows take more room.
		all[rank] = &sorter[row]{open: s.rows.open, most: max(2, s.most/64), compare: compareRows, append: appendRow, read: readRow}
	}
	rows := Rows{failed: new(error)}
	if err == nil {
		err = s.rows.eachJoined((*row).join, func(one *row) error {
			rows.counts[one.outcome]++
			return all[one.outcome].add(*one)
		})
	}
	*rows.failed = err
	rows.of = func(rank int) iter.Seq[Row] {
		return func(yield func(Row) bool) {
			err := all[rank].each(func(of *row) error {
				if !yield(s.made(of)) {
					return errEnough
				}
				return nil
			})
			if err != nil && !errors.Is(err, errEnough) {
				*rows.failed = err
			}
		}
	}
	return rows
}

// take adds up what was counted of an answer.
func (s *sum) take(a *answer) error {
	of := counting{answer: a}
	s.match(&of, a.pairs.matched())
	for _, key := range a.keys() {
		if err := s.count(&of, key, *a.tally(key)); err != nil {
			return err
		}
	}
	return nil
}

// counting is an answer of which what was counted is added up.
type counting struct {
	*answer
	matched uint64 // reports that have a twin, and were not left out yet
	asked   bool
}

func (s *sum) match(of *counting, matched uint64) {
	of.matched = matched
	s.Paired += matched
}

// count adds one of an answer's tallies, of which the next is in order.
func (s *sum) count(of *counting, key tallyKey, t tally) error {
	if !of.asked && (of.before.verdict != policies.Undecided || of.after.verdict != policies.Undecided) {
		s.Questions++
	}
	of.asked = true
	if key.half {
		n := min(of.matched, t.flows)
		of.matched -= n
		s.Bytes -= t.drop(n)
	}
	if t.flows == 0 {
		return nil
	}
	if t.example == nil {
		return errNoRecord
	}
	said := s.of(of.answer, key.kind).sentence
	s.Outcomes[said.outcome] += t.flows
	if said.explained {
		s.Explained += t.flows
	}
	if said.outcome == Undecided {
		s.causes[said.cause] += t.flows
	}
	return s.note(of.answer, key.verdict, said, &t)
}

var errNoRecord = errors.New("tuples count flows of which there is no record; verify the store")

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
func (s *sum) note(a *answer, verdict policies.Verdict, said *sentence, t *tally) error {
	e := t.example
	key := rowKey{
		s.name(s.peer(e.from, e.address(0), said.outcome)), s.name(s.peer(e.to, e.address(1), said.outcome)),
		said.cause, uint8(said.outcome.rank()), a.protocol, a.port, verdict, a.before.verdict, a.after.verdict,
	}
	return s.rows.add(row{key, t.flows, t.bytes, t.seen, e})
}

type endKey struct {
	namespace, name, kind string
	cidr                  netip.Prefix
}

// name returns the one of the peers of a name that is kept.
func (s *sum) name(p policies.Peer) *policies.Peer {
	k := endKey{namespace: p.Namespace, name: p.Name, kind: p.Kind}
	if p.CIDR != nil {
		k.cidr = *p.CIDR
	}
	known := s.names[k]
	if known == nil {
		if s.rows.open != nil && len(s.names) >= s.rows.most {
			clear(s.names)
		}
		known = &p
		s.names[k] = known
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
