package flowrow

import (
	"net/netip"
	"reflect"

	"github.com/weir-policy/weir/policies"
)

// Ends makes ends of peers, and knows those again that it has seen lately: by
// their maps and slices themselves, which flows share, not by what is in them.
// The zero Ends is ready.
type Ends struct{ byPeer map[peerKey]*KnownEnd }

// KnownEnd is an end with the hash of its identity.
type KnownEnd struct {
	End
	Hash uint64
	peer policies.FlowPeer // keeps the maps, so that no other gets their place
}

type peerKey struct {
	namespace, pod, podPrefix     string
	labels, workloads, names      uintptr
	nLabels, nWorkloads, nNames   int
	partial, outside, host, owner bool
	network                       policies.Network
	address                       netip.Addr
	set                           policies.Ref
}

// maxPeers bounds how many peers are known by their maps: those stay in memory.
const maxPeers = 1 << 16

// Of returns the end of a peer, whose maps and slices must not change
// afterwards.
func (e *Ends) Of(p *policies.FlowPeer) *KnownEnd {
	key := peerKey{
		namespace: p.Namespace, pod: p.Pod, podPrefix: p.PodPrefix,
		labels: reflect.ValueOf(p.Labels).Pointer(), nLabels: len(p.Labels),
		workloads: reflect.ValueOf(p.Workloads).Pointer(), nWorkloads: len(p.Workloads),
		names: reflect.ValueOf(p.Names).Pointer(), nNames: len(p.Names),
		partial: p.LabelsPartial, outside: p.Outside, host: p.Host, owner: p.OwnNode,
		network: p.Network, address: p.Address, set: p.Set,
	}
	if known, ok := e.byPeer[key]; ok {
		return known
	}
	if e.byPeer == nil || len(e.byPeer) >= maxPeers {
		e.byPeer = map[peerKey]*KnownEnd{}
	}
	known := &KnownEnd{End: EndOf(p), peer: *p}
	known.Hash = known.End.Hash()
	e.byPeer[key] = known
	return known
}
