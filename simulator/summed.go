package simulator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Summed is flows that are kept by tuple, and added up in full.
type Summed interface {
	Recorded
	// Sums calls each as Tuples does, with its hours in order rather than its sides.
	Sums(ctx context.Context, each func(*Tuple, []Hour) error) error
}

// Hour is what one side reported of a tuple in one hour, with one verdict.
type Hour struct {
	Side
	Start                             time.Time
	Records                           uint64
	Packets, ReplyBytes, ReplyPackets uint64
}

// Sum calls each for what the flows come to that a filter chooses, and says of how
// many records that is: a tuple's hours, and single records of those tuples of
// which only these tell whether they are chosen, or who an end is. What it counts
// by connection, each counts as if it had been given every record. It returns how
// many records were looked at, and how many of them do not say enough to tell.
//
// What only records have, it does not tell: pods, addresses, policies, formats
// and windows. The filter's TellsTuples must hold.
func Sum(ctx context.Context, r Summed, f *Filter, each func(f *policies.Flow, records uint64) error) (looked, notSaying uint64, err error) {
	var byRecord []uint64
	take := func(flow *policies.Flow, records uint64) error {
		looked += records
		switch f.Match(flow) {
		case Yes:
			return each(flow, records)
		case NotSay:
			notSaying += records
		}
		return nil
	}
	err = r.Sums(ctx, func(t *Tuple, hours []Hour) error {
		switch chosen := f.among(&t.Flow); {
		case chosen.most == No:
			return nil
		case chosen.least != chosen.most, isNamelessByAddress(&t.Flow.From), isNamelessByAddress(&t.Flow.To):
			byRecord = append(byRecord, t.ID)
			return nil
		}
		flow := t.Flow
		for i := range hours {
			h := &hours[i]
			h.describe(&flow)
			flow.Packets, flow.ReplyBytes, flow.ReplyPackets = h.Packets, h.ReplyBytes, h.ReplyPackets
			if err := take(&flow, h.Records); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return looked, notSaying, fmt.Errorf("read tuples: %w", err)
	}
	if len(byRecord) == 0 {
		return looked, notSaying, nil
	}
	slices.Sort(byRecord)
	days, err := r.Days(ctx)
	if err != nil {
		return looked, notSaying, err
	}
	for _, day := range days {
		if err := r.Flows(ctx, day, byRecord, func(_ uint64, flow *policies.Flow) error { return take(flow, 1) }); err != nil {
			return looked, notSaying, err
		}
	}
	return looked, notSaying, nil
}

// isNamelessByAddress reports whether an end goes by its address, and that is of
// its records.
func isNamelessByAddress(p *policies.FlowPeer) bool {
	return !p.Address.IsValid() && nameless(p) == NotRecorded && !isNamed(p)
}

// TellsTuples reports whether the filter asks for nothing that flows of one tuple
// differ in but for their ends, the side and the verdict.
func (f *Filter) TellsTuples() bool { return len(f.Policies) == 0 && len(f.Formats) == 0 }

// answers are the least and the most that records of a tuple may get.
type answers struct{ least, most Answer }

func anyAmong[T any](patterns []T, among func(*T) answers) answers {
	if len(patterns) == 0 {
		return answers{Yes, Yes}
	}
	var best answers
	for i := range patterns {
		a := among(&patterns[i])
		best = answers{max(best.least, a.least), max(best.most, a.most)}
	}
	return best
}

// MayChoose reports whether records of a tuple, of which the ends, the protocol
// and the port are given, may be chosen, or not say enough to tell.
func (f *Filter) MayChoose(tuple *policies.Flow) bool { return f.among(tuple).most != No }

// among is Match for what the records of a tuple have in common: not their times,
// sides, verdicts, policies and formats.
func (f *Filter) among(tuple *policies.Flow) answers {
	all := answers{Yes, Yes}
	if !f.Ports.IsEmpty() {
		a := f.matchPort(tuple.Protocol, tuple.Port)
		all = answers{a, a}
	}
	for _, a := range [...]answers{
		anyAmong(f.From, func(e *End) answers { return e.among(&tuple.From) }),
		anyAmong(f.To, func(e *End) answers { return e.among(&tuple.To) }),
		anyAmong(f.Either, func(e *End) answers {
			from, to := e.among(&tuple.From), e.among(&tuple.To)
			return answers{max(from.least, to.least), max(from.most, to.most)}
		}),
	} {
		all = answers{min(all.least, a.least), min(all.most, a.most)}
	}
	return all
}

func (e *End) among(p *policies.FlowPeer) answers {
	if e.dependsOnRecord(p) {
		return answers{No, Yes}
	}
	a := e.match(p)
	return answers{a, a}
}

// dependsOnRecord reports whether records of an end's identity may get different
// answers: for their addresses or for the names of their pods.
func (e *End) dependsOnRecord(p *policies.FlowPeer) bool {
	hidden := p.Pod == "" && (p.PodPrefix != "" || len(p.Workloads) > 0)
	switch {
	case e.addresses.IsValid():
		return !p.Address.IsValid()
	case !hidden:
		return false
	case e.outside:
		return p.Namespace == "" && !isOutside(p)
	case p.Host, p.OwnNode, isOutside(p), e.namespace != "" && p.Namespace != "" && e.namespace != p.Namespace:
		return false
	case e.pod != "":
		return p.PodPrefix == "" || strings.HasPrefix(e.pod, p.PodPrefix)
	}
	return e.name != "" && e.kind == "" && mayBePodOf(e.name, p)
}

// mayBePodOf reports whether an end's pod may have a name. Pods of the workloads
// that Kubernetes knows get a suffix, and begin with the name of their workload or
// with as much of it as there is room for.
func mayBePodOf(pod string, p *policies.FlowPeer) bool {
	const room = 40 // is less than there is in any kind
	if p.PodPrefix != "" {
		return strings.HasPrefix(pod, p.PodPrefix)
	}
	owner := p.Workloads[0]
	kind, _ := ownerOfPod(pod)
	return kind != "" || !slices.Contains([]string{"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"}, owner.Kind) ||
		pod != owner.Name && strings.HasPrefix(pod, owner.Name[:min(len(owner.Name), room)])
}
