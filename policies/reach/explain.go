package reach

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Decide decides one connection like Verdict, and says why: for each direction
// the rule that decided, and every rule that was looked at, in order. It goes
// through the rules themselves rather than through the rows.
func (j *Judge) Decide(from, to End, p netset.Protocol, port uint16) policies.Decision {
	return j.decide(from, to, p, port, naming{from: j.Peer(from), to: j.Peer(to), ports: netset.PortSpan(p, port, port)})
}

// DecideBriefly is Decide without the rules that do not match, which takes less time: a
// step of a policy none of whose rules does names none.
func (j *Judge) DecideBriefly(from, to End, p netset.Protocol, port uint16) policies.Decision {
	return j.decide(from, to, p, port, naming{from: j.Peer(from), to: j.Peer(to), ports: netset.PortSpan(p, port, port), brief: true})
}

// DecideTogether decides one connection on the lowest of some ports, on behalf
// of all that are decided like it: the answer speaks of the ends by the names
// given and of all the ports. It is zero where there are no ports.
func (j *Judge) DecideTogether(from, to End, names [2]policies.Peer, ports netset.Ports) policies.Decision {
	for r := range ports.Ranges() {
		d := j.decide(from, to, r.Protocol, r.First, naming{from: names[0], to: names[1], ports: ports})
		if !ports.Equal(d.Asked()) {
			d.Ports = ports
		}
		return d
	}
	return policies.Decision{}
}

// naming is how an answer names the ends and the ports it is about, where it
// stands for more than one address or port; and whether it names the rules that do
// not match.
type naming struct {
	from, to policies.Peer
	ports    netset.Ports
	brief    bool
}

func (j *Judge) decide(from, to End, p netset.Protocol, port uint16, names naming) policies.Decision {
	d := policies.Decision{From: names.from, To: names.to, Protocol: p, Port: port}
	if j.self(from, to) {
		d.Verdict, d.Because = policies.Allow, "a pod always reaches itself"
		return d
	}
	var byFamily [ipv4 | ipv6 + 1][]path
	var a, b [2]int32
	for _, source := range j.columnsOf(from, &a) {
		for _, target := range j.columnsOf(to, &b) {
			way, shared := j.wayOf(from, to, source, target)
			if way == noWay {
				continue
			}
			fam := shared & ipv4
			if fam == 0 {
				fam = ipv6
			}
			x := path{from: j.facing(from, source), to: j.facing(to, target)}
			x.sides = [2]policies.Side{
				j.explain(policies.Egress, x.from, x.to, source, fam, p, port, names),
				j.explain(policies.Ingress, x.to, x.from, target, fam, p, port, names),
			}
			v := both(x.sides[0].Verdict, x.sides[1].Verdict)
			x.verdict = way.worth(v)
			x.inDoubt = x.verdict != v
			byFamily[shared] = append(byFamily[shared], x)
		}
	}
	ways := map[string]policies.Verdict{}
	var taken path
	for shared, paths := range byFamily {
		if len(paths) == 0 {
			continue
		}
		x := j.agreedPath(paths, names)
		ways[[...]string{ipv4: "IPv4", ipv6: "IPv6", ipv4 | ipv6: "IPv4"}[shared]] = x.verdict
		if best := either(d.Verdict, x.verdict); best != d.Verdict {
			d.Verdict, d.Sides, taken = best, x.sides, x
		}
	}
	if d.Verdict == policies.Undecided {
		d.Verdict, d.Because = policies.Deny, "the two have no address family in common"
		return d
	}
	if ways["IPv4"] != ways["IPv6"] && len(ways) == 2 {
		d.Families = ways
	}
	switch {
	case taken.inDoubt:
		d.Because = "over IPv4 it is denied, and it is not known whether both have an IPv6 address, over which it is allowed"
	case taken.because != "":
		d.Because = taken.because
	default:
		d.Because = because(d)
	}
	return d
}

// path is a way between two addresses, with what is decided there.
type path struct {
	from, to End
	sides    [2]policies.Side
	verdict  policies.Verdict
	inDoubt  bool   // there may be no such way
	because  string // where it depends on the addresses
}

// facing returns an end at the address that one of its columns stands for; as it is
// where its addresses are alike.
func (j *Judge) facing(e End, column int32) End {
	c := &j.columns[column]
	if c.subject == c.class || e.addr.IsValid() {
		return e
	}
	all := j.addressesOf(e)
	e.addr = all[slices.IndexFunc(all, func(a netip.Addr) bool { return j.atomOf(a) == c.atom })]
	return e
}

// agreedPath returns what paths over one family agree on: where they do not, it
// depends on which address is used.
func (j *Judge) agreedPath(paths []path, names naming) path {
	x := paths[0]
	at := slices.IndexFunc(paths, func(y path) bool { return y.verdict != x.verdict })
	if at < 0 {
		return x
	}
	x.because = "it depends on the address: " + x.differs(&paths[at], names)
	x.verdict, x.inDoubt = policies.Unknown, false
	for _, d := range policies.Directions {
		var traces [][]policies.Step
		for i := range paths {
			traces = append(traces, paths[i].sides[d].Trace)
		}
		side := &x.sides[d]
		if slices.ContainsFunc(paths, func(y path) bool { return y.sides[d].Verdict != side.Verdict }) {
			side.Verdict, side.Because = policies.Unknown, x.because
		}
		side.Trace = joinTraces(traces)
	}
	return x
}

// because gives the reason of a decision in one clause: that of the side that
// settled it.
func because(d policies.Decision) string {
	egress, ingress := d.Sides[policies.Egress], d.Sides[policies.Ingress]
	switch {
	case egress.Verdict == d.Verdict && d.Verdict != policies.Allow:
		return "egress: " + egress.Because
	case ingress.Verdict == d.Verdict && d.Verdict != policies.Allow:
		return "ingress: " + ingress.Because
	case len(egress.Trace) == 0 && len(ingress.Trace) == 0:
		return "no policy has a say"
	case len(egress.Trace) == 0:
		return "ingress: " + ingress.Because
	case len(ingress.Trace) == 0:
		return "egress: " + egress.Because
	}
	return "both sides allow it"
}

// addressOf returns an address that an end uses in a family, all being alike; it is
// invalid when it is not known.
func (j *Judge) addressOf(e End, f family) netip.Addr {
	for _, a := range j.mayBeAt(e) {
		if familyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// differs says which addresses tell two paths apart, and how each is decided.
func (x *path) differs(y *path, names naming) string {
	at := func(z *path) string {
		switch {
		case x.from == y.from:
			return fmt.Sprintf("%s of %s", z.to.addr, names.to)
		case x.to == y.to:
			return fmt.Sprintf("%s of %s", z.from.addr, names.from)
		}
		return fmt.Sprintf("%s of %s to %s of %s", z.from.addr, names.from, z.to.addr, names.to)
	}
	return fmt.Sprintf("%s for %s, %s for %s", x.verdict, at(x), y.verdict, at(y))
}

// inquiry is one direction of one question.
type inquiry struct {
	*Judge
	direction      policies.Direction
	subject, other End
	family         family
	protocol       netset.Protocol
	port           uint16
	fromOwnNode    bool // the other end is the subject's node, or on its network
	names          naming
	side           policies.Side
	found          map[End][]finding
}

func (q *inquiry) subjectName() policies.Peer {
	return [...]policies.Peer{q.names.from, q.names.to}[q.direction]
}

func (q *inquiry) otherName() policies.Peer {
	return [...]policies.Peer{q.names.to, q.names.from}[q.direction]
}

// explain decides one direction for the end it looks at, which is at its own column.
func (j *Judge) explain(d policies.Direction, subject, other End, own int32, f family, p netset.Protocol, port uint16, names naming) policies.Side {
	q := inquiry{Judge: j, direction: d, subject: subject, other: other, family: f, protocol: p, port: port, names: names, found: map[End][]finding{}}
	class := j.columns[own].subject
	switch {
	case class < 0:
		return policies.Side{Verdict: policies.Allow, Because: "policies do not govern addresses outside"}
	case len(j.governs(d, class)) > 0 && j.classes[class].host():
		q.pass(j.governs(d, class), j.passedBy(j.hosts, &j.classes[class]))
	case len(j.governs(d, class)) > 0:
		q.evaluate(j.governs(d, class))
	case j.classes[class].host():
		q.side = policies.Side{Verdict: policies.Allow, Because: "policies do not select what is on a node's own network"}
	default:
		q.side = policies.Side{Verdict: policies.Allow, Because: fmt.Sprintf("no policy selects %s for %s", j.Peer(subject), d)}
	}
	switch {
	case len(j.nodeIDs) == 0:
	case j.classes[class].host():
		q.sparePods()
	default:
		q.throughHosts()
	}
	if d == policies.Ingress {
		q.excuse(j.onNodeOf(other, subject), j.governs(d, class))
	}
	return q.side
}

// pass goes through the policies for hosts, those of each host endpoint that the
// traffic may pass by themselves: where the endpoints differ, it is not known what
// becomes of it. Without any, all the policies count.
func (q *inquiry) pass(list []governing, endpoints []*endpoint) {
	if len(endpoints) == 0 {
		q.evaluate(list)
		return
	}
	sides, traces := make([]policies.Side, len(endpoints)), make([][]policies.Step, len(endpoints))
	for i, at := range endpoints {
		one := *q
		one.evaluate(at.of(list))
		sides[i], traces[i] = one.side, one.side.Trace
	}
	first := slices.MinFunc(sides, func(a, b policies.Side) int { return cmp.Compare(openness(a), openness(b)) })
	last := slices.MaxFunc(sides, func(a, b policies.Side) int { return cmp.Compare(openness(a), openness(b)) })
	at := slices.IndexFunc(sides, func(s policies.Side) bool { return s.Policy != nil && s.Verdict == first.Verdict })
	q.side = sides[max(0, at)]
	if first.Verdict != last.Verdict {
		q.side.Verdict, q.side.Because = policies.Unknown, q.whyMaybePassed(sides, endpoints)
	}
	q.side.Trace = joinTraces(traces)
	slices.SortStableFunc(q.side.Trace, func(a, b policies.Step) int { return cmp.Compare(q.rank(list, a), q.rank(list, b)) })
}

// openness orders sides by how much they let through.
func openness(s policies.Side) int {
	return slices.Index([]policies.Verdict{policies.Deny, policies.Unknown, policies.Allow}, s.Verdict)
}

// rank returns where the policy of a step stands in a list.
func (q *inquiry) rank(list []governing, s policies.Step) int {
	return slices.IndexFunc(list, func(g governing) bool {
		p := q.book.policy(g.policy)
		return p.Ref == s.Policy && p.Tier == s.Tier
	})
}

// whyMaybePassed says on which host endpoint it depends what becomes of traffic.
func (q *inquiry) whyMaybePassed(sides []policies.Side, endpoints []*endpoint) string {
	of := func(v policies.Verdict) string {
		i := slices.IndexFunc(sides, func(s policies.Side) bool { return s.Verdict == v })
		switch {
		case i < 0:
			return ""
		case endpoints[i] == nil:
			return "none"
		}
		return "HostEndpoint " + endpoints[i].Ref.String()
	}
	open, shut := of(policies.Allow), of(policies.Deny)
	switch {
	case open == "none" && shut != "":
		return fmt.Sprintf("it is not known whether traffic of %s passes %s, which denies it", q.subjectName(), shut)
	case open != "" && shut != "":
		return fmt.Sprintf("it is not known whether traffic of %s passes %s, which allows it, or %s, which denies it", q.subjectName(), open, shut)
	}
	return sides[slices.IndexFunc(sides, func(s policies.Side) bool { return s.Verdict == policies.Unknown })].Because
}

// joinTraces returns the steps of all traces, each once; those that are not in all
// match perhaps at most.
func joinTraces(traces [][]policies.Step) []policies.Step {
	same := func(a, b *policies.Step) bool {
		return a.Policy == b.Policy && a.Tier == b.Tier && (a.Rule == nil) == (b.Rule == nil) && (a.Rule == nil || *a.Rule == *b.Rule)
	}
	var all []policies.Step
	var counts []int
	for _, trace := range traces {
		for i := range trace {
			at := slices.IndexFunc(all, func(s policies.Step) bool { return same(&s, &trace[i]) })
			if at < 0 {
				at = len(all)
				all, counts = append(all, trace[i]), append(counts, 0)
			}
			counts[at]++
			if all[at].Matches != trace[i].Matches {
				all[at].Matches = policies.Maybe
			}
		}
	}
	for i := range all {
		if counts[i] < len(traces) {
			all[i].Matches = all[i].Matches.And(policies.Maybe)
		}
	}
	return all
}

// sparePods lets through what a host exchanges, or may exchange, with its own
// pods.
func (q *inquiry) sparePods() {
	class := q.classOf(q.other)
	if class < 0 {
		return
	}
	switch q.onSameNode(q.classOf(q.subject), class) {
	case policies.Yes:
		q.side.Verdict, q.side.Because = policies.Allow, "what a host exchanges with its own pods passes no host endpoint"
	case policies.Maybe:
		if q.side.Verdict != policies.Allow {
			q.side.Verdict, q.side.Because = policies.Unknown, fmt.Sprintf("it is not known whether %s and %s are on one node, where policies for hosts do not count", q.subjectName(), q.otherName())
		}
	}
}

// throughHosts decides what becomes of a pod's traffic at the host endpoints of
// its node, or of the nodes that it may be on.
func (q *inquiry) throughHosts() {
	node := q.classes[q.classOf(q.subject)].node
	own := policies.Hop{Side: q.side}
	for _, at := range slices.Sorted(maps.Keys(q.hosts.forwarded)) {
		list := q.hosts.forwarded[at][q.direction]
		if node >= 0 && at != node || len(list) == 0 {
			continue
		}
		through := *q
		through.side = policies.Side{}
		through.pass(list, q.hosts.passed[at])
		if class := q.classOf(q.other); class >= 0 {
			switch n := q.classes[class].node; {
			case n == at:
				continue // nothing is forwarded
			case n < 0 && through.side.Verdict != policies.Allow:
				through.side.Verdict, through.side.Because = policies.Unknown, fmt.Sprintf("it is not known whether %s and %s are on one node, where nothing is forwarded", q.subjectName(), q.otherName())
			}
		}
		if node < 0 && through.side.Verdict == policies.Deny {
			through.side.Verdict, through.side.Because = policies.Unknown, fmt.Sprintf("the node of %s is not known, and policies for host endpoints deny what some node forwards: %s", q.subjectName(), through.side.Because)
		}
		hops := slices.Concat(q.side.Hops, []policies.Hop{{Node: q.nodeName(at), Side: through.side}})
		trace := slices.Concat(q.side.Trace, through.side.Trace)
		if v := both(q.side.Verdict, through.side.Verdict); v != q.side.Verdict {
			q.side = through.side
			q.side.Verdict = v
		}
		q.side.Trace, q.side.Hops = trace, hops
	}
	switch {
	case len(q.side.Hops) == 0:
	case q.direction == policies.Egress:
		q.side.Hops = slices.Insert(q.side.Hops, 0, own)
	default:
		q.side.Hops = append(q.side.Hops, own)
	}
}

// excuse decides again for what comes, or may come, from the pod's own node.
func (q *inquiry) excuse(onNode policies.Truth, list []governing) {
	if onNode == policies.No {
		return
	}
	again := *q
	again.side, again.fromOwnNode = policies.Side{}, true
	again.evaluate(list)
	switch {
	case again.side.Verdict == q.side.Verdict:
	case onNode == policies.Yes:
		q.side = again.side
	default:
		q.side.Verdict = policies.Unknown
		q.side.Because = fmt.Sprintf("it is not known whether %s runs on the node of %s, which is always let in", q.otherName(), q.subjectName())
		for i := range q.side.Hops {
			if hop := &q.side.Hops[i]; hop.Verdict == policies.Deny {
				hop.Verdict, hop.Because = policies.Unknown, q.side.Because
			}
		}
	}
}

// result is one thing that may become of the traffic, with the step or else
// the policy behind it.
type result struct {
	action policies.Action
	step   *policies.Step
	policy *policies.Policy
	reason string
	tie    string // where policies of one priority disagree about it
}

// evaluate goes through the tiers. As long as it is not sure that a rule
// matches, it notes what the rule would do and goes on; several outcomes that
// differ are unknown.
func (q *inquiry) evaluate(list []governing) {
	b := q.book
	var outcomes []result
	open := true
	for len(list) > 0 && open {
		first := b.policy(list[0].policy)
		n := b.sameTier(list)
		tier := b.tierOf(first)
		if tier == nil {
			q.side.Trace = append(q.side.Trace, opaqueStep(first))
			outcomes = unclear(outcomes, first, first.Opaque)
			open = false
			break
		}
		open = q.tier(tier, list[:n], &outcomes)
		list = list[n:]
	}
	if open {
		outcomes = append(outcomes, result{action: policies.ActionAllow, reason: "no tier that concerns it decides, so it is allowed"})
	}
	q.settle(outcomes)
}

// unclear adds that a policy may do either, and why.
func unclear(outcomes []result, p *policies.Policy, reason string) []result {
	return append(outcomes, result{action: policies.ActionAllow, policy: p, reason: reason}, result{action: policies.ActionDeny, policy: p, reason: reason})
}

// tier goes through one tier and reports whether the traffic may still be open
// after it.
func (q *inquiry) tier(t *policies.Tier, list []governing, outcomes *[]result) bool {
	// The traffic may be open where no policy of the tier selects the subject
	// (outside), where one does (inside), or because a rule passed it on.
	outside, inside, passed := true, false, false
	all, spared := list, policies.No
	if q.fromOwnNode {
		spared = q.book.spares(list)
	}
	if spared != policies.No {
		*outcomes = append(*outcomes, result{action: policies.ActionAllow, reason: "traffic from the pod's own node is always allowed in"})
		outside = spared == policies.Maybe
	}
	for len(list) > 0 {
		n := q.book.sameRank(list)
		left := (outside || inside) && spared == policies.No
		first := len(*outcomes)
		missed, kept, certain := false, left, false
		for _, g := range list[:n] {
			open := q.policy(t, g, left, outcomes)
			missed = missed || open
			if g.truth == policies.Yes {
				kept, certain = kept && open, true
			}
		}
		tie((*outcomes)[first:])
		for _, o := range (*outcomes)[first:] {
			passed = passed || o.action == policies.ActionPass
		}
		inside = (inside || outside && missed) && kept
		outside = outside && !certain
		list = list[n:]
	}
	if inside && t.End == policies.ActionDeny {
		p, reason := q.book.policy(q.closest(all).policy), q.tierEnd(all)
		if outside {
			reason += "; " + q.whyMaybeSelected(p)
		}
		*outcomes = append(*outcomes, result{action: policies.ActionDeny, policy: p, reason: reason})
		inside = false
	}
	return outside || inside || passed
}

// policy goes through one policy and reports whether the traffic, open before
// it, may still be open after it if it selects the subject.
func (q *inquiry) policy(t *policies.Tier, g governing, left bool, outcomes *[]result) bool {
	p := q.book.policy(g.policy)
	switch {
	case left && p.Opaque != "":
		*outcomes = unclear(*outcomes, p, p.Opaque)
		left = false
	case left && t.Undefined.Contains(q.protocol, q.port):
		*outcomes = unclear(*outcomes, p, fmt.Sprintf("%s is not defined for %s", q.protocol, p.Ref.Kind))
		left = false
	}
	for _, s := range q.steps(g) {
		q.side.Trace = append(q.side.Trace, s.Step)
		if !left || s.Matches == policies.No || s.Rule == nil || s.Action == policies.ActionLog {
			continue
		}
		*outcomes = append(*outcomes, result{action: s.Action, step: &s.Step, policy: p, reason: s.Because})
		left = !s.sure
	}
	return left
}

// tie notes in the outcomes of policies of one priority where two of them would
// do different things.
func tie(outcomes []result) {
	for i := range outcomes {
		a := &outcomes[i]
		at := slices.IndexFunc(outcomes, func(b result) bool { return b.policy != a.policy && b.action != a.action })
		if at >= 0 {
			b := &outcomes[at]
			a.tie = fmt.Sprintf("%s %s and %s %s are both of priority %d and disagree: one %s, the other %s",
				a.policy.Ref.What(), a.policy.Ref, b.policy.Ref.What(), b.policy.Ref, a.policy.Priority, does[a.action], does[b.action])
		}
	}
}

// does says what a rule does.
var does = [...]string{policies.ActionAllow: "allows", policies.ActionDeny: "denies", policies.ActionPass: "passes on", policies.ActionLog: "logs"}

// tierEnd says why the end of a tier denies.
func (q *inquiry) tierEnd(list []governing) string {
	p := q.book.policy(q.closest(list).policy)
	what := fmt.Sprintf("%s %s %s", onPorts(q.names.ports), [...]string{"to", "from"}[q.direction], q.otherName())
	rules := 0
	for _, g := range list {
		rules += len(q.book.policy(g.policy).Rules[q.direction])
	}
	switch {
	case rules == 0 && len(list) == 1:
		return fmt.Sprintf("%s %s selects %s and has no %s rule", p.Ref.What(), p.Ref, q.subjectName(), q.direction)
	case rules == 0:
		return fmt.Sprintf("%d policies select %s and have no %s rule", len(list), q.subjectName(), q.direction)
	case len(list) == 1:
		return fmt.Sprintf("no %s rule of %s %s allows %s", q.direction, p.Ref.What(), p.Ref, what)
	}
	return fmt.Sprintf("no %s rule of the %d policies that select %s allows %s", q.direction, len(list), q.subjectName(), what)
}

// closest returns the policy that a reader should look at first when no rule
// matched: one with rules before one without, and the one that selects least.
func (q *inquiry) closest(list []governing) governing {
	return slices.MinFunc(list, func(a, b governing) int {
		x, y := q.book.policy(a.policy), q.book.policy(b.policy)
		return cmp.Or(
			cmp.Compare(min(1, len(y.Rules[q.direction])), min(1, len(x.Rules[q.direction]))),
			cmp.Compare(len(y.Subject.Pods.Requirements()), len(x.Subject.Pods.Requirements())),
		)
	})
}

func opaqueStep(p *policies.Policy) policies.Step {
	return policies.Step{Tier: p.Tier, Policy: p.Ref, Matches: policies.Maybe, Because: p.Opaque, At: p.Place}
}

// settle turns what may become of the traffic into a verdict: unknown where
// that may be different things.
func (q *inquiry) settle(outcomes []result) {
	outcomes = slices.DeleteFunc(outcomes, func(o result) bool { return o.action == policies.ActionPass })
	verdict := map[policies.Action]policies.Verdict{policies.ActionAllow: policies.Allow, policies.ActionDeny: policies.Deny}
	first := outcomes[0]
	q.side.Verdict, q.side.Because = verdict[first.action], first.reason
	for _, o := range outcomes {
		if o.action != first.action {
			q.side.Verdict = policies.Unknown
			q.side.Because = cmp.Or(first.tie, first.reason)
		}
	}
	switch s, p := first.step, first.policy; {
	case s != nil:
		q.side.Tier, q.side.Policy, q.side.Rule, q.side.At = s.Tier, &s.Policy, s.Rule, s.At
	case p != nil:
		q.side.Tier, q.side.Policy, q.side.At = p.Tier, &p.Ref, p.Place
	}
}

// step is a rule that was looked at; it is sure where the rule matches if only
// its policy selects the subject.
type step struct {
	policies.Step
	sure bool
}

// steps looks at each rule of a policy; a policy without rules is one step.
func (q *inquiry) steps(g governing) []step {
	p := q.book.policy(g.policy)
	rules := p.Rules[q.direction]
	switch {
	case p.Opaque != "":
		return []step{{Step: opaqueStep(p)}}
	case len(rules) == 0:
		return []step{{Step: policies.Step{Tier: p.Tier, Policy: p.Ref, Because: "selects it and has no " + q.direction.String() + " rule", At: p.Place}}}
	}
	steps := make([]step, 0, len(rules))
	if q.names.brief {
		steps = nil
	}
	for i := range rules {
		r := &rules[i]
		onPort := q.onPort(r)
		if q.names.brief && onPort == policies.No {
			continue
		}
		peer, what := q.anyPeer(r)
		if q.names.brief && peer == policies.No {
			continue
		}
		s := policies.Step{Tier: p.Tier, Policy: p.Ref, Rule: &i, Action: r.Action, At: r.Place}
		own := policies.Yes
		if r.Own != nil {
			own = q.is(r.Own, q.subject)
		}
		clear := policies.Yes
		if r.Unclear != "" {
			clear = policies.Maybe
		}
		s.Matches = g.truth.And(onPort).And(peer).And(own).And(clear)
		switch {
		case onPort == policies.No:
			s.Because = "port: it is for " + r.Where()
		case peer == policies.No:
			s.Because = "peer: it is for " + r.Who()
		case own == policies.No:
			s.Because = fmt.Sprintf("own side: it is for %s only", r.Own)
		case s.Matches == policies.Maybe && peer == policies.Maybe:
			s.Because = q.whyMaybe(what)
		case s.Matches == policies.Maybe && own == policies.Maybe:
			s.Because = fmt.Sprintf("it is not known whether %s is among %s, for which the rule is", q.subjectName(), r.Own)
		case clear == policies.Maybe:
			s.Because = r.Unclear
		case s.Matches == policies.Maybe:
			s.Because = q.whyMaybeSelected(p)
		default:
			s.Because = fmt.Sprintf("it %s %s on %s", does[r.Action], what, r.Where())
			if r.Name != "" {
				s.Because += fmt.Sprintf(" by rule %q", r.Name)
			}
		}
		steps = append(steps, step{s, onPort.And(peer).And(own).And(clear) == policies.Yes})
	}
	if len(steps) == 0 && len(q.side.Trace) == 0 {
		steps = []step{{Step: policies.Step{Tier: p.Tier, Policy: p.Ref, At: p.Place}}} // it has a say
	}
	return steps
}

func onPorts(p netset.Ports) string {
	if text := p.String(); text != "any" {
		return text
	}
	return "any port"
}
