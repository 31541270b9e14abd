package simulator

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Replayer asks what would become of recorded flows. Its memory grows with the
// distinct ends and questions, with the hours in which both sides report, and with
// the addresses outside whose flows do not stay as they are; not with the flows.
// It is not safe for concurrent use.
type Replayer struct {
	before, after *directory // after is nil where there is one model
	peers         map[peerKey][]*recorded
	places        map[string]int // of recorded.place, by what they hold
	classes       map[classKey]int
	groups        map[string]int // of recorded.group, by the workloads' names
	questions     map[question]*answer
	answers       map[answerKey]*answer
	unresolved    map[string]*unresolved // by cause
	total         tally
}

// New returns a Replayer under the policies before a change and after it.
// After may be nil: then there is one model, and flows drift or stay.
func New(before, after *reach.Judge) *Replayer {
	r := &Replayer{
		before: newDirectory(before), peers: map[peerKey][]*recorded{}, places: map[string]int{}, classes: map[classKey]int{}, groups: map[string]int{},
		questions: map[question]*answer{}, answers: map[answerKey]*answer{}, unresolved: map[string]*unresolved{},
	}
	if after != nil {
		r.after = newDirectory(after)
	}
	return r
}

// peerKey is what tells most recorded ends apart; all else that they say does the
// rest.
type peerKey struct {
	namespace, name, workload string // name is of the pod, its prefix or the set
	// address is the end's own. Of those outside it is one that stands for all
	// that get the same answers, before the change and, where that differs, after.
	address, after         netip.Addr
	outside, host, ownNode bool
}

// recorded is an end as recorded, and where it is in both worlds.
type recorded struct {
	peer          policies.FlowPeer // of the addresses outside that are alike, one
	before, after place
	place         int       // equal for ends in the same places; 0 for those that are nowhere
	group         int       // equal for those of one workload, and for ends in the same places
	outside       bool      // it is one address outside; each record says which
	since         time.Time // of place, by which ends do not differ
}

// question is what is decided once.
type question struct {
	from, to int // recorded.place
	self     bool
	protocol netset.Protocol
	port     uint16
}

// answer is the verdict under both models of questions between the same workloads
// that nothing tells apart, and the flows that ask them. It is the same whether a
// record names a pod or only the workload.
type answer struct {
	answerKey
	pairing   pairing
	tallies   [4][2]*tally        // by verdict and half, of the keys without addresses
	apart     map[tallyKey]*tally // those of the others
	sentences [4][2]*sentence     // of the tallies
}

type answerKey struct {
	from, to      int // recorded.group
	protocol      netset.Protocol
	port          uint16
	before, after ruling
	leaves        bool // denied before the change, but not by the source's side
}

// incomplete reports whether the record itself says too little.
func (k *answerKey) incomplete() bool { return k.protocol == 0 || k.port == 0 && k.protocol.HasPorts() }

// tallyKey is what flows of one answer are counted by.
type tallyKey struct {
	verdict  policies.Verdict // as recorded
	half     int              // 1 for reports of the source's side alone
	from, to netip.Addr       // of ends outside, where flows do not stay as they are
}

func (k tallyKey) isApart() bool { return k.from.IsValid() || k.to.IsValid() }

func (k tallyKey) compare(l tallyKey) int {
	return cmp.Or(cmp.Compare(k.verdict, l.verdict), cmp.Compare(k.half, l.half), k.from.Compare(l.from), k.to.Compare(l.to))
}

// tally returns what is counted by a key; nil where nothing is.
func (a *answer) tally(k tallyKey) *tally {
	if k.isApart() {
		return a.apart[k]
	}
	return a.tallies[k.verdict][k.half]
}

// ruling is what a judge says.
type ruling struct {
	verdict policies.Verdict
	cause   string // why the verdict is unknown, or that nothing was asked
}

type tally struct {
	flows, bytes uint64
	first, last  time.Time
	example      policies.Flow
}

// Add takes one flow. The flow's maps and slices must not change afterwards.
func (r *Replayer) Add(f policies.Flow) {
	f.Count = max(1, f.Count)
	r.take(&f, &f)
}

// take counts flows that get one answer, of which one may be an example.
func (r *Replayer) take(f, example *policies.Flow) {
	r.total.add(f)
	from, to := r.find(&f.From), r.find(&f.To)
	if nowhere := missing(f, from, to); nowhere != nil {
		u := r.miss(nowhere, f.Count)
		if c := u.connection(f); c != nil {
			side := sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter)
			c.pairing.add(f.First, side, f.Count)
			c.add(side, f.Count, f.Bytes)
		}
		return
	}
	a := r.ask(f, from, to)
	if hasTwins(f) {
		a.pairing.add(f.First, sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter), f.Count)
	}
	t := r.tally(a, f, from, to)
	t.add(f)
	t.keepEarliest(example)
}

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

// ask returns the answer to the question that a flow asks.
func (r *Replayer) ask(f *policies.Flow, from, to *recorded) *answer {
	q := questionOf(f, from, to)
	a := r.questions[q]
	if a == nil {
		key := answerKey{from: from.group, to: to.group, protocol: q.protocol, port: q.port}
		before, source, target := r.before.decide(q, from.before, to.before)
		key.before = before
		if r.after != nil {
			key.after, _, _ = r.after.decide(q, from.after, to.after)
		}
		if key.before.verdict == policies.Deny {
			d := r.before.judge.Decide(source, target, q.protocol, q.port)
			key.leaves = d.Sides[policies.Egress].Verdict == policies.Allow
		}
		a = r.answers[key]
		if a == nil {
			a = &answer{answerKey: key}
			r.answers[key] = a
		}
		r.questions[q] = a
	}
	return a
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
	switch {
	case t != nil:
		return t
	case !key.isApart():
		t = &tally{}
		a.tallies[key.verdict][key.half] = t
		return t
	case a.apart == nil:
		a.apart = map[tallyKey]*tally{}
	}
	t = &tally{}
	a.apart[key] = t
	return t
}

// countedBy returns what a flow is counted by.
func (r *Replayer) countedBy(a *answer, f *policies.Flow, from, to *recorded) tallyKey {
	key := tallyKey{verdict: known(f.Verdict)}
	if sideOf(key.verdict, f.EgressOnly, f.Origin.Reporter) == departed {
		key.half = 1
	}
	if !from.outside && !to.outside || r.sentence(a, key).outcome == Stays {
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
	pairing pairing
	half    tally // of the source's side alone
}

func (h *halved) add(s side, flows, bytes uint64) {
	if s == departed {
		h.half.flows += flows
		h.half.bytes += bytes
	}
}

// connection returns where reports of a flow are paired; nil where none can be.
func (u *unresolved) connection(f *policies.Flow) *halved {
	if !isConnection(f) {
		return nil
	}
	key := connectionKey{"", nameOf(&f.From), nameOf(&f.To), f.Protocol, f.Port}
	if u.named == nil {
		u.named = map[connectionKey]*halved{}
	}
	if u.named[key] == nil {
		u.named[key] = &halved{}
	}
	return u.named[key]
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
	u.several = u.several || u.example != p.example
	u.example = min(u.example, p.example)
	return u
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
	key := peerKey{
		namespace: p.Namespace, name: cmp.Or(p.Pod, p.PodPrefix, p.Set.Name), address: p.Address, outside: p.Outside, host: p.Host, ownNode: p.OwnNode,
	}
	if len(p.Workloads) > 0 {
		key.workload = p.Workloads[0].Name
	}
	address, isOutside := r.before.outsideAddress(p)
	if isOutside {
		key.address = r.before.judge.Alike(address)
		if r.after != nil {
			key.after = r.after.judge.Alike(address)
		}
	}
	for _, known := range r.peers[key] {
		if known.outside == isOutside && known.says(p) {
			return known
		}
	}
	e := &recorded{peer: kept(*p), outside: isOutside}
	switch {
	case isOutside:
		e.before = place{ends: []reach.End{r.before.judge.Outside(key.address)}}
		if r.after != nil {
			e.after = place{ends: []reach.End{r.after.judge.Outside(key.after)}}
		}
	default:
		e.before = r.before.find(p)
		e.since, e.before.since = e.before.since, time.Time{}
		if r.after != nil {
			e.after = r.after.follow(r.before, e.before, p)
		}
	}
	if e.before.cause == "" {
		text := fmt.Sprint(e.outside, e.before, e.after)
		if isOutside {
			text += fmt.Sprint(p.Set, p.Network) // which rows name
		}
		if _, ok := r.places[text]; !ok {
			r.places[text] = len(r.places)
		}
		e.place = r.places[text]
		if !isOutside && e.before.among.choice == "" {
			peer := r.before.judge.Peer(e.before.ends[0])
			text = fmt.Sprint(policies.Ref{Kind: peer.Kind, Namespace: peer.Namespace, Name: peer.Name}, peer.Kind)
		}
		if _, ok := r.groups[text]; !ok {
			r.groups[text] = len(r.groups)
		}
		e.group = r.groups[text]
	}
	r.peers[key] = append(r.peers[key], e)
	return e
}

// says reports whether an end was recorded as p, but for its address and names.
func (e *recorded) says(p *policies.FlowPeer) bool {
	return e.peer.Pod == p.Pod && e.peer.PodPrefix == p.PodPrefix && e.peer.Set == p.Set && e.peer.Network == p.Network &&
		e.peer.LabelsPartial == p.LabelsPartial && (e.peer.Labels == nil) == (p.Labels == nil) &&
		maps.Equal(e.peer.Labels, p.Labels) && slices.Equal(e.peer.Workloads, p.Workloads)
}

// kept returns an end that does not change with p.
func kept(p policies.FlowPeer) policies.FlowPeer {
	p.Labels, p.Workloads, p.Names = maps.Clone(p.Labels), slices.Clone(p.Workloads), slices.Clone(p.Names)
	return p
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
		flows := u.flows
		for _, c := range u.named {
			matched, half := c.pairing.matched(), c.half
			result.Bytes -= half.drop(matched)
			result.Paired += matched
			flows -= matched
		}
		causes[u.text(cause)] += flows
		result.Unresolved += flows
	}
	rows := map[rowKey]*Row{}
	for _, a := range r.answers {
		if a.isAsked() && (a.before.verdict != policies.Undecided || a.after.verdict != policies.Undecided) {
			result.Questions++
		}
		matched := a.pairing.matched()
		result.Paired += matched
		for _, key := range a.counted() {
			t := *a.tally(key)
			if key.half == 1 {
				n := min(matched, t.flows)
				matched -= n
				result.Bytes -= t.drop(n)
			}
			if t.flows == 0 {
				continue
			}
			s := r.sentence(a, key)
			result.Outcomes[s.outcome] += t.flows
			if s.explained {
				result.Explained += t.flows
			}
			if s.outcome == Undecided {
				causes[s.cause] += t.flows
			}
			r.merge(rows, a, key.verdict, s, &t)
		}
	}
	sorted := slices.SortedFunc(maps.Values(rows), compareRows)
	result.Rows = make([]Row, len(sorted))
	for i, row := range sorted {
		row.Decision = r.explain(row)
		if row.Outcome == Breaks || row.Outcome == Opens {
			row.Base = r.decideExample(row, r.before)
		}
		result.Rows[i] = *row
	}
	for text, flows := range causes {
		result.Causes = append(result.Causes, Cause{text, flows})
	}
	slices.SortFunc(result.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), strings.Compare(a.Text, b.Text))
	})
	return result
}

// counted returns what the tallies of an answer are counted by, in order.
func (a *answer) counted() []tallyKey {
	keys := slices.Collect(maps.Keys(a.apart))
	for verdict, halves := range a.tallies {
		for half, t := range halves {
			if t != nil {
				keys = append(keys, tallyKey{verdict: policies.Verdict(verdict), half: half})
			}
		}
	}
	slices.SortFunc(keys, tallyKey.compare)
	return keys
}

func (a *answer) isAsked() bool { return len(a.apart) > 0 || a.tallies != [4][2]*tally{} }

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

// sentence says what becomes of an answer's flows by what they are counted by.
func (r *Replayer) sentence(a *answer, key tallyKey) sentence {
	s := &a.sentences[key.verdict][key.half]
	if *s == nil {
		said := r.say(a, key.verdict, key.verdict == policies.Allow && key.half == 1)
		*s = &said
	}
	return **s
}

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
func (r *Replayer) merge(rows map[rowKey]*Row, a *answer, verdict policies.Verdict, s sentence, t *tally) {
	from, to := r.find(&t.example.From), r.find(&t.example.To)
	row := Row{
		Outcome: s.outcome, From: r.peer(from, t.example.From.Address, s.outcome), To: r.peer(to, t.example.To.Address, s.outcome), Protocol: a.protocol, Port: a.port,
		Recorded: verdict, Before: a.before.verdict, After: a.after.verdict, Cause: s.cause,
	}
	key := rowKey{row.Outcome, keyOf(row.From), keyOf(row.To), row.Protocol, row.Port, row.Recorded, row.Before, row.After, row.Cause}
	known := rows[key]
	switch {
	case known == nil:
		row.Example = t.example
		known = &row
		rows[key] = known
	case compareExamples(&t.example, &known.Example) < 0:
		known.Example = t.example
	}
	known.Flows += t.flows
	known.Bytes += t.bytes
	known.First, known.Last = earliest(known.First, t.first), latest(known.Last, t.last)
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
func (r *Replayer) explain(row *Row) policies.Decision {
	d, verdict := r.after, row.After
	if row.Outcome == Drifts || r.after == nil {
		d, verdict = r.before, row.Before
	}
	if row.Outcome == Stays || verdict == policies.Undecided {
		return policies.Decision{}
	}
	return r.decideExample(row, d)
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

func compareRows(a, b *Row) int {
	if c := cmp.Compare(slices.Index(Outcomes[:], a.Outcome), slices.Index(Outcomes[:], b.Outcome)); c != 0 {
		return c
	}
	if c := cmp.Compare(b.Flows, a.Flows); c != 0 {
		return c
	}
	return cmp.Or(
		compareEnds(a.From, b.From), compareEnds(a.To, b.To),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Recorded, b.Recorded), cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After),
		strings.Compare(a.Cause, b.Cause),
	)
}
