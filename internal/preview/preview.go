// Package preview works out what a pull request changes: two models in, the
// report of their difference out, with recorded flows replayed under both.
package preview

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// Request is what a preview is made of.
type Request struct {
	BaseRevision, HeadRevision report.Revision
	Base, Head                 *policies.Model
	Options                    reach.Options
	// Flows hands over every recorded flow and says how the reading went; nil
	// when there are none.
	Flows func(ctx context.Context, to *simulator.Replayers) (flowlog.Stats, error)
	// Recorded is flows that are kept by tuple, in place of Flows.
	Recorded simulator.Recorded
	LeftOut  flowlog.Stats // of them
	// Scratch opens room for what does not fit in memory; nil where all is held.
	Scratch  func() (simulator.Scratch, error)
	FailOn   []Condition
	Declared Declared
	// Staged, if any, are the staged policies of Base that Head enforces. Each, if
	// not nil, are their indexes there, for a preview of each by itself, too.
	Staged []policies.Staged
	Each   []int
}

// Condition is something about a change that can make a preview fail.
type Condition string

// The conditions.
const (
	Breaks   Condition = "breaks"  // a recorded flow would be denied
	Opens    Condition = "opens"   // a recorded attempt that was denied would be allowed
	Adds     Condition = "adds"    // a connection becomes possible
	Removes  Condition = "removes" // a connection becomes impossible
	Unknowns Condition = "unknown" // an answer becomes unknown, or ceases to be
	Drifts   Condition = "drift"   // a recorded verdict is not the model's
	// Invariants is met where an invariant of severity deny breaks.
	Invariants Condition = "invariants"
)

// Conditions are all of them.
var Conditions = []Condition{Invariants, Breaks, Opens, Adds, Removes, Unknowns, Drifts}

// needsFlows reports whether the condition can only be met by recorded flows.
func (c Condition) needsFlows() bool { return c == Breaks || c == Opens || c == Drifts }

// ParseConditions reads conditions separated by commas, each one of known.
// "none" and the empty text are no condition.
func ParseConditions(text string, known ...Condition) ([]Condition, error) {
	var parsed []Condition
	var strange []string
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		c := Condition(word)
		switch {
		case c == "none":
		case slices.Contains(known, c):
			parsed = append(parsed, c)
		default:
			strange = append(strange, word)
		}
	}
	if len(strange) > 0 {
		var names []string
		for _, k := range known {
			names = append(names, string(k))
		}
		return nil, fmt.Errorf("%q is none of %s, none", strings.Join(strange, ","), strings.Join(names, ", "))
	}
	return parsed, nil
}

// Run makes the report. It fails only where the flows cannot be read, and when the
// context is done.
func Run(ctx context.Context, r Request) (*report.Preview, error) {
	r.Options = invariant.Apart(r.Options, r.Declared.all()...)
	whole, err := r.compare(ctx, r.Head)
	if err != nil {
		return nil, err
	}
	all := []comparison{whole}
	for _, i := range r.Each {
		alone, err := r.compare(ctx, r.Base.Enforce(i))
		if err != nil {
			return nil, err
		}
		all = append(all, alone)
	}
	if r.hasFlows() {
		if err := r.replay(ctx, all); err != nil {
			return nil, err
		}
	}
	met := map[string]bool{}
	for _, c := range all {
		c.preview.Failed = failed(r.FailOn, c.preview)
		for _, name := range c.preview.Failed {
			met[name] = true
		}
	}
	p := whole.preview
	p.Staged, p.Failed = r.Staged, nil
	for _, c := range r.FailOn {
		if met[string(c)] {
			p.Failed = append(p.Failed, string(c))
		}
	}
	if r.Each != nil {
		p.Each = []*report.Preview{}
		for _, c := range all[1:] {
			p.Each = append(p.Each, c.preview)
		}
	}
	p.Warnings = append(p.Warnings, unmeetable(r.FailOn, p.Replay)...)
	if len(r.Base.Pods)+len(r.Head.Pods) == 0 && len(r.Base.Policies)+len(r.Head.Policies) > 0 {
		p.Warnings = append(p.Warnings, policies.Warning{Message: "there are policies and no workload that they could be about, so nothing can change; say where the workloads are with --world"})
	}
	return p, nil
}

// comparison is a preview under way.
type comparison struct {
	preview *report.Preview
	replay  *simulator.Replayer // nil without recorded flows
}

// compare previews all of a head but recorded flows.
func (r *Request) compare(ctx context.Context, head *policies.Model) (comparison, error) {
	b, h := reach.Pair(r.Base, head, r.Options)
	change := diff.Compare(b, h)
	c := comparison{preview: &report.Preview{
		Base: r.BaseRevision, Head: r.HeadRevision,
		Change: change, Exposure: exposure(b, h), Warnings: change.Warnings,
	}}
	if r.hasFlows() {
		c.replay = simulator.New(b, h)
		c.replay.Spill(r.Scratch, 0)
	}
	var err error
	c.preview.Invariants, err = r.Declared.compare(ctx, b, h)
	return c, err
}

func (r *Request) hasFlows() bool { return r.Flows != nil || r.Recorded != nil }

// replay decides the flows in every comparison. Those in files are read once.
func (r *Request) replay(ctx context.Context, all []comparison) error {
	if r.Recorded != nil {
		for _, c := range all {
			if err := c.replay.Replay(ctx, r.Recorded); err != nil {
				return err
			}
			c.preview.Replay = c.replay.Result()
			c.preview.Reading = RecordedReading(c.preview.Replay, r.LeftOut)
		}
		return nil
	}
	var replayers []*simulator.Replayer
	for _, c := range all {
		replayers = append(replayers, c.replay)
	}
	stats, err := r.Flows(ctx, simulator.Together(replayers...))
	if err != nil {
		return err
	}
	for _, c := range all {
		c.preview.Replay, c.preview.Reading = c.replay.Result(), Reading(stats)
	}
	return unreadable(r.FailOn, stats)
}

// unreadable fails where flows decide whether the preview fails and no line of
// them could be read: a wrong file must not pass for a good change.
func unreadable(conditions []Condition, s flowlog.Stats) error {
	if s.Flows > 0 || s.Bad == 0 || !slices.ContainsFunc(conditions, Condition.needsFlows) {
		return nil
	}
	return fmt.Errorf("none of %d lines is a recorded flow, so nothing can be said of flows: %w", s.Records(), s.FirstBad[0])
}

// unmeetable warns of conditions that only recorded flows can meet where there
// were none, so that nobody takes silence for an answer.
func unmeetable(conditions []Condition, replay *simulator.Result) []policies.Warning {
	if replay != nil && replay.Flows > 0 {
		return nil
	}
	var warnings []policies.Warning
	for _, c := range conditions {
		if c.needsFlows() {
			warnings = append(warnings, policies.Warning{Message: fmt.Sprintf("--fail-on %s was asked for, but no recorded flow was read, so nothing could meet it", c)})
		}
	}
	return warnings
}

// failed returns the names of the conditions that a preview meets.
func failed(conditions []Condition, p *report.Preview) []string {
	met := Failed(conditions, p.Change, p.Replay)
	if slices.Contains(conditions, Invariants) && slices.ContainsFunc(p.Invariants, func(c invariant.Change) bool { return c.Fails() }) {
		met = append([]string{string(Invariants)}, met...)
	}
	return met
}

// Failed returns the names of the conditions that a change and a replay meet;
// either may be nil.
func Failed(conditions []Condition, change *diff.Change, replay *simulator.Result) []string {
	met := map[Condition]uint64{}
	if change != nil {
		n := change.Count()
		met[Adds], met[Removes], met[Unknowns] = uint64(n.Added), uint64(n.Removed), uint64(n.Unknown)
	}
	if replay != nil {
		met[Breaks] = replay.Outcomes[simulator.Breaks]
		met[Opens] = replay.Outcomes[simulator.Opens]
		met[Drifts] = replay.Outcomes[simulator.Drifts]
		met[Unknowns] += replay.Outcomes[simulator.Undecided]
	}
	var failed []string
	for _, c := range conditions {
		if met[c] > 0 {
			failed = append(failed, string(c))
		}
	}
	return failed
}

// Reading says how the reading of flows went, as reports show it.
func Reading(s flowlog.Stats) report.FlowReading {
	reading := report.FlowReading{Records: s.Flows, Bad: s.Bad, Lost: s.Lost, LeftOut: s.Causes()}
	for _, p := range s.FirstBad {
		reading.Problems = append(reading.Problems, p.Error())
	}
	return reading
}

// RecordedReading says how the reading of a store went, from which bad records were
// kept out: how many flows there are in it, and what was left out of them.
func RecordedReading(r *simulator.Result, left flowlog.Stats) report.FlowReading {
	reading := Reading(left)
	reading.Records = r.Flows
	return reading
}

// exposure finds the workloads that the outside can reach, and those that can
// reach the outside, before and after.
func exposure(base, head *reach.Judge) report.Exposure {
	world := &policies.Target{Addresses: netset.EveryAddress()}
	in := func(j *reach.Judge) map[policies.Ref]bool {
		facing := map[policies.Ref]bool{}
		for c := range j.Connections(reach.Listing{From: world}) {
			if !c.Allow.IsEmpty() {
				facing[refOf(c.To)] = true
			}
		}
		return facing
	}
	out := func(j *reach.Judge) map[policies.Ref]bool {
		facing := map[policies.Ref]bool{}
		for c := range j.Connections(reach.Listing{To: world}) {
			if !c.Allow.IsEmpty() {
				facing[refOf(c.From)] = true
			}
		}
		return facing
	}
	return report.Exposure{Reachable: span(in(base), in(head)), Reaching: span(out(base), out(head))}
}

func refOf(p *policies.Peer) policies.Ref {
	return policies.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
}

func span(before, after map[policies.Ref]bool) report.Span {
	only := func(in, notIn map[policies.Ref]bool) []policies.Peer {
		var peers []policies.Peer
		for _, r := range slices.SortedFunc(maps.Keys(in), policies.Ref.Compare) {
			if !notIn[r] {
				peers = append(peers, policies.Peer{Namespace: r.Namespace, Name: r.Name, Kind: r.Kind})
			}
		}
		return peers
	}
	return report.Span{Before: len(before), After: len(after), New: only(after, before), Gone: only(before, after)}
}
