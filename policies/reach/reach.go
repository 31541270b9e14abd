// Package reach answers who can talk to whom.
//
// It is pure: the same model and the same question give the same answer, on any
// machine and at any time. It is the only place that decides; everything else
// asks it.
//
// A judge sorts the pods of a world into classes that no policy can tell apart,
// and works out one row a class and direction: which ports are allowed to which
// columns, a column being a class or a range of addresses. A connection is
// allowed when the row of its source allows it at egress and the row of its
// destination at ingress. Policies are evaluated tier by tier, as the model says;
// docs/semantics.md tells what the kinds of policy mean.
package reach

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Options are choices on which engines differ.
type Options struct {
	// IgnorePodBlocks lets address blocks match no pod and no node, as Cilium
	// does. The other engines, and the upstream conformance tests, match them.
	// Blocks that are InCluster match them in any case.
	IgnorePodBlocks bool
	// Apart are peers that the judge tells from all others though no policy names
	// them, so that GroupOf can say whom they describe. They change no answer.
	Apart []policies.Match
	// ApartNames are names of ports, beside those that policies name, by which it
	// tells pods apart. They change no answer either.
	ApartNames []string
	// Lasting makes a judge that With can make others of: it remembers more, and
	// tells apart all pods that policies are likely to tell apart one day.
	Lasting bool
}

// Judge answers questions about one model. It is immutable and safe for
// concurrent use; the model must not change while it is asked.
type Judge struct {
	*frame
	ports     *portTable
	world     *policies.World
	book      *book
	placement placement
	governing [2]pages[[]governing] // by class, in the order of evaluation
	hosts     *hosts
	rows      [2]pages[*row] // by class
	local     pages[*row]    // by class: ingress from a pod's own node
	tongues   tongues
	ipv6      bool // it plays a part in the model
	labelled  []labelled
	inherited func(*policies.Pod, string) (value string, has, known bool)
	grouping  *grouping
	maker     *evaluation // of a judge that lasts: what made the rows
	draft     *draft      // of one that With made: what of them is to be made
}

// New returns the judge of a model.
func New(m *policies.Model, o Options) *Judge {
	f, places := newFrame(o, m)
	return newBuilder(f).judge(m, places[0])
}

// Pair returns the judges of two models that share their classes, so that
// package diff can compare them fast.
func Pair(base, head *policies.Model, o Options) (b, h *Judge) {
	f, places := newFrame(o, base, head)
	builder := newBuilder(f)
	return builder.judge(base, places[0]), builder.judge(head, places[1])
}

// Model returns the model that is judged.
func (j *Judge) Model() *policies.Model { return j.book.model() }

// World returns the model's world. Of a judge that With made it costs nothing, unlike
// the model.
func (j *Judge) World() *policies.World { return j.world }

// Options returns those that the judge was made with.
func (j *Judge) Options() Options { return j.options }

// End is one end of a connection: a pod or a node of the model, perhaps at one of
// its addresses, or an address outside. Ends are comparable, and mean something
// only to judges of the model they were made for. The zero End is no end.
type End struct {
	kind  endKind
	index int32
	addr  netip.Addr
}

// families returns those of the addresses that an end may be at.
func (e End) families() family {
	if e.addr.IsValid() {
		return familyOf(e.addr)
	}
	return ipv4 | ipv6
}

type endKind uint8

const (
	noEnd endKind = iota
	podEnd
	nodeEnd
	outsideEnd
)

// Pod returns the end that is the i-th pod of the model.
func (j *Judge) Pod(i int) End { return End{kind: podEnd, index: int32(i)} }

// Node returns the end that is the i-th node of the model.
func (j *Judge) Node(i int) End { return End{kind: nodeEnd, index: int32(i)} }

// OwnNode returns the end that is the node which the pod at the other end runs
// on, whichever that is, as recorders name the source of a kubelet's probes.
func (j *Judge) OwnNode() End { return End{kind: nodeEnd, index: -1} }

// Outside returns the end that is an address outside, whoever may have it.
func (j *Judge) Outside(a netip.Addr) End { return End{kind: outsideEnd, addr: a.Unmap().WithZone("")} }

// At returns a pod or node at one of its addresses, by which it is judged then. It
// returns the end as it is where that has no other address, or lacks this one.
func (j *Judge) At(e End, a netip.Addr) End {
	if all := j.addressesOf(e); len(all) > 1 && slices.Contains(all, a) {
		e.addr = a
	}
	return e
}

// mayBeAt returns the addresses that an end may be at, as far as they are known.
func (j *Judge) mayBeAt(e End) []netip.Addr {
	if e.addr.IsValid() {
		return []netip.Addr{e.addr}
	}
	return j.addressesOf(e)
}

// addressesOf returns the addresses of a pod or node, none where they are not known.
func (j *Judge) addressesOf(e End) []netip.Addr {
	switch {
	case e.kind == podEnd:
		return j.world.Pods[e.index].Addresses
	case e.kind == nodeEnd && e.index >= 0:
		return j.world.Nodes[e.index].Addresses
	}
	return nil
}

// Class returns a number for the i-th pod of the model. Two with the same get the
// same answers, but for what a pod sends to itself, what it has from the node that it
// runs on, and what goes to one of several addresses that it has.
func (j *Judge) Class(i int) int { return int(j.placement.pods[i]) }

// AppendKey appends what tells an end from all others of its judge.
func (e End) AppendKey(key []byte) []byte {
	key = binary.AppendVarint(append(key, byte(e.kind)), int64(e.index))
	addr := e.addr.AsSlice()
	return append(append(key, byte(len(addr))), addr...)
}

// PodOf returns which pod of the model an end is; -1 where it is none.
func (j *Judge) PodOf(e End) int {
	if e.kind != podEnd {
		return -1
	}
	return int(e.index)
}

// Alike returns the address that stands for all those that no rule tells from a:
// two addresses outside with the same one get the same answers.
func (j *Judge) Alike(a netip.Addr) netip.Addr {
	return j.atoms[j.atomOf(a.Unmap().WithZone(""))].first
}

// SpeaksIPv6 reports whether IPv6 plays a part in the model. Where it plays none,
// addresses of it are denied for want of anybody who has one.
func (j *Judge) SpeaksIPv6() bool { return j.ipv6 }

// Peer names an end as answers do.
func (j *Judge) Peer(e End) policies.Peer {
	switch e.kind {
	case podEnd:
		p := &j.world.Pods[e.index]
		peer := policies.Peer{Namespace: p.Workload.Namespace, Name: p.Workload.Name, Kind: p.Workload.Kind}
		if p.Ref != p.Workload {
			peer.Pod = p.Ref.Name
		}
		return peer
	case nodeEnd:
		if e == j.OwnNode() {
			return policies.Peer{Kind: "Node"}
		}
		return policies.Peer{Kind: "Node", Name: j.world.Nodes[e.index].Name}
	}
	return policies.Outside(netset.Block{CIDR: netip.PrefixFrom(e.addr, e.addr.BitLen())})
}

// Verdict decides one connection. For a pod that stands for several replicas,
// the two ends are two different ones. Where an end has several addresses of one
// family, and it depends on which of them is used, the verdict is Unknown; see At.
// It is what Decide explains.
func (j *Judge) Verdict(from, to End, p netset.Protocol, port uint16) policies.Verdict {
	if j.self(from, to) {
		return policies.Allow
	}
	j = j.whole()
	var byFamily [ipv4 | ipv6 + 1]policies.Verdict
	var a, b [2]int32
	for _, source := range j.columnsOf(from, &a) {
		for _, target := range j.columnsOf(to, &b) {
			way, shared := j.wayOf(from, to, source, target)
			if way == noWay {
				continue
			}
			v := both(j.side(policies.Egress, from, to, source, target, p, port), j.side(policies.Ingress, to, from, target, source, p, port))
			byFamily[shared] = agree(byFamily[shared], way.worth(v))
		}
	}
	var best policies.Verdict
	for _, v := range byFamily {
		best = either(best, v)
	}
	if best == policies.Undecided {
		return policies.Deny // no address family in common
	}
	return best
}

// self reports whether both ends are one pod, which no policy keeps from
// itself.
func (j *Judge) self(from, to End) bool {
	if from.kind != to.kind || from.index != to.index {
		return false
	}
	return from.kind == nodeEnd || from.kind == podEnd && j.world.Pods[from.index].Replicas <= 1
}

// both is the verdict of a connection that needs both.
func both(a, b policies.Verdict) policies.Verdict {
	switch {
	case a == policies.Deny || b == policies.Deny:
		return policies.Deny
	case a == policies.Allow && b == policies.Allow:
		return policies.Allow
	}
	return policies.Unknown
}

// either is the verdict of a connection for which one of two ways will do.
func either(a, b policies.Verdict) policies.Verdict {
	switch {
	case a == policies.Allow || b == policies.Allow:
		return policies.Allow
	case a == policies.Unknown || b == policies.Unknown:
		return policies.Unknown
	}
	return max(a, b)
}

// agree is the verdict of a connection that goes one of two ways, it is not known
// which.
func agree(a, b policies.Verdict) policies.Verdict {
	if a == policies.Undecided || a == b {
		return b
	}
	return policies.Unknown
}

// wayOf returns the way between two ends by a column of each, and the families over
// which it leads.
func (j *Judge) wayOf(from, to End, source, target int32) (way, family) {
	over := from.families() & to.families()
	return j.between(source, target, over, j.ipv6), j.columns[source].families & j.columns[target].families & over
}

// worth is a verdict over a way that there may not be.
func (w way) worth(v policies.Verdict) policies.Verdict {
	if w == doubtful && v == policies.Allow {
		return policies.Unknown
	}
	return v
}

// classOf returns the class of an end, or -1 for the outside.
func (j *Judge) classOf(e End) int32 {
	switch e.kind {
	case podEnd:
		return j.placement.pods[e.index]
	case nodeEnd:
		if e == j.OwnNode() {
			return j.placement.anyNode
		}
		return j.placement.nodes[e.index]
	}
	return -1
}

// columnsOf returns the columns of the addresses that an end may be at.
func (j *Judge) columnsOf(e End, buf *[2]int32) []int32 {
	class := j.classOf(e)
	switch {
	case class < 0:
		buf[0] = j.outside + j.atomOf(e.addr)
		return buf[:1]
	case e.addr.IsValid() && j.classes[class].role == faced:
		atom := j.atomOf(e.addr)
		at := slices.IndexFunc(j.classes[class].columns, func(c int32) bool { return j.columns[c].atom == atom })
		return j.classes[class].columns[at : at+1]
	}
	return j.classes[class].columns
}

// side decides one direction for the end it looks at, which is at its own column.
func (j *Judge) side(d policies.Direction, subject, other End, own, column int32, p netset.Protocol, port uint16) policies.Verdict {
	class := j.columns[own].subject
	if class < 0 {
		return policies.Allow
	}
	v := j.at(j.rows[d].at(class), column, p, port)
	if d == policies.Egress || j.local.at(class) == j.rows[d].at(class) {
		return v
	}
	switch onNode := j.onNodeOf(other, subject); {
	case onNode == policies.No:
		return v
	case onNode == policies.Yes:
		return j.at(j.local.at(class), column, p, port)
	case v == j.at(j.local.at(class), column, p, port):
		return v
	}
	return policies.Unknown
}

func (j *Judge) at(r *row, column int32, p netset.Protocol, port uint16) policies.Verdict {
	if r.onPort != nil {
		at := uint32(p)<<16 | uint32(port)
		i := sort.Search(len(r.onPort), func(i int) bool { return r.onPort[i].first > at }) - 1
		switch {
		case r.onPort[i].allow.has(column):
			return policies.Allow
		case r.onPort[i].unknown.has(column):
			return policies.Unknown
		}
		return policies.Deny
	}
	for _, l := range r.allow {
		if j.ports.sets[l.ports].Contains(p, port) && l.columns.has(column) {
			return policies.Allow
		}
	}
	for _, l := range r.unknown {
		if j.ports.sets[l.ports].Contains(p, port) && l.columns.has(column) {
			return policies.Unknown
		}
	}
	return policies.Deny
}

// onNodeOf reports whether an end is the node that a pod runs on, or shares
// that node's network: such traffic is let in by the tiers that spare it.
func (j *Judge) onNodeOf(e, pod End) policies.Truth {
	if pod.kind != podEnd || j.world.Pods[pod.index].HostNetwork {
		return policies.No
	}
	var node string
	switch {
	case e == j.OwnNode():
		return policies.Yes
	case e.kind == nodeEnd:
		node = j.world.Nodes[e.index].Name
	case e.kind == podEnd && j.world.Pods[e.index].HostNetwork:
		node = j.world.Pods[e.index].Node
	default:
		return policies.No
	}
	return sameNode(node, j.world.Pods[pod.index].Node)
}

// sameNode compares two nodes by name; an empty name is a node not known.
func sameNode(a, b string) policies.Truth {
	switch {
	case a == "" || b == "":
		return policies.Maybe
	case a == b:
		return policies.Yes
	}
	return policies.No
}
