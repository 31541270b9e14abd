package simulator

import (
	"cmp"
	"math/bits"
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Replayer asks what would become of recorded flows. Its memory grows with the
// distinct questions, with the hours in which both sides report, and with the
// addresses outside whose flows do not stay as they are; not with the flows. With
// Spill, it has a bound.
// It is not safe for concurrent use.
type Replayer struct {
	before, after *directory // after is nil where there is one model
	ends          ends
	classes       map[classKey]int
	questions     map[question]*answer
	answers       map[answerKey]*answer
	rulings       map[ruling]*ruling     // each once
	sentences     map[sentence]*sentence // each once
	unresolved    map[string]*unresolved // by cause
	total         tally

	open       func() (Scratch, error)
	most       int           // that may be held
	held       int           // answers and what is counted of them, their days and ends; and connections of ends that are nowhere
	aside      *sorter[part] // what was held before; nil where all is
	generation int32         // how often that was put aside
	failed     error         // to be
}

// New returns a Replayer under the policies before a change and after it.
// After may be nil: then there is one model, and flows drift or stay.
func New(before, after *reach.Judge) *Replayer {
	r := &Replayer{
		before: newDirectory(before), ends: newEnds(), classes: map[classKey]int{},
		questions: map[question]*answer{}, answers: map[answerKey]*answer{},
		rulings: map[ruling]*ruling{}, sentences: map[sentence]*sentence{}, unresolved: map[string]*unresolved{},
		generation: 1,
	}
	if after != nil {
		r.after = newDirectory(after)
	}
	return r
}

// question is what is decided once.
type question struct {
	from, to int32 // recorded.place
	port     uint16
	protocol netset.Protocol
	self     bool
}

// answer is the verdict under both models of questions between the same workloads
// that nothing tells apart, and the flows that ask them. It is the same whether a
// record names a pod or only the workload.
type answer struct {
	answerKey
	pairs   pairs
	counted []counted
	apart   map[tallyKey]*tally // of the keys with addresses
}

type answerKey struct {
	from, to      int32 // recorded.group
	port          uint16
	protocol      netset.Protocol
	leaves        bool // denied before the change, but not by the source's side
	before, after *ruling
}

// incomplete reports whether the record itself says too little.
func (k *answerKey) incomplete() bool { return k.protocol == 0 || k.port == 0 && k.protocol.HasPorts() }

// kind is how flows of one answer differ.
type kind struct {
	verdict policies.Verdict // as recorded
	half    bool             // reported by the source's side alone
}

// counted is the flows of one kind.
type counted struct {
	kind
	*sentence
	tally *tally // of those that are not counted by their addresses; nil where there are none
}

// tallyKey is what flows of one answer are counted by.
type tallyKey struct {
	kind
	from, to netip.Addr // of ends outside, where flows do not stay as they are
}

func (k tallyKey) isApart() bool { return k.from.IsValid() || k.to.IsValid() }

func (k tallyKey) compare(l tallyKey) int {
	if k.half != l.half {
		if l.half {
			return cmp.Or(cmp.Compare(k.verdict, l.verdict), -1)
		}
		return cmp.Or(cmp.Compare(k.verdict, l.verdict), 1)
	}
	return cmp.Or(cmp.Compare(k.verdict, l.verdict), k.from.Compare(l.from), k.to.Compare(l.to))
}

// of returns what flows of a kind come to.
func (r *Replayer) of(a *answer, k kind) *counted {
	for i := range a.counted {
		if a.counted[i].kind == k {
			return &a.counted[i]
		}
	}
	said := r.say(a, k.verdict, k.verdict == policies.Allow && k.half)
	known := r.sentences[said]
	if known == nil {
		known = &said
		r.sentences[said] = known
	}
	a.counted = append(a.counted, counted{k, known, nil})
	return &a.counted[len(a.counted)-1]
}

// tally returns what is counted by a key; nil where nothing is.
func (a *answer) tally(k tallyKey) *tally {
	if k.isApart() {
		return a.apart[k]
	}
	for i := range a.counted {
		if a.counted[i].kind == k.kind {
			return a.counted[i].tally
		}
	}
	return nil
}

// ruling is what a judge says.
type ruling struct {
	verdict policies.Verdict
	cause   string // why the verdict is unknown, or that nothing was asked
}

type tally struct {
	flows, bytes uint64
	seen         span
	example      *example
}

// Add takes one flow. The flow's maps and slices must not change afterwards. Where
// a Scratch fails, the Rows of the Result say so.
func (r *Replayer) Add(f policies.Flow) {
	f.Count = max(1, f.Count)
	r.take(&f, &f)
}

// take counts flows that get one answer, of which one may be an example.
func (r *Replayer) take(f, example *policies.Flow) {
	from, to := r.find(&f.From), r.find(&f.To)
	if r.relieve() != nil {
		return
	}
	r.total.add(f)
	if nowhere := missing(f, from, to); nowhere != nil {
		u := r.miss(nowhere, f.Count)
		if c := r.connection(u, f); c != nil {
			r.pair(&c.pairs, f)
			c.add(sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter), f.Count, f.Bytes)
		}
		return
	}
	a := r.ask(f, from, to)
	if hasTwins(f) {
		r.pair(&a.pairs, f)
	}
	t := r.tally(a, f, from, to)
	t.add(f)
	r.keep(t, example, from, to)
}

// pair counts a report that may have a twin.
func (r *Replayer) pair(p *pairs, f *policies.Flow) {
	days := p.days()
	p.add(f)
	r.held += p.days() - days
}

// keep keeps a flow as an example, and counts the ends that are held by it.
func (r *Replayer) keep(t *tally, f *policies.Flow, from, to *recorded) {
	before := t.example
	if t.keep(f, from, to); t.example == before {
		return
	}
	for _, e := range [...]*recorded{from, to} {
		if e.kept != r.generation {
			e.kept = r.generation
			r.held += endWeight
		}
	}
}

// endWeight is how many counts take as much room as an end.
const endWeight = 2

// missing returns the place of the first of a flow's ends that is nowhere; nil
// where each is somewhere.
func missing(f *policies.Flow, ends ...*recorded) *place {
	for _, end := range ends {
		switch {
		case end.before.cause != "":
			return &end.before
		case !f.First.IsZero() && f.First.Before(end.since):
			return &younger
		}
	}
	return nil
}

var younger = place{cause: "the pod that has an address is younger than the record of it"}

// mostQuestions is how many questions are remembered: others are answered again.
const mostQuestions = 1 << 18

// ask returns the answer to the question that a flow asks.
func (r *Replayer) ask(f *policies.Flow, from, to *recorded) *answer {
	q := questionOf(f, from, to)
	a := r.questions[q]
	if a == nil {
		key := answerKey{from: from.group, to: to.group, protocol: q.protocol, port: q.port}
		before, source, target := r.before.decide(q, from.before, to.before)
		var after ruling
		if r.after != nil {
			after, _, _ = r.after.decide(q, from.after, to.after)
		}
		key.before, key.after = r.ruling(before), r.ruling(after)
		if key.before.verdict == policies.Deny {
			d := r.before.judge.Decide(source, target, q.protocol, q.port)
			key.leaves = d.Sides[policies.Egress].Verdict == policies.Allow
		}
		a = r.answer(key)
		if len(r.questions) >= mostQuestions {
			clear(r.questions)
		}
		r.questions[q] = a
	}
	return a
}

func (r *Replayer) answer(key answerKey) *answer {
	a := r.answers[key]
	if a == nil {
		a = &answer{answerKey: key}
		r.answers[key] = a
		r.held++
	}
	return a
}

// ruling returns the one of those that are equal that is kept.
func (r *Replayer) ruling(is ruling) *ruling {
	known := r.rulings[is]
	if known == nil {
		known = &is
		r.rulings[is] = known
	}
	return known
}

func questionOf(f *policies.Flow, from, to *recorded) question {
	return question{
		from: from.place, to: to.place, protocol: f.Protocol, port: f.Port,
		self: f.From.Pod != "" && f.From.Pod == f.To.Pod && f.From.Namespace == f.To.Namespace && from.group == to.group,
	}
}

// hasTwins reports whether both sides of a flow may report it. Nobody does for an
// end that is not of the recorder's cluster, and a pod and its own node have one
// recorder.
func hasTwins(f *policies.Flow) bool {
	return !isOutside(&f.From) && !isOutside(&f.To) && !f.From.OwnNode && !f.To.OwnNode
}

// tally returns what a flow is to be added to.
func (r *Replayer) tally(a *answer, f *policies.Flow, from, to *recorded) *tally {
	key := r.countedBy(a, f, from, to)
	t := a.tally(key)
	if t != nil {
		return t
	}
	t = &tally{}
	r.held++
	switch {
	case !key.isApart():
		r.of(a, key.kind).tally = t
		return t
	case a.apart == nil:
		a.apart = map[tallyKey]*tally{}
	}
	a.apart[key] = t
	return t
}

// countedBy returns what a flow is counted by.
func (r *Replayer) countedBy(a *answer, f *policies.Flow, from, to *recorded) tallyKey {
	key := tallyKey{kind: kind{verdict: known(f.Verdict)}}
	key.half = sideOf(key.verdict, f.EgressOnly, f.Origin.Reporter) == departed
	if !from.outside && !to.outside || r.of(a, key.kind).outcome == Stays {
		return key
	}
	if from.outside {
		key.from = plain(f.From.Address)
	}
	if to.outside {
		key.to = plain(f.To.Address)
	}
	return key
}

// known returns a recorded verdict; that of a record without one is unknown.
func known(v policies.Verdict) policies.Verdict {
	if v == policies.Undecided {
		return policies.Unknown
	}
	return v
}

// unresolved is the flows with an end that is nowhere, for one reason, and the
// first by name of the ends it is true of.
type unresolved struct {
	flows   uint64
	example string
	several bool
	named   map[connectionKey]*halved
}

// halved is the connections of two ends that go by their names, which both sides
// may have reported.
type halved struct {
	pairs pairs
	half  tally // of the source's side alone
}

func (h *halved) add(s side, flows, bytes uint64) {
	if s == departed {
		h.half.flows += flows
		h.half.bytes += bytes
	}
}

// connection returns where reports of a flow are paired; nil where none can be.
func (r *Replayer) connection(u *unresolved, f *policies.Flow) *halved {
	if !isConnection(f) {
		return nil
	}
	return r.named(u, connectionKeyOf(f))
}

func (r *Replayer) named(u *unresolved, key connectionKey) *halved {
	if u.named == nil {
		u.named = map[connectionKey]*halved{}
	}
	if u.named[key] == nil {
		u.named[key] = &halved{}
		r.held += 2 // for its names
	}
	return u.named[key]
}

func connectionKeyOf(f *policies.Flow) connectionKey {
	return connectionKey{"", nameOf(&f.From), nameOf(&f.To), f.Protocol, f.Port}
}

// isConnection reports whether reports of a flow are paired by the names of its
// ends.
func isConnection(f *policies.Flow) bool {
	return hasTwins(f) && isNamed(&f.From) && isNamed(&f.To)
}

func (r *Replayer) miss(p *place, flows uint64) *unresolved {
	u := r.unresolved[p.cause]
	if u == nil {
		u = &unresolved{example: p.example}
		r.unresolved[p.cause] = u
	}
	u.flows += flows
	u.also(p.example, false)
	return u
}

// also notes another end that the cause is true of.
func (u *unresolved) also(example string, several bool) {
	u.several = u.several || several || u.example != example
	u.example = min(u.example, example)
}

func (u *unresolved) text(cause string) string {
	switch {
	case u.example == "":
		return cause
	case u.several:
		return cause + " " + u.example + ", for one"
	}
	return cause + " " + u.example
}

func (t *tally) add(f *policies.Flow) {
	t.flows += f.Count
	t.bytes += f.Bytes
	t.seen = t.seen.join(f.First, f.Last)
}

// earliest returns the earlier of two times; the zero time is not known.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

const severalPods = "pods of one workload are decided differently, and the record does not say which is meant"

// decide answers a question in one world, and returns two ends about which that is
// so. Where a record may mean several pods or addresses, there is an answer only if
// they all have the same.
func (d *directory) decide(q question, from, to place) (_ ruling, source, target reach.End) {
	switch cause := cmp.Or(from.cause, to.cause); {
	case cause != "":
		return ruling{cause: cause}, source, target
	case q.protocol == 0:
		return ruling{cause: "the record has no protocol"}, source, target
	case q.port == 0 && q.protocol.HasPorts():
		return ruling{cause: "the record has no destination port"}, source, target
	case q.self:
		return ruling{verdict: policies.Allow}, from.ends[0], to.ends[0]
	}
	var all ruling
	for _, s := range from.ends {
		for _, t := range to.ends {
			v := d.verdict(s, t, q)
			switch {
			case v == policies.Undecided:
				return ruling{verdict: policies.Unknown, cause: "the record has no ICMP type, and policies tell types apart"}, s, t
			case all.verdict == policies.Undecided:
				all, source, target = ruling{verdict: v}, s, t
			case v != all.verdict:
				return ruling{verdict: policies.Unknown, cause: cmp.Or(from.among.choice, to.among.choice, severalPods)}, s, t
			}
		}
	}
	if all.verdict == policies.Unknown {
		all.cause = d.judge.Decide(source, target, q.protocol, q.port).Because
	}
	return all, source, target
}

// verdict decides between two ends. It is Undecided where a record does not say
// which type of ICMP it is about, and types are decided differently.
func (d *directory) verdict(from, to reach.End, q question) policies.Verdict {
	if !lacksPort(q.protocol, q.port) {
		return d.judge.Verdict(from, to, q.protocol, q.port)
	}
	all := netset.EveryPort(q.protocol)
	allow, unknown := d.judge.Ports(from, to)
	switch allow, unknown = all.Intersect(allow), all.Intersect(unknown); {
	case allow.Equal(all):
		return policies.Allow
	case unknown.Equal(all):
		return policies.Unknown
	case allow.IsEmpty() && unknown.IsEmpty():
		return policies.Deny
	}
	return policies.Undecided
}

// lacksPort reports whether a record says no port, or type of ICMP, though its
// protocol has some. What opens a connection is never of ICMP's type 0.
func lacksPort(p netset.Protocol, port uint16) bool {
	return port == 0 && (p.HasPorts() || p == netset.ICMP || p == netset.ICMPv6)
}

// drop takes flows out, with their share of the bytes, which it returns.
func (t *tally) drop(flows uint64) (bytes uint64) {
	if t.flows > 0 {
		high, low := bits.Mul64(t.bytes, flows)
		bytes, _ = bits.Div64(high, low, t.flows)
	}
	t.flows, t.bytes = t.flows-flows, t.bytes-bytes
	return bytes
}

// sentence is what is said about the flows of one tally.
type sentence struct {
	outcome   Outcome
	explained bool
	cause     string
}

// say says what becomes of an answer's flows with a recorded verdict.
func (r *Replayer) say(a *answer, verdict policies.Verdict, egressOnly bool) sentence {
	before, after := a.before, a.after
	if r.after == nil {
		after = before
	}
	explained := verdict == before.verdict && verdict != policies.Unknown
	// The source's side let it go and the destination's denied it: the record
	// tells of the first only, and agrees.
	half := egressOnly && a.leaves
	unknown := func(cause string) sentence { return sentence{Undecided, explained || half, cause} }
	switch {
	case before.cause != "" && r.after != nil && !a.incomplete():
		return unknown("before the change: " + before.cause)
	case before.cause != "":
		return unknown(before.cause)
	case verdict == policies.Unknown:
		return unknown("the record carries no verdict")
	case !explained && !half:
		return sentence{outcome: Drifts}
	case after.cause != "" && after.verdict == policies.Undecided:
		return unknown(after.cause + " after the change")
	case after.cause != "":
		return unknown("after the change: " + after.cause)
	case after.verdict == before.verdict:
		return sentence{outcome: Stays, explained: true}
	case half:
		return unknown("recorded where it left the source, before the destination's policies had a say")
	case after.verdict == policies.Deny:
		return sentence{outcome: Breaks, explained: true}
	}
	return sentence{outcome: Opens, explained: true}
}
