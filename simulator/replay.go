package simulator

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Replayer asks what would become of recorded flows. Its memory grows with the
// distinct ends and questions, not with the flows. It is not safe for
// concurrent use.
type Replayer struct {
	before, after *directory // after is nil where there is one model
	peers         map[peerKey][]*recorded
	places        map[string]int // of recorded.place, by what they hold
	questions     map[question]*answer
	unresolved    map[string]*unresolved // by cause
	total         tally
}

// New returns a Replayer under the policies before a change and after it.
// After may be nil: then there is one model, and flows drift or stay.
func New(before, after *reach.Judge) *Replayer {
	r := &Replayer{
		before: newDirectory(before), peers: map[peerKey][]*recorded{}, places: map[string]int{},
		questions: map[question]*answer{}, unresolved: map[string]*unresolved{},
	}
	if after != nil {
		r.after = newDirectory(after)
	}
	return r
}

// peerKey is what tells most recorded ends apart; their labels and workloads
// do the rest.
type peerKey struct {
	namespace, pod, workload string
	address                  netip.Addr
	outside, host, ownNode   bool
}

// recorded is an end as recorded, and where it is in both worlds.
type recorded struct {
	peer          policies.FlowPeer
	before, after place
	place         int // equal for ends in the same places; 0 for those that are nowhere
}

// question is what is decided once.
type question struct {
	from, to int // recorded.place
	self     bool
	protocol netset.Protocol
	port     uint16
}

// answer is a question's verdict under both models, and the flows that ask it:
// by recorded verdict, and those that only the source's side has judged apart.
type answer struct {
	before, after ruling
	tallies       [4][2]*tally
}

// ruling is what a judge says, with the two ends it was asked about.
type ruling struct {
	verdict  policies.Verdict
	from, to reach.End
	cause    string // why the verdict is unknown, or that nothing was asked
}

type tally struct {
	flows, bytes uint64
	first, last  time.Time
	example      policies.Flow
}

// Add takes one flow. The flow's maps and slices must not change afterwards.
func (r *Replayer) Add(f policies.Flow) {
	f.Count = max(1, f.Count)
	r.total.add(&f)
	from, to := r.find(&f.From), r.find(&f.To)
	for _, end := range []*recorded{from, to} {
		if end.before.cause != "" {
			r.miss(&end.before, f.Count)
			return
		}
	}
	q := question{
		from: from.place, to: to.place, protocol: f.Protocol, port: f.Port,
		self: f.From.Pod != "" && f.From.Pod == f.To.Pod && f.From.Namespace == f.To.Namespace,
	}
	a := r.questions[q]
	if a == nil {
		a = &answer{before: r.before.decide(q, from.before, to.before)}
		if r.after != nil {
			a.after = r.after.decide(q, from.after, to.after)
		}
		r.questions[q] = a
	}
	verdict, half := f.Verdict, 0
	switch {
	case verdict == policies.Undecided:
		verdict = policies.Unknown
	case verdict == policies.Allow && f.EgressOnly:
		half = 1
	}
	t := &a.tallies[verdict][half]
	if *t == nil {
		*t = &tally{}
	}
	(*t).add(&f)
	(*t).keepEarliest(&f)
}

// unresolved is the flows with an end that is nowhere, for one reason, and the
// first by name of the ends it is true of.
type unresolved struct {
	flows   uint64
	example string
	several bool
}

func (r *Replayer) miss(p *place, flows uint64) {
	u := r.unresolved[p.cause]
	if u == nil {
		u = &unresolved{example: p.example}
		r.unresolved[p.cause] = u
	}
	u.flows += flows
	u.several = u.several || u.example != p.example
	u.example = min(u.example, p.example)
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
	t.first, t.last = earliest(t.first, f.First), latest(t.last, f.Last)
}

func (t *tally) keepEarliest(f *policies.Flow) {
	if t.example.Count == 0 || compareExamples(f, &t.example) < 0 {
		t.example = *f
	}
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

// compareExamples orders records by time and place; those without a time come
// last. What is still equal is told apart by all that it says.
func compareExamples(a, b *policies.Flow) int {
	if a.First.IsZero() != b.First.IsZero() {
		if a.First.IsZero() {
			return 1
		}
		return -1
	}
	if c := cmp.Or(a.First.Compare(b.First), a.Record.Compare(b.Record)); c != 0 {
		return c
	}
	return strings.Compare(fmt.Sprintf("%+v", *a), fmt.Sprintf("%+v", *b))
}

// find returns where a recorded end is, and remembers it.
func (r *Replayer) find(p *policies.FlowPeer) *recorded {
	key := peerKey{namespace: p.Namespace, pod: p.Pod, address: p.Address, outside: p.Outside, host: p.Host, ownNode: p.OwnNode}
	if len(p.Workloads) > 0 {
		key.workload = p.Workloads[0].Name
	}
	for _, known := range r.peers[key] {
		if known.peer.LabelsPartial == p.LabelsPartial && (known.peer.Labels == nil) == (p.Labels == nil) &&
			maps.Equal(known.peer.Labels, p.Labels) && slices.Equal(known.peer.Workloads, p.Workloads) {
			return known
		}
	}
	e := &recorded{peer: *p, before: r.before.find(p)}
	if r.after != nil {
		e.after = r.after.follow(r.before, e.before, p)
	}
	if e.before.cause == "" {
		text := fmt.Sprint(e.before, e.after)
		if _, ok := r.places[text]; !ok {
			r.places[text] = len(r.places)
		}
		e.place = r.places[text]
	}
	r.peers[key] = append(r.peers[key], e)
	return e
}

// decide answers a question in one world. Where a record may mean several pods,
// there is an answer only if they all have the same.
func (d *directory) decide(q question, from, to place) ruling {
	switch cause := cmp.Or(from.cause, to.cause); {
	case cause != "":
		return ruling{cause: cause}
	case q.protocol == 0:
		return ruling{cause: "the record has no protocol"}
	case q.port == 0 && q.protocol.HasPorts():
		return ruling{cause: "the record has no destination port"}
	case q.self:
		return ruling{verdict: policies.Allow, from: from.ends[0], to: to.ends[0]}
	}
	var all ruling
	for _, source := range from.ends {
		for _, target := range to.ends {
			v := d.verdict(source, target, q)
			switch {
			case v == policies.Undecided:
				return ruling{verdict: policies.Unknown, cause: "the record has no ICMP type, and policies tell types apart", from: source, to: target}
			case all.verdict == policies.Undecided:
				all = ruling{verdict: v, from: source, to: target}
			case v != all.verdict:
				return ruling{verdict: policies.Unknown, cause: "pods of one workload are decided differently, and the record does not say which is meant", from: source, to: target}
			}
		}
	}
	if all.verdict == policies.Unknown {
		all.cause = d.judge.Decide(all.from, all.to, q.protocol, q.port).Because
	}
	return all
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

// Result returns what the flows taken so far come to. It does not depend on
// their order.
func (r *Replayer) Result() *Result {
	result := &Result{
		Flows: r.total.flows, Bytes: r.total.bytes, First: r.total.first, Last: r.total.last,
		Outcomes: map[Outcome]uint64{},
	}
	for _, o := range Outcomes {
		result.Outcomes[o] = 0
	}
	causes := map[string]uint64{}
	for cause, u := range r.unresolved {
		causes[u.text(cause)] += u.flows
		result.Unresolved += u.flows
	}
	rows := map[rowKey]*pending{}
	for q, a := range r.questions {
		if a.before.verdict != policies.Undecided || a.after.verdict != policies.Undecided {
			result.Questions++
		}
		for verdict, halves := range a.tallies {
			for half, t := range halves {
				if t == nil {
					continue
				}
				s := r.sentence(q, a, policies.Verdict(verdict), half == 1)
				result.Outcomes[s.outcome] += t.flows
				if s.explained {
					result.Explained += t.flows
				}
				if s.outcome == Undecided {
					causes[s.cause] += t.flows
				}
				r.merge(rows, q, a, policies.Verdict(verdict), s, t)
			}
		}
	}
	for _, p := range rows {
		p.row.Decision = r.explain(p)
		if p.row.Outcome == Breaks || p.row.Outcome == Opens {
			was := p.answer.before
			p.row.Base = r.before.judge.Decide(was.from, was.to, p.question.protocol, p.question.port)
		}
		result.Rows = append(result.Rows, p.row)
	}
	slices.SortFunc(result.Rows, compareRows)
	for text, flows := range causes {
		result.Causes = append(result.Causes, Cause{text, flows})
	}
	slices.SortFunc(result.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), strings.Compare(a.Text, b.Text))
	})
	return result
}

// sentence is what is said about the flows of one tally.
type sentence struct {
	outcome   Outcome
	explained bool
	cause     string
}

func (r *Replayer) sentence(q question, a *answer, verdict policies.Verdict, egressOnly bool) sentence {
	before, after := a.before, a.after
	if r.after == nil {
		after = before
	}
	explained := verdict == before.verdict && verdict != policies.Unknown
	// The source's side let it go and the destination's denied it: the record
	// tells of the first only, and agrees.
	half := egressOnly && before.verdict == policies.Deny && r.leaves(q, before)
	unknown := func(cause string) sentence { return sentence{Undecided, explained || half, cause} }
	switch {
	case before.cause != "" && r.after != nil && !q.incomplete():
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

// incomplete reports whether the record itself says too little.
func (q question) incomplete() bool { return q.protocol == 0 || q.port == 0 && q.protocol.HasPorts() }

// leaves reports whether the source's side alone allows what is denied.
func (r *Replayer) leaves(q question, denied ruling) bool {
	d := r.before.judge.Decide(denied.from, denied.to, q.protocol, q.port)
	return d.Sides[policies.Egress].Verdict == policies.Allow
}

// pending is a row in the making, with the question of its example.
type pending struct {
	row      Row
	question question
	answer   *answer
}

type rowKey struct {
	outcome                 Outcome
	from, to                endKey
	protocol                netset.Protocol
	port                    uint16
	recorded, before, after policies.Verdict
	cause                   string
}

type endKey struct {
	namespace, name, kind string
	cidr                  netip.Prefix
}

func keyOf(p policies.Peer) endKey {
	k := endKey{namespace: p.Namespace, name: p.Name, kind: p.Kind}
	if p.CIDR != nil {
		k.cidr = *p.CIDR
	}
	return k
}

// merge adds a tally to the row that it belongs to.
func (r *Replayer) merge(rows map[rowKey]*pending, q question, a *answer, verdict policies.Verdict, s sentence, t *tally) {
	from, to := r.find(&t.example.From), r.find(&t.example.To)
	row := Row{
		Outcome: s.outcome, From: r.peer(from, s.outcome), To: r.peer(to, s.outcome), Protocol: q.protocol, Port: q.port,
		Recorded: verdict, Before: a.before.verdict, After: a.after.verdict, Cause: s.cause,
	}
	key := rowKey{row.Outcome, keyOf(row.From), keyOf(row.To), row.Protocol, row.Port, row.Recorded, row.Before, row.After, row.Cause}
	p := rows[key]
	if p == nil {
		p = &pending{row: row}
		rows[key] = p
	}
	p.row.Flows += t.flows
	p.row.Bytes += t.bytes
	p.row.First, p.row.Last = earliest(p.row.First, t.first), latest(p.row.Last, t.last)
	if p.answer == nil || compareExamples(&t.example, &p.row.Example) < 0 {
		p.row.Example, p.question, p.answer = t.example, q, a
	}
}

// peer names a recorded end for a row.
func (r *Replayer) peer(e *recorded, o Outcome) policies.Peer {
	p := r.before.judge.Peer(e.before.ends[0])
	p.Pod = ""
	if o == Stays && p.IsOutside() {
		family := netset.AllIPv4
		if p.CIDR.Addr().Is6() {
			family = netset.AllIPv6
		}
		return policies.Outside(netset.Block{CIDR: family})
	}
	return p
}

// explain decides a row's example with its reason.
func (r *Replayer) explain(p *pending) policies.Decision {
	d, ruling := r.after, p.answer.after
	if p.row.Outcome == Drifts || r.after == nil {
		d, ruling = r.before, p.answer.before
	}
	if p.row.Outcome == Stays || ruling.verdict == policies.Undecided {
		return policies.Decision{}
	}
	if p.question.self {
		return policies.Decision{Verdict: policies.Allow, Because: "a pod always reaches itself"}
	}
	return d.judge.Decide(ruling.from, ruling.to, p.question.protocol, p.question.port)
}

func compareRows(a, b Row) int {
	return cmp.Or(
		cmp.Compare(slices.Index(Outcomes[:], a.Outcome), slices.Index(Outcomes[:], b.Outcome)),
		cmp.Compare(b.Flows, a.Flows),
		compareEnds(a.From, b.From), compareEnds(a.To, b.To),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Recorded, b.Recorded), cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After),
		strings.Compare(a.Cause, b.Cause),
	)
}
