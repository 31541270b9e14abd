package conntest

import (
	"errors"
	"slices"

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
	arrivals := r.arrivals(to, within)
	result := Result{
		Suite: r.suite.Ref, Description: t.Description, To: join(t.To), Port: join(t.Ports), Place: t.Place,
		Surplus: r.surplus(arrivals, sources, to), Missing: r.missing(arrivals, sources, to),
	}
	result.Passed = len(result.Surplus)+len(result.Missing) == 0
	r.results = append(r.results, result)
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
	for _, e := range to {
		for c := range r.Connections(reach.Listing{By: reach.ByPod, To: &e.Target, Ports: &within}) {
			a := arrival{pod: -1, Grant: c.Grant}
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

// claim is traffic of a pod, or of addresses, that no source of the test has
// been found for.
type claim struct {
	pod       int
	addresses netset.Addresses
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
			{a.pod, a.addresses, a.Allow, policies.Allow},
			{a.pod, a.addresses, a.Unknown, policies.Unknown},
		} {
			all = append(all, unlisted(c, sources)...)
		}
	}
	var differences []Difference
	for _, g := range r.gather(all) {
		differences = append(differences, r.difference(g.peers, g.target, to, g.ports))
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
	peers  []policies.Peer
	target policies.Target
	ports  netset.Ports
}

func (r *run) gather(claims []claim) []gathered {
	var all []gathered
	index := map[podName]int{}
	for _, c := range claims {
		key := podName{name: c.verdict.String(), pod: c.ports.Key()}
		var peer policies.Peer
		if c.pod >= 0 {
			peer = r.Peer(r.Pod(c.pod))
			peer.Pod = ""
			key = nameOf(peer)
			key.pod = c.verdict.String()
		}
		at, ok := index[key]
		if !ok {
			at = len(all)
			index[key] = at
			all = append(all, gathered{})
			if c.pod >= 0 {
				all[at].peers = []policies.Peer{peer}
			}
		}
		g := &all[at]
		if c.pod >= 0 {
			if !slices.Contains(g.target.Pods, c.pod) {
				g.target.Pods = append(g.target.Pods, c.pod)
			}
		} else {
			g.target.Addresses = g.target.Addresses.Union(c.addresses)
		}
		g.ports = g.ports.Union(c.ports)
	}
	for i := range all {
		for _, b := range all[i].target.Addresses.Blocks() {
			all[i].peers = append(all[i].peers, policies.Outside(b))
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
		d := r.difference(r.peersOf(&s.Target), s.Target, to, lacking)
		if d.Decision.Verdict == s.expect {
			continue // a pod to itself, which listings leave out
		}
		d.Place = s.Place
		all = append(all, d)
	}
	return all
}

// difference explains what sources can do at the ends themselves.
func (r *run) difference(peers []policies.Peer, from policies.Target, to []end, ports netset.Ports) Difference {
	d := Difference{From: peers, Ports: ports}
	var target policies.Target
	for _, e := range to {
		target.Pods = append(target.Pods, e.Pods...)
		if from.Addresses.IsEmpty() {
			target.Addresses = target.Addresses.Union(e.Addresses)
		}
	}
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
