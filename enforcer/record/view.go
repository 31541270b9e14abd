//go:build linux

package record

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// view is a generation, ready to be asked who has an address and what decided. It
// remembers what it was asked.
type view struct {
	Generation
	options *Options
	judge   *reach.Judge
	peers   map[netip.Addr]*peer // pods and nodes
	outside map[netip.Addr]*peer
	service map[netip.Addr]string
	groups  map[groupKey]*policies.FlowPeer
	stories map[question]*story
	rolled  map[string]*story // by what they say
}

// peer is one who may be at an end of a connection.
type peer struct {
	policies.FlowPeer
	end   reach.End
	local bool // a pod of this node
	pod   bool
	group *policies.FlowPeer // what is said of it at level 2
}

// groupKey is what pods have in common that are told together.
type groupKey struct {
	workload policies.Ref
	prefix   string
}

// outcome is what the kernel did.
type outcome struct {
	denied    bool // by the direction's policies
	direction policies.Direction
	observed  [2]bool // passed only because the direction is observed
}

// question is a connection as far as it is told like others.
type question struct {
	from, to netip.Addr
	asked    netip.Addr // where from sent it; another one than to where it was translated
	protocol netset.Protocol
	port     uint16
	outcome
}

// story is what is said of connections that are alike.
type story struct {
	flow    policies.Flow // without times, counters and source port
	told    *story        // what records say, at their level
	ours    bool          // a pod of the node is at an end
	certain bool          // the policies would decide so
}

// What a view remembers at most, so that who scans the network does not fill memory.
const (
	mostStories = 1 << 17
	mostOutside = 1 << 16
)

// newView prepares a generation. Since most never see a connection, that is for who
// asks first.
func newView(g Generation, o *Options) *view {
	v := &view{
		Generation: g, options: o, judge: g.Input.Judge, peers: map[netip.Addr]*peer{}, outside: map[netip.Addr]*peer{},
		service: map[netip.Addr]string{}, groups: map[groupKey]*policies.FlowPeer{},
		stories: map[question]*story{}, rolled: map[string]*story{},
	}
	m := v.judge.Model()
	for i := range m.Nodes {
		n := &m.Nodes[i]
		for _, a := range n.Addresses {
			p := policies.FlowPeer{Address: a, Host: true, OwnNode: n.Name == o.Node, Pod: n.Name}
			group := p
			group.Address = netip.Addr{}
			v.peers[a] = &peer{FlowPeer: p, end: v.judge.At(v.judge.Node(i), a), group: &group}
		}
	}
	for i := range m.Pods {
		v.addPod(i, &m.Pods[i])
	}
	for _, i := range g.Input.Pods {
		for _, a := range m.Pods[i].Addresses {
			if p := v.peers[a]; p != nil && p.pod {
				p.local = true
			}
		}
	}
	for i := range m.Services {
		s := &m.Services[i]
		for _, a := range s.ClusterIP {
			v.service[a] = s.Ref.Name + "." + s.Ref.Namespace + ".svc"
		}
	}
	return v
}

func (v *view) addPod(i int, p *policies.Pod) {
	if p.HostNetwork {
		return
	}
	k := groupKey{p.Workload, p.Ref.Name}
	group := policies.FlowPeer{Namespace: p.Ref.Namespace, Labels: p.Labels}
	if p.Workload != p.Ref {
		k.prefix = p.Ref.Name[:strings.LastIndexByte(p.Ref.Name, '-')+1]
		group.PodPrefix, group.Workloads = k.prefix, []policies.Ref{p.Workload}
	} else {
		group.Pod = p.Ref.Name
	}
	if g := v.groups[k]; g != nil {
		if !maps.Equal(g.Labels, p.Labels) {
			g.Labels, g.LabelsPartial = common(g.Labels, p.Labels), true
		}
	} else {
		v.groups[k] = &group
	}
	for _, a := range p.Addresses {
		single := policies.FlowPeer{Namespace: p.Ref.Namespace, Pod: p.Ref.Name, Labels: p.Labels, Address: a, Workloads: group.Workloads}
		v.peers[a] = &peer{FlowPeer: single, end: v.judge.At(v.judge.Pod(i), a), pod: true, group: v.groups[k]}
	}
}

// common returns the labels that two have in common.
func common(x, y map[string]string) map[string]string {
	both := map[string]string{}
	for k, value := range x {
		if other, ok := y[k]; ok && other == value {
			both[k] = value
		}
	}
	return both
}

// who returns who has an address.
func (v *view) who(a netip.Addr) *peer {
	p := cmp.Or(v.peers[a], v.outside[a])
	if p == nil {
		if len(v.outside) >= mostOutside {
			clear(v.outside)
		}
		network := policies.PublicNetwork
		if a.IsPrivate() || a.IsLinkLocalUnicast() {
			network = policies.PrivateNetwork
		}
		p = &peer{FlowPeer: policies.FlowPeer{Address: a}, end: v.judge.Outside(a), group: &policies.FlowPeer{Network: network}}
		v.outside[a] = p
	}
	return p
}

// tell returns what is said of a connection.
func (v *view) tell(q question) *story {
	s := v.stories[q]
	if s == nil {
		if len(v.stories) >= mostStories {
			clear(v.stories)
		}
		s = v.make(q)
		v.stories[q] = s
	}
	return s
}

func (v *view) make(q question) *story {
	from, to := v.who(q.from), v.who(q.to)
	s := &story{ours: from.local || to.local, flow: policies.Flow{
		From: from.FlowPeer, To: to.FlowPeer, Protocol: q.protocol, Port: q.port, Verdict: policies.Allow,
		Origin: policies.Origin{Reporter: policies.SourceSide, Window: v.options.Window, Node: v.options.Node, Generation: v.Number},
	}}
	if q.asked != q.to {
		if name := v.service[q.asked]; name != "" {
			s.flow.To.Names = append(slices.Clone(s.flow.To.Names), name)
		}
	}
	switch {
	case q.denied:
		s.flow.Verdict = policies.Deny
		if q.direction == policies.Ingress {
			s.flow.Origin.Reporter = policies.DestinationSide
		}
	case to.local:
		s.flow.Origin.Reporter = policies.DestinationSide
	default:
		s.flow.EgressOnly = to.pod
	}
	if s.ours {
		s.certain = true
		v.explain(s, q, from, to)
	}
	s.told = v.roll(s, from, to)
	return s
}

// explain says which rules decided, in the directions that the node enforces.
func (v *view) explain(s *story, q question, from, to *peer) {
	d := v.judge.DecideBriefly(from.end, to.end, q.protocol, q.port)
	for _, direction := range policies.Directions {
		side := &d.Sides[direction]
		enforced := from.local
		if direction == policies.Ingress {
			// What a node sends to its own pods no policy keeps from them.
			enforced = to.local && !from.OwnNode
		}
		denied := q.denied && q.direction == direction
		if !enforced || q.denied && direction > q.direction {
			continue
		}
		if allows := side.Verdict == policies.Allow || side.Verdict == policies.Undecided; allows == (denied || q.observed[direction]) {
			s.certain = false
			continue
		}
		if hit, ok := hitOf(side); ok {
			hit.Staged = q.observed[direction]
			s.flow.Hits = append(s.flow.Hits, hit)
		}
	}
}

// hitOf returns the rule that decided a side.
func hitOf(s *policies.Side) (policies.Hit, bool) {
	if s.Tier == "" {
		return policies.Hit{}, false
	}
	hit := policies.Hit{Tier: s.Tier, Action: policies.ActionDeny, Rule: policies.EndOfTier}
	if s.Verdict == policies.Allow {
		hit.Action = policies.ActionAllow
	}
	if s.Policy != nil {
		hit.Policy = *s.Policy
	}
	if s.Rule != nil {
		hit.Rule = *s.Rule
	}
	return hit, true
}

// roll returns what records say of a story at their level: the same of all that are
// told together.
func (v *view) roll(s *story, from, to *peer) *story {
	if v.options.Level < 2 || !s.ours {
		return s
	}
	rolled := &story{flow: s.flow, ours: s.ours, certain: s.certain}
	rolled.flow.From, rolled.flow.To = *from.group, *to.group
	rolled.flow.To.Names = s.flow.To.Names
	if v.options.Level >= 3 {
		rolled.flow.Port = 0
	}
	text, err := flowlog.Encode(rolled.flow)
	if err != nil {
		return s
	}
	if there := v.rolled[string(text)]; there != nil {
		return there
	}
	if len(v.rolled) >= mostStories {
		clear(v.rolled)
	}
	rolled.told = rolled
	v.rolled[string(text)] = rolled
	return rolled
}

// denials returns what is said of packets that a vector denied and nobody logged.
func (v *view) denials(d policies.Direction) *story {
	key := "denials of " + d.String()
	s := v.rolled[key]
	if s == nil {
		s = &story{ours: true, flow: policies.Flow{Verdict: policies.Deny, Origin: policies.Origin{
			Reporter: policies.SourceSide, Window: v.options.Window, Node: v.options.Node, Generation: v.Number,
		}}}
		if d == policies.Ingress {
			s.flow.Origin.Reporter = policies.DestinationSide
		}
		s.told = s
		v.rolled[key] = s
	}
	return s
}
