package nft

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Refusal says what of a policy is not enforced as it is written, and why. A part of a
// policy is never enforced without the rest: what would be opened by it stays closed.
type Refusal struct {
	Policy policies.Ref // without a name where it is not one policy's doing
	Place  policies.Place
	Reason string
	// Kept is set where the policy's last version that could be enforced is in force.
	Kept bool
	// Direction and Pods are what is concerned, where the policy could be enforced but
	// for something that is not known of the world; empty where it could not at all.
	Direction policies.Direction
	Pods      []policies.Ref
}

func (r Refusal) String() string {
	text := r.Place.String() + ": "
	if r.Policy.Name != "" {
		text += fmt.Sprintf("%s %s is not enforced as it is written: ", r.Policy.What(), r.Policy)
	}
	text += r.Reason
	if len(r.Pods) > 0 {
		names := make([]string, len(r.Pods))
		for i, p := range r.Pods {
			names[i] = p.String()
		}
		return text + fmt.Sprintf("; it concerns %s of %s", r.Direction, strings.Join(names, ", "))
	}
	return text
}

// Accepted are the policies of a node in the last versions that could be enforced.
type Accepted map[policies.Ref]policies.Policy

// Admit returns a model as a node can enforce it. In the place of a policy that no
// packet filter can express, as it asks for HTTP methods or domain names say, stands
// its last version that could be; where there is none, the policy is closed: it denies
// whatever it may deny, and allows nothing. The versions to pass the next time come
// along.
func Admit(m *policies.Model, last Accepted) (*policies.Model, Accepted, []Refusal) {
	admitted, next := *m, Accepted{}
	admitted.Policies = slices.Clone(m.Policies)
	var refusals []Refusal
	for i := range admitted.Policies {
		p := &admitted.Policies[i]
		reason, at := inexpressible(p)
		if reason == "" {
			next[p.Ref] = *p
			continue
		}
		r := Refusal{Policy: p.Ref, Place: at, Reason: reason + "; what it would open stays closed"}
		if was, had := last[p.Ref]; had {
			r.Reason, r.Kept = reason+"; its last version that could be is in force", true
			*p, next[p.Ref] = was, was
		} else {
			*p = closed(*p, reason)
		}
		refusals = append(refusals, r)
	}
	slices.SortStableFunc(admitted.Policies, policies.Policy.Compare)
	return &admitted, next, refusals
}

// inexpressible returns why no packet filter can do what a policy asks for; nothing
// where one can.
func inexpressible(p *policies.Policy) (reason string, at policies.Place) {
	if p.Opaque != "" {
		return p.Opaque, p.Place
	}
	for _, d := range policies.Directions {
		for i := range p.Rules[d] {
			r := &p.Rules[d][i]
			switch {
			case r.Action == policies.ActionLog:
			case r.Unclear != "":
				return r.Unclear, r.Place
			case slices.ContainsFunc(r.Peers, namesDomains):
				return "it names domains, and which addresses those have is not known", r.Place
			}
		}
	}
	return "", policies.Place{}
}

func namesDomains(m policies.Match) bool {
	return len(m.Domains) > 0 || slices.ContainsFunc(m.Any, namesDomains) || slices.ContainsFunc(m.All, namesDomains)
}

// closed returns a policy of which no rule matches anything for sure.
func closed(p policies.Policy, reason string) policies.Policy {
	for _, d := range policies.Directions {
		p.Rules[d] = slices.Clone(p.Rules[d])
		for i := range p.Rules[d] {
			p.Rules[d][i].Unclear = cmp.Or(p.Rules[d][i].Unclear, reason)
		}
	}
	return p
}

// Doubts returns what else of a node's policies is not enforced as it is written: what
// the judge is not sure of, which is denied; what keeps a pod's own node out, which is
// let in; and what is for host endpoints, which are not guarded.
func Doubts(in Input) []Refusal {
	f := finder{in: in, judge: in.Judge, ends: map[netip.Addr]reach.End{}, kinds: map[int32]reach.End{}, found: map[doubt]map[policies.Ref]bool{}}
	if in.Enforced != nil {
		f.judge = in.Enforced
	}
	m := f.judge.Model()
	for i := range m.Nodes {
		for _, a := range m.Nodes[i].Addresses {
			f.ends[a] = f.judge.At(f.judge.Node(i), a)
		}
	}
	for i := range m.Pods {
		if kind := m.Pods[i].Kind; kind != 0 {
			f.kinds[kind] = f.judge.Pod(i)
			continue
		}
		for _, a := range m.Pods[i].Addresses {
			f.ends[a] = f.judge.At(f.judge.Pod(i), a)
		}
	}
	for _, d := range policies.Directions {
		f.lookAt(d)
	}
	f.lookAtOwnNode()
	for i := range m.Policies {
		if p := &m.Policies[i]; !p.IsBuiltIn() && len(f.judge.HostsOf(i)) > 0 {
			f.found[doubt{policy: p.Ref, place: p.Place, reason: "it is for host endpoints, too, and only pods are guarded"}] = nil
		}
	}
	return f.refusals()
}

// finder finds doubts.
type finder struct {
	in    Input
	judge *reach.Judge
	ends  map[netip.Addr]reach.End
	kinds map[int32]reach.End             // that stand for others of theirs
	found map[doubt]map[policies.Ref]bool // the pods that are concerned
}

// doubt is a refusal without the pods.
type doubt struct {
	policy    policies.Ref
	place     policies.Place
	reason    string
	direction policies.Direction
}

// lookAt finds what is unknown in one direction, by one example for each of the
// vectors that pods have. What a kind of policy leaves open is not in doubt.
func (f *finder) lookAt(d policies.Direction) {
	said := netset.EveryConnection()
	for _, t := range f.judge.Model().Tiers {
		said = said.Minus(t.Undefined)
	}
	for _, v := range f.judge.Vectors(d, f.in.Pods) {
		for _, g := range v.Grants {
			peer, some := f.peerOf(&v, g.At[0])
			if !some {
				continue
			}
			for r := range g.Unknown.Intersect(said).Ranges() {
				from, to := f.ends[g.At[0]], peer
				if d == policies.Ingress {
					from, to = to, from
				}
				side := f.judge.Decide(from, to, r.Protocol, r.First).Sides[d]
				f.add(side, d, side.Because+", so it is denied", g.At)
				break
			}
		}
	}
}

// peerOf returns one of those who are in a vector, other than the pod itself at some
// address; not ok where there is nobody else.
func (f *finder) peerOf(v *reach.Vector, itself netip.Addr) (end reach.End, ok bool) {
	for _, a := range v.Peers {
		if f.judge.Peer(f.ends[a]).String() != f.judge.Peer(f.ends[itself]).String() {
			return f.ends[a], true
		}
	}
	for _, kind := range v.Kinds {
		return f.kinds[kind.Number], true
	}
	for first := range v.Outside.Spans() {
		return f.judge.Outside(first), true
	}
	return reach.End{}, false
}

// add notes a doubt about pods at some addresses.
func (f *finder) add(side policies.Side, d policies.Direction, reason string, at []netip.Addr) {
	x := doubt{place: side.At, reason: reason, direction: d}
	if side.Policy != nil {
		x.policy = *side.Policy
	}
	if f.found[x] == nil {
		f.found[x] = map[policies.Ref]bool{}
	}
	for _, i := range f.in.Pods {
		p := &f.judge.World().Pods[i]
		if slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return slices.Contains(at, a) }) {
			f.found[x][p.Ref] = true
		}
	}
}

// lookAtOwnNode finds what would keep a pod's own node from it.
func (f *finder) lookAtOwnNode() {
	for _, i := range f.in.Pods {
		p := &f.judge.World().Pods[i]
		if p.HostNetwork {
			continue
		}
		allow, unknown := f.judge.Ports(f.judge.OwnNode(), f.judge.Pod(i))
		for r := range netset.TransportPorts().Minus(allow).Minus(unknown).Ranges() {
			side := f.judge.Decide(f.judge.OwnNode(), f.judge.Pod(i), r.Protocol, r.First).Sides[policies.Ingress]
			if side.Verdict == policies.Deny {
				f.add(side, policies.Ingress, "it keeps a pod's own node out, which is let in all the same, as the kubelet's probes come from there", p.Addresses)
			}
			break
		}
	}
}

func (f *finder) refusals() []Refusal {
	all := make([]Refusal, 0, len(f.found))
	for x, pods := range f.found {
		all = append(all, Refusal{
			Policy: x.policy, Place: x.place, Reason: x.reason, Direction: x.direction,
			Pods: slices.SortedFunc(maps.Keys(pods), policies.Ref.Compare),
		})
	}
	slices.SortFunc(all, func(a, b Refusal) int {
		return cmp.Or(a.Policy.Compare(b.Policy), a.Place.Compare(b.Place), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}
