package conntest

import (
	"errors"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// listed is one source that a test lists.
type listed struct {
	end
	ports  netset.Ports
	some   bool // one of the ports will do
	expect policies.Verdict
}

// arrival is what one pod, or addresses outside, can do at the end of a test.
type arrival struct {
	pod       int // index of World.Pods, or -1
	addresses netset.Addresses
	to        int // index among the ends that the test is about
	*policies.Grant
}

// isOf reports whether a source names the pod, or some of the addresses.
func (a *arrival) isOf(t *policies.Target) bool {
	return a.pod >= 0 && slices.Contains(t.Pods, a.pod) || a.addresses.Overlaps(t.Addresses)
}

// only compares everything that can reach any of to with what the test lists.
func (r *run) only(t *Test, to []end, ports []port) {
	reported := len(r.problems)
	within := r.behind(to, ports)
	var sources []listed
	for _, s := range t.Only {
		l := listed{ports: within, some: len(s.Ports)+len(t.Ports) == 0, expect: s.Expect}
		if len(s.Ports) > 0 {
			l.ports = r.behind(to, r.ports(s.Ports, t.Place))
		}
		for _, l.end = range r.ends(s.From) {
			if r.isListable(l.end) && !l.Addresses.IsEmpty() && slices.ContainsFunc(to, func(e end) bool { return !e.Addresses.IsEmpty() }) {
				r.problem(l.Place, errors.New("it is outside, as what it is to reach: policies decide nothing between them"))
			}
			sources = append(sources, l)
		}
	}
	for _, e := range to {
		r.isListable(e)
	}
	if len(r.problems) > reported {
		return
	}
	to = joined(to)
	arrivals := r.arrivals(to, within)
	result := Result{
		Suite: r.suite.Ref, Description: t.Description, To: join(t.To), Port: join(t.Ports), Place: t.Place,
		Surplus: r.surplus(arrivals, sources, to), Missing: r.missing(arrivals, sources, to),
	}
	result.Passed = len(result.Surplus)+len(result.Missing) == 0
	r.results = append(r.results, result)
}

// joined makes one end of all that are outside, which are told together.
func joined(to []end) []end {
	var inside []end
	var outside end
	for _, e := range to {
		if e.Addresses.IsEmpty() {
			inside = append(inside, e)
			continue
		}
		outside.Addresses = outside.Addresses.Union(e.Addresses)
		if !slices.Contains(strings.Split(outside.Text.Text, ", "), e.named) {
			outside.Text.Text = strings.TrimPrefix(outside.Text.Text+", "+e.named, ", ")
		}
	}
	if outside.Addresses.IsEmpty() {
		return inside
	}
	return append(inside, outside)
}

// isListable reports whether listings have the end; one that they have not is a
// problem.
func (r *run) isListable(e end) bool {
	if len(e.Nodes) > 0 {
		r.problem(e.Place, errors.New(e.Target.Text+" is a node, and expectOnly is about pods and addresses outside; ask with expect"))
	}
	return len(e.Nodes) == 0
}

// behind returns the ports that the queries mean at the ends themselves.
func (r *run) behind(to []end, ports []port) netset.Ports {
	var all netset.Ports
	for _, e := range to {
		for _, p := range ports {
			behind, err := r.PortsOf(e.Target, p.PortQuery)
			if err != nil {
				r.problem(p.Place, err)
			}
			all = all.Union(behind)
		}
	}
	return all
}

// arrivals returns what can reach any of to, pod by pod and block by block.
func (r *run) arrivals(to []end, within netset.Ports) []arrival {
	var all []arrival
	for i, e := range to {
		for c := range r.Connections(reach.Listing{By: reach.ByPod, To: &e.Target, Ports: &within}) {
			a := arrival{pod: -1, to: i, Grant: c.Grant}
			if c.From.IsOutside() {
				a.addresses = netset.Block{CIDR: *c.From.CIDR, Except: c.From.Except}.Addresses()
			} else {
				a.pod = r.podOf(*c.From)
			}
			all = append(all, a)
		}
	}
	return all
}

// podName is what tells pods apart among peers.
type podName struct{ namespace, name, kind, pod string }

func nameOf(p policies.Peer) podName { return podName{p.Namespace, p.Name, p.Kind, p.Pod} }

func (r *run) podOf(p policies.Peer) int {
	if r.pods == nil {
		r.pods = map[podName]int{}
		for i := range r.Model().Pods {
			r.pods[nameOf(r.Peer(r.Pod(i)))] = i
		}
	}
	return r.pods[nameOf(p)]
}

// claim is traffic that arrives, allowed or unknown.
type claim struct {
	pod       int
	addresses netset.Addresses
	to        int
	ports     netset.Ports
	verdict   policies.Verdict
}

// surplus returns what arrives and is not listed. A source that is listed as
// allowed and may be so is a matter for missing.
func (r *run) surplus(arrivals []arrival, sources []listed, to []end) []Difference {
	var all []claim
	for i := range arrivals {
		a := &arrivals[i]
		for _, c := range []claim{
			{a.pod, a.addresses, a.to, a.Allow, policies.Allow},
			{a.pod, a.addresses, a.to, a.Unknown, policies.Unknown},
		} {
			all = append(all, unlisted(c, sources)...)
		}
	}
	var differences []Difference
	for _, g := range r.gather(all) {
		d := r.difference(g.target, to[g.to:g.to+1], g.ports)
		d.Verdict = g.verdict
		differences = append(differences, d)
	}
	return differences
}

// unlisted returns what is left of a claim without what the sources list.
func unlisted(c claim, sources []listed) []claim {
	left := []claim{c}
	for i := range sources {
		s := &sources[i]
		if c.verdict == policies.Allow && s.expect != policies.Allow {
			continue
		}
		var next []claim
		for _, l := range left {
			switch {
			case l.pod >= 0 && slices.Contains(s.Pods, l.pod):
				l.ports = l.ports.Minus(s.ports)
			case l.pod < 0 && l.addresses.Overlaps(s.Addresses):
				inside := l
				inside.addresses = l.addresses.Intersect(s.Addresses)
				if inside.ports = l.ports.Minus(s.ports); !inside.ports.IsEmpty() {
					next = append(next, inside)
				}
				l.addresses = l.addresses.Minus(s.Addresses)
			}
			if !l.ports.IsEmpty() && (l.pod >= 0 || !l.addresses.IsEmpty()) {
				next = append(next, l)
			}
		}
		left = next
	}
	return slices.DeleteFunc(left, func(c claim) bool { return c.ports.IsEmpty() })
}

// gathered is claims that are told together: those of the pods of a workload, and
// those of all addresses with the same ports.
type gathered struct {
	target  policies.Target
	to      int
	ports   netset.Ports
	verdict policies.Verdict
}

func (r *run) gather(claims []claim) []gathered {
	type key struct {
		workload policies.Ref
		ports    string // of addresses
		to       int
		verdict  policies.Verdict
	}
	var all []gathered
	index := map[key]int{}
	for _, c := range claims {
		k := key{to: c.to, verdict: c.verdict}
		if c.pod >= 0 {
			k.workload = r.Model().Pods[c.pod].Workload
		} else {
			k.ports = c.ports.Key()
		}
		at, known := index[k]
		if !known {
			at = len(all)
			index[k] = at
			all = append(all, gathered{to: c.to, verdict: c.verdict})
		}
		g := &all[at]
		g.ports = g.ports.Union(c.ports)
		if c.pod >= 0 {
			g.target.Pods = append(g.target.Pods, c.pod)
		} else {
			g.target.Addresses = g.target.Addresses.Union(c.addresses)
		}
	}
	return all
}

// missing returns what is listed and does not arrive.
func (r *run) missing(arrivals []arrival, sources []listed, to []end) []Difference {
	var all []Difference
	for i := range sources {
		s := &sources[i]
		var given netset.Ports
		for k := range arrivals {
			if a := &arrivals[k]; a.isOf(&s.Target) {
				given = given.Union(map[policies.Verdict]netset.Ports{policies.Allow: a.Allow, policies.Unknown: a.Unknown}[s.expect])
			}
		}
		lacking := s.ports.Minus(given)
		if lacking.IsEmpty() || s.some && !given.IsEmpty() {
			continue
		}
		d := r.difference(s.Target, to, lacking)
		if d.Decision.Verdict == s.expect {
			continue // a pod to itself, which listings leave out
		}
		d.Verdict, d.Place = policies.Deny, s.Place
		all = append(all, d)
	}
	return all
}

// difference explains what sources can do at the ends themselves.
func (r *run) difference(from policies.Target, to []end, ports netset.Ports) Difference {
	d := Difference{From: r.peersOf(&from), Ports: ports}
	var target policies.Target
	var names []Text
	for _, e := range to {
		names = append(names, e.Text)
		target.Pods = append(target.Pods, e.Pods...)
		if from.Addresses.IsEmpty() {
			target.Addresses = target.Addresses.Union(e.Addresses)
		}
	}
	d.To = join(names)
	// Neither end is a Service nor the port a name, so there is always an answer.
	d.Decision, _ = r.Ask(reach.Question{From: from, To: target, Port: policies.PortQuery{Ports: ports}})
	return d
}

// peersOf names a target's pods by their workloads, and its addresses.
func (r *run) peersOf(t *policies.Target) []policies.Peer {
	var peers []policies.Peer
	for _, i := range t.Pods {
		p := r.Peer(r.Pod(i))
		p.Pod = ""
		if !slices.ContainsFunc(peers, func(q policies.Peer) bool { return nameOf(q) == nameOf(p) }) {
			peers = append(peers, p)
		}
	}
	for _, b := range t.Addresses.Blocks() {
		peers = append(peers, policies.Outside(b))
	}
	return peers
}
