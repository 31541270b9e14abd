package simulator

import (
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Usage counts the recorded flows that each rule decides; connections that both sides
// report, once. Like a Replayer it
// grows with the distinct ends and questions, and is not safe for concurrent use.
type Usage struct {
	replayer *Replayer
	rules    map[standing]int
	known    map[question]*used
	byRule   map[reach.RuleID][]*used
	newest   time.Time
}

// used is the flows that ask one question.
type used struct {
	pairing pairing
	tally
}

// standing is a policy in its tier: a host endpoint has several.
type standing struct {
	policies.Ref
	tier string
}

// NewUsage returns the Usage of a judge's rules.
func NewUsage(j *reach.Judge) *Usage {
	u := &Usage{replayer: New(j, nil), rules: map[standing]int{}, known: map[question]*used{}, byRule: map[reach.RuleID][]*used{}}
	for i := range j.Model().Policies {
		p := &j.Model().Policies[i]
		u.rules[standing{p.Ref, p.Tier}] = i
	}
	return u
}

// Add takes one flow; where it may be of several pods, it counts for each of
// them. Flows whose ends are not in the world count for no rule.
func (u *Usage) Add(f policies.Flow) {
	f.Count = max(1, f.Count)
	u.newest = latest(u.newest, f.Last)
	from, to := u.replayer.find(&f.From), u.replayer.find(&f.To)
	if missing(&f, from, to) != nil || f.Protocol == 0 || lacksPort(f.Protocol, f.Port) {
		return
	}
	q := question{from: from.place, to: to.place, protocol: f.Protocol, port: f.Port}
	asked := u.known[q]
	if asked == nil {
		asked = &used{}
		u.known[q] = asked
		for _, id := range u.decide(q, from.before.ends, to.before.ends) {
			u.byRule[id] = append(u.byRule[id], asked)
		}
	}
	asked.add(&f)
	if hasTwins(&f) {
		asked.pairing.add(f.First, sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter), f.Count)
	}
}

func (u *Usage) decide(q question, from, to []reach.End) []reach.RuleID {
	var deciding []reach.RuleID
	for _, source := range from {
		for _, target := range to {
			d := u.replayer.before.judge.Decide(source, target, q.protocol, q.port)
			for _, direction := range policies.Directions {
				side := &d.Sides[direction]
				if side.Policy == nil || side.Rule == nil {
					continue
				}
				id := reach.RuleID{Policy: u.rules[standing{*side.Policy, side.Tier}], Direction: direction, Rule: *side.Rule}
				if !slices.Contains(deciding, id) {
					deciding = append(deciding, id)
				}
			}
		}
	}
	return deciding
}

// Newest returns when the last flow was seen; zero when no record says.
func (u *Usage) Newest() time.Time { return u.newest }

// Of returns how many flows a rule decided, and when the last was seen.
func (u *Usage) Of(r reach.RuleID) (flows uint64, last time.Time) {
	for _, asked := range u.byRule[r] {
		flows += asked.flows - asked.pairing.matched()
		last = latest(last, asked.seen.Last())
	}
	return flows, last
}
