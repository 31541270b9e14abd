//go:build linux

package record

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator/flowline"
)

// view is a generation, ready to be asked who has an address and what decided. It
// remembers what it was asked.
type view struct {
	Generation
	options *Options
	judge   *reach.Judge
	model   *policies.World
	pods    map[netip.Addr]int32
	local   map[int32]bool // those of this node
	// standing are the pods that stand for others, by their kinds.
	standing map[int32]int32
	owned    map[policies.Ref][]*policies.Pod // pods by their workload, once somebody asks
	peers    map[netip.Addr]*peer             // those that were asked for
	stories  map[question]*story
	rolled   map[string]*story // by what they say
}

// peer is one who may be at an end of a connection.
type peer struct {
	policies.FlowPeer
	end   reach.End
	local bool // a pod of this node
	pod   bool
	group *policies.FlowPeer // what is said of it at level 2
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
	mostPeers   = 1 << 17
)

// newView prepares a generation: as little as may be, since others may follow soon.
func newView(g Generation, o *Options) *view {
	m := g.Input.Judge.World()
	v := &view{
		Generation: g, options: o, judge: g.Input.Judge, model: m, pods: make(map[netip.Addr]int32, len(m.Pods)),
		local: make(map[int32]bool, len(g.Input.Pods)), peers: map[netip.Addr]*peer{}, stories: map[question]*story{}, rolled: map[string]*story{},
	}
	v.standing = map[int32]int32{}
	for i := range m.Pods {
		if p := &m.Pods[i]; p.Kind != 0 {
			v.standing[p.Kind] = int32(i)
		} else if !p.HostNetwork {
			for _, a := range p.Addresses {
				v.pods[a] = int32(i)
			}
		}
	}
	for _, i := range g.Input.Pods {
		v.local[int32(i)] = true
	}
	return v
}

// prefixOf returns what the names of a pod and others of its owner begin with; empty for
// one without an owner.
func prefixOf(p *policies.Pod) string {
	if p.Workload == p.Ref {
		return ""
	}
	return p.Ref.Name[:strings.LastIndexByte(p.Ref.Name, '-')+1]
}

func (v *view) podAt(a netip.Addr, i int32) *peer {
	return v.peerOf(&v.model.Pods[i], a, v.judge.At(v.judge.Pod(int(i)), a), v.local[i])
}

// memberAt returns the pod of the crowd that has an address, nil where none has.
func (v *view) memberAt(a netip.Addr) *peer {
	if v.Input.Crowd == nil {
		return nil
	}
	m, has := v.Input.Crowd.Members.Get(a)
	i, stands := v.standing[m.Kind]
	if !has || !stands {
		return nil
	}
	p := *m.Like
	if p.Ref.Name = m.Name; p.Workload == (policies.Ref{}) {
		p.Workload = p.Ref
	}
	end := v.judge.Pod(int(i))
	for _, at := range v.model.Pods[i].Addresses {
		if at.Is4() == a.Is4() {
			end = v.judge.At(end, at)
		}
	}
	return v.peerOf(&p, a, end, false)
}

func (v *view) peerOf(p *policies.Pod, a netip.Addr, end reach.End, local bool) *peer {
	single := policies.FlowPeer{Namespace: p.Ref.Namespace, Pod: p.Ref.Name, Labels: p.Labels, Address: a}
	group := policies.FlowPeer{Namespace: p.Ref.Namespace, Pod: p.Ref.Name, Labels: p.Labels}
	if p.Workload != p.Ref {
		single.Workloads = []policies.Ref{p.Workload}
		group.Pod, group.PodPrefix, group.Workloads = "", prefixOf(p), single.Workloads
		if v.options.Level >= 2 {
			v.share(&group, p)
		}
	}
	return &peer{FlowPeer: single, end: end, pod: true, local: local, group: &group}
}

// share leaves of a group's labels those that all of its pods have.
func (v *view) share(group *policies.FlowPeer, of *policies.Pod) {
	if v.owned == nil {
		v.owned = map[policies.Ref][]*policies.Pod{}
		own := func(p *policies.Pod) { v.owned[p.Workload] = append(v.owned[p.Workload], p) }
		for i := range v.model.Pods {
			if p := &v.model.Pods[i]; p.Kind == 0 {
				own(p)
			}
		}
		if v.Input.Crowd != nil {
			for _, m := range v.Input.Crowd.Members.All() {
				own(&policies.Pod{Ref: policies.Ref{Namespace: m.Like.Ref.Namespace, Name: m.Name}, Workload: m.Like.Workload, Labels: m.Like.Labels})
			}
		}
	}
	for _, p := range v.owned[of.Workload] {
		if prefixOf(p) == group.PodPrefix && !maps.Equal(p.Labels, group.Labels) {
			group.Labels, group.LabelsPartial = common(group.Labels, p.Labels), true
		}
	}
}

// nodeAt returns the node that has an address, nil where none has.
func (v *view) nodeAt(a netip.Addr) *peer {
	for i := range v.model.Nodes {
		if n := &v.model.Nodes[i]; slices.Contains(n.Addresses, a) {
			p := policies.FlowPeer{Address: a, Host: true, OwnNode: n.Name == v.options.Node, Pod: n.Name}
			group := p
			group.Address = netip.Addr{}
			return &peer{FlowPeer: p, end: v.judge.At(v.judge.Node(i), a), group: &group}
		}
	}
	return nil
}

// serviceAt returns the name of the Service that has an address, empty where none has.
func (v *view) serviceAt(a netip.Addr) string {
	for i := range v.model.Services {
		if s := &v.model.Services[i]; slices.Contains(s.ClusterIP, a) {
			return s.Ref.Name + "." + s.Ref.Namespace + ".svc"
		}
	}
	return ""
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
	p := v.peers[a]
	if p != nil {
		return p
	}
	if len(v.peers) >= mostPeers {
		clear(v.peers)
	}
	if i, is := v.pods[a]; is {
		p = v.podAt(a, i)
	} else if p = v.memberAt(a); p != nil {
		// It is one of many.
	} else if p = v.nodeAt(a); p == nil {
		network := policies.PublicNetwork
		if a.IsPrivate() || a.IsLinkLocalUnicast() {
			network = policies.PrivateNetwork
		}
		p = &peer{FlowPeer: policies.FlowPeer{Address: a}, end: v.judge.Outside(a), group: &policies.FlowPeer{Network: network}}
	}
	v.peers[a] = p
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
	if q.asked.IsValid() {
		if name := v.serviceAt(q.asked); name != "" {
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
	text, err := flowline.Encode(rolled.flow)
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
