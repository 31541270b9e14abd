package simulator

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Alike is what records come to that get the same answer.
type Alike struct {
	Flow         policies.Flow // the earliest of the records
	Flows, Bytes uint64
	First, Last  time.Time
}

// Class is numbers for ends of records: two that have the same ID get the same
// answers at the same other end, but for records that a member of a class has from
// itself, and for those that any has from or to a node. Where Since is set,
// records from before it are of the class Before.
type Class struct {
	ID, Before int
	Member     int // of the class, as told apart from others; a class without others too
	Since      time.Time
	IsNode     bool // members that talk to it are told apart
	IsLoose    bool // Together says whether its records may be taken together
}

// classKey is what an end's part in an answer depends on.
type classKey struct {
	place, group   int32
	pods           class // where place is anyPod
	outside, twins bool
	cause, example string
}

// anyPod stands for the places of all pods that no rule tells apart.
const anyPod = -1

// Class returns the class of an end.
func (r *Replayer) Class(p *policies.FlowPeer) Class {
	e := r.find(p)
	key := classKey{place: e.place, group: e.group, outside: e.outside, twins: !isOutside(p) && !p.OwnNode, cause: e.before.cause, example: e.before.example}
	c := Class{Member: r.class(key), Since: e.since, IsLoose: e.outside || e.before.cause != "" || !e.since.IsZero()}
	c.ID = c.Member
	if pods, ok := r.podsAt(e); ok {
		key.place, key.pods = anyPod, pods
		c.ID = r.class(key)
	}
	if !e.outside {
		c.IsNode = r.before.hasNode(&e.before) || r.after != nil && r.after.hasNode(&e.after)
	}
	if !e.since.IsZero() {
		c.Before = r.class(classKey{cause: younger.cause})
	}
	return c
}

// podsAt returns what rules tell the one pod by that an end is. It is not one of
// them where it has several addresses, or its node's.
func (r *Replayer) podsAt(e *recorded) (pods class, ok bool) {
	pods = class{podAt(r.before, &e.before), -1}
	if r.after == nil {
		return pods, pods.before >= 0
	}
	pods.after = podAt(r.after, &e.after)
	return pods, min(pods.before, pods.after) >= 0
}

// hasNode reports whether a node may be at a place, or a pod on its network.
func (d *directory) hasNode(p *place) bool {
	return slices.ContainsFunc(p.ends, func(e reach.End) bool {
		i := d.judge.PodOf(e)
		return i < 0 || d.world.Pods[i].HostNetwork
	})
}

func podAt(d *directory, p *place) int {
	if p.cause != "" || len(p.ends) != 1 {
		return -1
	}
	i := d.judge.PodOf(p.ends[0])
	if i < 0 || len(d.world.Pods[i].Addresses) > 1 || d.world.Pods[i].HostNetwork {
		return -1
	}
	return d.judge.Class(i)
}

func (r *Replayer) class(key classKey) int {
	id, known := r.classes[key]
	if !known {
		id = len(r.classes)
		r.classes[key] = id
	}
	return id
}

// Together reports whether records that are like f may be taken together: their
// ends are of the same classes, and the same members of them where that matters,
// are both the same pod or not, and the protocol, the port, the verdict, the
// reporter and the hour are the same. Otherwise their ends are to be the same.
func (r *Replayer) Together(f *policies.Flow) bool {
	from, to := r.find(&f.From), r.find(&f.To)
	if missing(f, from, to) != nil {
		// Both sides' reports of ends that are nowhere find each other by name.
		return !isConnection(f) || sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter) == neither
	}
	return !r.countedBy(r.ask(f, from, to), f, from, to).isApart()
}

// AddAlike takes records as Add would one by one.
func (r *Replayer) AddAlike(s *Alike) {
	f := s.Flow
	f.Count, f.Bytes, f.First, f.Last = s.Flows, s.Bytes, s.First, s.Last
	r.take(&f, &s.Flow)
}

// Replayers take the same flows. Their worlds before the change are one.
type Replayers struct {
	all     []*Replayer
	classes map[string]int // by those of all
}

// Together returns replayers that take the same flows.
func Together(all ...*Replayer) *Replayers {
	return &Replayers{all, map[string]int{}}
}

// Add takes one flow.
func (r *Replayers) Add(f policies.Flow) {
	for _, one := range r.all {
		one.Add(f)
	}
}

// AddAlike takes records as Add would one by one.
func (r *Replayers) AddAlike(s *Alike) {
	for _, one := range r.all {
		one.AddAlike(s)
	}
}

// Together reports whether records that are like f may be taken together in every
// world.
func (r *Replayers) Together(f *policies.Flow) bool {
	for _, one := range r.all {
		if !one.Together(f) {
			return false
		}
	}
	return true
}

// Class returns the class of an end in all worlds.
func (r *Replayers) Class(p *policies.FlowPeer) Class {
	if len(r.all) == 1 {
		return r.all[0].Class(p)
	}
	var all Class
	var id, before, member []byte
	for _, one := range r.all {
		c := one.Class(p)
		id, before, member = binary.AppendUvarint(id, uint64(c.ID)), binary.AppendUvarint(before, uint64(c.Before)), binary.AppendUvarint(member, uint64(c.Member))
		all.Since, all.IsNode, all.IsLoose = c.Since, all.IsNode || c.IsNode, all.IsLoose || c.IsLoose
	}
	all.ID, all.Before, all.Member = r.class(id), r.class(before), r.class(member)
	return all
}

func (r *Replayers) class(classes []byte) int {
	id, known := r.classes[string(classes)]
	if !known {
		id = len(r.classes)
		r.classes[string(classes)] = id
	}
	return id
}
