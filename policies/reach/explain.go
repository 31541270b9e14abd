package reach

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Decide decides one connection like Verdict, and says why: for each direction
// the rule that decided, and every rule that was looked at, in order. It goes
// through the rules themselves rather than through the rows.
func (j *Judge) Decide(from, to End, p netset.Protocol, port uint16) policies.Decision {
	return j.decide(from, to, p, port, naming{j.Peer(from), j.Peer(to), netset.PortSpan(p, port, port)})
}

// DecideTogether decides one connection on the lowest of some ports, on behalf
// of all that are decided like it: the answer speaks of the ends by the names
// given and of all the ports. It is zero where there are no ports.
func (j *Judge) DecideTogether(from, to End, names [2]policies.Peer, ports netset.Ports) policies.Decision {
	for r := range ports.Ranges() {
		d := j.decide(from, to, r.Protocol, r.First, naming{names[0], names[1], ports})
		if !ports.Equal(d.Asked()) {
			d.Ports = ports
		}
		return d
	}
	return policies.Decision{}
}

// naming is how an answer names the ends and the ports it is about, where it
// stands for more than one address or port.
type naming struct {
	from, to policies.Peer
	ports    netset.Ports
}

func (j *Judge) decide(from, to End, p netset.Protocol, port uint16, names naming) policies.Decision {
	d := policies.Decision{From: names.from, To: names.to, Protocol: p, Port: port}
	if j.self(from, to) {
		d.Verdict, d.Because = policies.Allow, "a pod always reaches itself"
		return d
	}
	ways := map[string]policies.Verdict{}
	var a, b [2]int32
	for _, source := range j.columnsOf(from, &a) {
		for _, target := range j.columnsOf(to, &b) {
			shared := j.columns[source].families & j.columns[target].families
			if shared == 0 {
				continue
			}
			fam, name := ipv4, "IPv4"
			if shared&ipv4 == 0 {
				fam, name = ipv6, "IPv6"
			}
			sides := [2]policies.Side{
				j.explain(policies.Egress, from, to, fam, p, port, names),
				j.explain(policies.Ingress, to, from, fam, p, port, names),
			}
			v := both(sides[0].Verdict, sides[1].Verdict)
			ways[name] = v
			if best := either(d.Verdict, v); best != d.Verdict {
				d.Verdict, d.Sides = best, sides
			}
		}
	}
	if d.Verdict == policies.Undecided {
		d.Verdict, d.Because = policies.Deny, "the two have no address family in common"
		return d
	}
	if ways["IPv4"] != ways["IPv6"] && len(ways) == 2 {
		d.Families = ways
	}
	d.Because = because(d)
	return d
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

// addressOf returns the address that an end uses in a family; it is invalid
// when it is not known.
func (j *Judge) addressOf(e End, f family) netip.Addr {
	var addresses []netip.Addr
	switch e.kind {
	case podEnd:
		addresses = j.model.Pods[e.index].Addresses
	case nodeEnd:
		if e == j.OwnNode() {
			return netip.Addr{}
		}
		addresses = j.model.Nodes[e.index].Addresses
	default:
		return e.addr
	}
	for _, a := range addresses {
		if familyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
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
}

func (q *inquiry) subjectName() policies.Peer {
	return [...]policies.Peer{q.names.from, q.names.to}[q.direction]
}

func (q *inquiry) otherName() policies.Peer {
	return [...]policies.Peer{q.names.to, q.names.from}[q.direction]
}

func (j *Judge) explain(d policies.Direction, subject, other End, f family, p netset.Protocol, port uint16, names naming) policies.Side {
	q := inquiry{Judge: j, direction: d, subject: subject, other: other, family: f, protocol: p, port: port, names: names}
	class := j.classOf(subject)
	switch {
	case class < 0:
		return policies.Side{Verdict: policies.Allow, Because: "policies do not govern addresses outside"}
	case j.classes[class].host():
		return policies.Side{Verdict: policies.Allow, Because: "policies do not select what is on a node's own network"}
	case len(j.governing[d][class]) == 0:
		return policies.Side{Verdict: policies.Allow, Because: fmt.Sprintf("no policy selects %s for %s", j.Peer(subject), d)}
	}
	q.evaluate(j.governing[d][class])
	if d == policies.Ingress {
		q.excuse(j.onNodeOf(other, subject), j.governing[d][class])
	}
	return q.side
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
	}
}

// outcome is one thing that may become of the traffic, with the step or else
// the policy behind it.
type outcome struct {
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
	m := q.model
	var outcomes []outcome
	open := true
	for len(list) > 0 && open {
		first := &m.Policies[list[0].policy]
		n := sameTier(m, list)
		tier := tierOf(m, first)
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
		outcomes = append(outcomes, outcome{action: policies.ActionAllow, reason: "no tier that concerns it decides, so it is allowed"})
	}
	q.settle(outcomes)
}

// unclear adds that a policy may do either, and why.
func unclear(outcomes []outcome, p *policies.Policy, reason string) []outcome {
	return append(outcomes, outcome{action: policies.ActionAllow, policy: p, reason: reason}, outcome{action: policies.ActionDeny, policy: p, reason: reason})
}

// tier goes through one tier and reports whether the traffic may still be open
// after it.
func (q *inquiry) tier(t *policies.Tier, list []governing, outcomes *[]outcome) bool {
	// The traffic may be open where no policy of the tier selects the subject
	// (outside), where one does (inside), or because a rule passed it on.
	outside, inside, passed := true, false, false
	all, spared := list, policies.No
	if q.fromOwnNode {
		spared = spares(q.model, list)
	}
	if spared != policies.No {
		*outcomes = append(*outcomes, outcome{action: policies.ActionAllow, reason: "traffic from the pod's own node is always allowed in"})
		outside = spared == policies.Maybe
	}
	for len(list) > 0 {
		n := sameRank(q.model, list)
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
		*outcomes = append(*outcomes, outcome{action: policies.ActionDeny, policy: &q.model.Policies[q.closest(all).policy], reason: q.tierEnd(all)})
		inside = false
	}
	return outside || inside || passed
}

// policy goes through one policy and reports whether the traffic, open before
// it, may still be open after it if it selects the subject.
func (q *inquiry) policy(t *policies.Tier, g governing, left bool, outcomes *[]outcome) bool {
	p := &q.model.Policies[g.policy]
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
		if !left || s.Matches == policies.No || s.Rule == nil {
			continue
		}
		*outcomes = append(*outcomes, outcome{action: s.Action, step: &s.Step, policy: p, reason: s.Because})
		left = !s.sure
	}
	return left
}

// tie notes in the outcomes of policies of one priority where two of them would
// do different things.
func tie(outcomes []outcome) {
	for i := range outcomes {
		a := &outcomes[i]
		at := slices.IndexFunc(outcomes, func(b outcome) bool { return b.policy != a.policy && b.action != a.action })
		if at >= 0 {
			b := &outcomes[at]
			a.tie = fmt.Sprintf("%s %s and %s %s are both of priority %d and disagree: one %s, the other %s",
				a.policy.Ref.Kind, a.policy.Ref, b.policy.Ref.Kind, b.policy.Ref, a.policy.Priority, does[a.action], does[b.action])
		}
	}
}

// does says what a rule does.
var does = [...]string{policies.ActionAllow: "allows", policies.ActionDeny: "denies", policies.ActionPass: "passes on"}

// tierEnd says why the end of a tier denies.
func (q *inquiry) tierEnd(list []governing) string {
	p := &q.model.Policies[q.closest(list).policy]
	what := fmt.Sprintf("%s %s %s", onPorts(q.names.ports), [...]string{"to", "from"}[q.direction], q.otherName())
	rules := 0
	for _, g := range list {
		rules += len(q.model.Policies[g.policy].Rules[q.direction])
	}
	switch {
	case rules == 0 && len(list) == 1:
		return fmt.Sprintf("%s %s selects %s and has no %s rule", p.Ref.Kind, p.Ref, q.subjectName(), q.direction)
	case rules == 0:
		return fmt.Sprintf("%d policies select %s and have no %s rule", len(list), q.subjectName(), q.direction)
	case len(list) == 1:
		return fmt.Sprintf("no %s rule of %s %s allows %s", q.direction, p.Ref.Kind, p.Ref, what)
	}
	return fmt.Sprintf("no %s rule of the %d policies that select %s allows %s", q.direction, len(list), q.subjectName(), what)
}

// closest returns the policy that a reader should look at first when no rule
// matched: one with rules before one without, and the one that selects least.
func (q *inquiry) closest(list []governing) governing {
	return slices.MinFunc(list, func(a, b governing) int {
		x, y := &q.model.Policies[a.policy], &q.model.Policies[b.policy]
		return cmp.Or(
			cmp.Compare(min(1, len(y.Rules[q.direction])), min(1, len(x.Rules[q.direction]))),
			cmp.Compare(len(y.Subject.Pods.Requirements()), len(x.Subject.Pods.Requirements())),
			cmp.Compare(a.policy, b.policy),
		)
	})
}

func opaqueStep(p *policies.Policy) policies.Step {
	return policies.Step{Tier: p.Tier, Policy: p.Ref, Matches: policies.Maybe, Because: p.Opaque, At: p.Place}
}

// settle turns what may become of the traffic into a verdict: unknown where
// that may be different things.
func (q *inquiry) settle(outcomes []outcome) {
	outcomes = slices.DeleteFunc(outcomes, func(o outcome) bool { return o.action == policies.ActionPass })
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
	p := &q.model.Policies[g.policy]
	rules := p.Rules[q.direction]
	switch {
	case p.Opaque != "":
		return []step{{Step: opaqueStep(p)}}
	case len(rules) == 0:
		return []step{{Step: policies.Step{Tier: p.Tier, Policy: p.Ref, Because: "selects it and has no " + q.direction.String() + " rule", At: p.Place}}}
	}
	steps := make([]step, len(rules))
	for i := range rules {
		r := &rules[i]
		s := policies.Step{Tier: p.Tier, Policy: p.Ref, Rule: &i, Action: r.Action, At: r.Place}
		onPort := q.onPort(r)
		peer, what := q.anyPeer(r)
		s.Matches = g.truth.And(onPort).And(peer)
		switch {
		case onPort == policies.No:
			s.Because = "port: it is for " + rulePorts(r)
		case peer == policies.No:
			s.Because = "peer: it is for " + rulePeers(r)
		case s.Matches == policies.Maybe && peer == policies.Maybe:
			s.Because = q.whyMaybe(what)
		case s.Matches == policies.Maybe:
			s.Because = fmt.Sprintf("it is not known whether %s selects %s, because the labels of its namespace are not known", p.Ref, q.subjectName())
		default:
			s.Because = fmt.Sprintf("it %s %s on %s", does[r.Action], what, rulePorts(r))
			if r.Name != "" {
				s.Because += fmt.Sprintf(" by rule %q", r.Name)
			}
		}
		steps[i] = step{s, onPort.And(peer) == policies.Yes}
	}
	return steps
}

func rulePorts(r *policies.Rule) string {
	var parts []string
	if !r.Ports.IsEmpty() {
		parts = append(parts, onPorts(r.Ports))
	}
	for _, n := range r.Named {
		named := func(p netset.Protocol) bool {
			return slices.Contains(r.Named, policies.NamedPort{Protocol: p, Name: n.Name})
		}
		switch {
		case !named(netset.TCP) || !named(netset.UDP) || !named(netset.SCTP):
			parts = append(parts, n.Protocol.String()+"/"+n.Name)
		case n.Protocol == netset.TCP:
			parts = append(parts, "port "+n.Name)
		}
	}
	if len(parts) == 0 {
		return "no port"
	}
	return strings.Join(parts, " ")
}

func onPorts(p netset.Ports) string {
	if text := p.String(); text != "any" {
		return text
	}
	return "any port"
}

// rulePeers names the peers of a rule, at most three of them.
func rulePeers(r *policies.Rule) string {
	const most = 3
	var parts []string
	for i := range r.Peers[:min(most, len(r.Peers))] {
		parts = append(parts, r.Peers[i].String())
	}
	if n := len(r.Peers) - most; n > 0 {
		parts = append(parts, strconv.Itoa(n)+" more")
	}
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, "; ")
}

// onPort reports whether the question's port is one of the rule's.
func (q *inquiry) onPort(r *policies.Rule) policies.Truth {
	if r.Ports.Contains(q.protocol, q.port) {
		return policies.Yes
	}
	destination := q.other
	if q.direction == policies.Ingress {
		destination = q.subject
	}
	if destination.kind != podEnd || q.model.Pods[destination.index].HostNetwork {
		return policies.No
	}
	for _, n := range r.Named {
		for _, c := range q.model.Pods[destination.index].Ports {
			if n.Protocol == q.protocol && n.Name == c.Name && n.Protocol == c.Protocol && c.Number == q.port {
				return policies.Yes
			}
		}
	}
	return policies.No
}

// anyPeer reports whether the other end is one of the rule's peers, and names
// the peer.
func (q *inquiry) anyPeer(r *policies.Rule) (policies.Truth, *policies.Match) {
	best := policies.No
	var which *policies.Match
	for i := range r.Peers {
		if t := q.isPeer(&r.Peers[i]); t > best {
			best, which = t, &r.Peers[i]
		}
	}
	return best, which
}

func (q *inquiry) isPeer(m *policies.Match) policies.Truth {
	switch {
	case m.Anyone:
		return policies.Yes
	case m.Block.CIDR.IsValid():
		return q.isInBlock(m)
	case !m.Nodes.IsNothing():
		return q.isNode(m.Nodes)
	case len(m.Domains) > 0:
		pod := q.other.kind == podEnd && !q.model.Pods[q.other.index].HostNetwork
		return truth(mayBeNamed(m.Domains, pod)).And(policies.Maybe)
	case q.other.kind != podEnd || q.model.Pods[q.other.index].HostNetwork:
		return policies.No
	}
	pod := &q.model.Pods[q.other.index]
	if !m.Pods.Matches(pod.Labels) {
		return policies.No
	}
	ns := &q.namespaces[q.classes[q.classOf(q.other)].namespace]
	return matches(m.Namespaces, ns.labels, ns.implied)
}

// isNode reports whether the other end is one of the nodes in the selector, or
// on its network.
func (q *inquiry) isNode(s selector.Selector) policies.Truth {
	class := q.classOf(q.other)
	if class < 0 || !q.classes[class].host() {
		return policies.No
	}
	return q.machines[q.classes[class].machine].in(s)
}

func (q *inquiry) isInBlock(m *policies.Match) policies.Truth {
	b := m.Block
	if q.other.kind == outsideEnd {
		return truth(b.Addresses().Contains(q.other.addr))
	}
	if q.options.IgnorePodBlocks && !m.InCluster {
		return policies.No
	}
	if a := q.addressOf(q.other, q.family); a.IsValid() {
		return truth(b.Addresses().Contains(a))
	}
	return q.unplacedIn(b.Addresses(), q.classes[q.classOf(q.other)].host(), q.family)
}

func truth(b bool) policies.Truth {
	if b {
		return policies.Yes
	}
	return policies.No
}

// whyMaybe says what is missing to tell whether a peer matches.
func (q *inquiry) whyMaybe(m *policies.Match) string {
	if m.Block.CIDR.IsValid() {
		return fmt.Sprintf("the address of %s is not known, so it may be in %s", q.otherName(), m.Block)
	}
	switch {
	case !m.Nodes.IsNothing():
		return fmt.Sprintf("the labels of the node that %s is on are not known, so it may be one of %s", q.otherName(), m)
	case len(m.Domains) > 0:
		return fmt.Sprintf("which addresses have the name %s is not known, so %s may be one of them", m, q.otherName())
	}
	return fmt.Sprintf("the labels of namespace %s are not known, so %s may be among %s", q.otherName().Namespace, q.otherName(), m)
}
