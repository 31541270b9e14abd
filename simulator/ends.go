package simulator

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

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
	peer policies.FlowPeer // of the addresses outside that are alike, one
	*whereabouts
	outside bool      // it is one address outside; each record says which
	since   time.Time // of place, by which ends do not differ
	kept    int32     // the last generation of which an example has it
	next    *recorded // of the same peerKey
}

// whereabouts are shared by the ends that are in the same places.
type whereabouts struct {
	before, after place
	place         int32 // 0 for those that are nowhere
	group         int32 // equal for those of one workload, and for ends in the same places
}

// ends are those that were recorded. Most are alike in most that they say.
type ends struct {
	peers  map[peerKey]*recorded
	places map[[sha256.Size]byte]*whereabouts // by what they say
	groups map[string]int32                   // by the workloads' names
	shared map[string]*policies.FlowPeer      // by their labels and workloads
}

func newEnds() ends {
	return ends{
		peers: map[peerKey]*recorded{}, places: map[[sha256.Size]byte]*whereabouts{}, groups: map[string]int32{}, shared: map[string]*policies.FlowPeer{},
	}
}

// mostEnds is how many recorded ends are remembered: others are found again.
const mostEnds = 1 << 16

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
	first := r.ends.peers[key]
	for known := first; known != nil; known = known.next {
		if known.outside == isOutside && known.says(p) {
			return known
		}
	}
	if len(r.ends.peers) >= mostEnds {
		clear(r.ends.peers)
		clear(r.ends.shared)
		first = nil
	}
	e := &recorded{peer: r.ends.keep(*p), outside: isOutside, next: first}
	var at whereabouts
	switch {
	case isOutside:
		at.before = place{ends: []reach.End{r.before.judge.Outside(key.address)}}
		if r.after != nil {
			at.after = place{ends: []reach.End{r.after.judge.Outside(key.after)}}
		}
	default:
		at.before = r.before.find(p)
		e.since, at.before.since = at.before.since, time.Time{}
		if r.after != nil {
			at.after = r.after.follow(r.before, at.before, p)
		}
	}
	e.whereabouts = &at
	if at.before.cause == "" {
		e.whereabouts = r.whereaboutsOf(at, e)
	}
	r.ends.peers[key] = e
	return e
}

// whereaboutsOf returns the whereabouts of all ends that are in the same places as one.
func (r *Replayer) whereaboutsOf(at whereabouts, e *recorded) *whereabouts {
	text := at.text(e.outside)
	if e.outside {
		text += fmt.Sprint(e.peer.Set, e.peer.Network) // which rows name
	}
	key := sha256.Sum256([]byte(text))
	if known := r.ends.places[key]; known != nil {
		return known
	}
	at.place = int32(len(r.ends.places)) + 1
	if !e.outside && at.before.among.choice == "" {
		peer := r.before.judge.Peer(at.before.ends[0])
		text = "/" + peer.Kind + "/" + peer.Namespace + "/" + peer.Name
	}
	group, known := r.ends.groups[text]
	if !known {
		group = int32(len(r.ends.groups))
		r.ends.groups[text] = group
	}
	at.group = group
	r.ends.places[key] = &at
	return &at
}

// text returns what tells places from all others.
func (w *whereabouts) text(outside bool) string {
	key := []byte{0}
	if outside {
		key[0] = 1
	}
	for _, p := range [2]*place{&w.before, &w.after} {
		if p.cause != "" || p.among.choice != "" {
			return fmt.Sprint(outside, w.before, w.after)
		}
		key = binary.AppendUvarint(key, uint64(len(p.ends)))
		for _, end := range p.ends {
			key = end.AppendKey(key)
		}
	}
	return string(key)
}

// says reports whether an end was recorded as p, but for its address and names.
func (e *recorded) says(p *policies.FlowPeer) bool {
	return e.peer.Pod == p.Pod && e.peer.PodPrefix == p.PodPrefix && e.peer.Set == p.Set && e.peer.Network == p.Network &&
		e.peer.LabelsPartial == p.LabelsPartial && (e.peer.Labels == nil) == (p.Labels == nil) &&
		maps.Equal(e.peer.Labels, p.Labels) && slices.Equal(e.peer.Workloads, p.Workloads)
}

// keep returns an end that does not change with p, without its names. Ends of the
// same labels and workloads share them.
func (e *ends) keep(p policies.FlowPeer) policies.FlowPeer {
	if p.Labels == nil && p.Workloads == nil {
		p.Names = nil
		return p
	}
	key := fmt.Sprintf("%#v %#v", p.Labels, p.Workloads)
	known := e.shared[key]
	if known == nil {
		known = &policies.FlowPeer{Labels: maps.Clone(p.Labels), Workloads: slices.Clone(p.Workloads)}
		e.shared[key] = known
	}
	p.Labels, p.Workloads, p.Names = known.Labels, known.Workloads, nil
	return p
}
