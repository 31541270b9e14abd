package enforcer

import (
	"context"
	"slices"
	"time"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// judgement is what a world asks of the node.
type judgement struct {
	told
	in nft.Input
	// refusals are what of its policies is not enforced as it is written, whatever its
	// pods are.
	refusals        []nft.Refusal
	policies, rules int
	ruleset         *nft.Ruleset // that was compiled of it last
}

// compile returns the ruleset of a world, given how that differs from the one that was
// judged last.
func (a *Agent) compile(next told, change k8s.Change, loaded *nft.Ruleset) *nft.Ruleset {
	last := &a.judged
	isOther := last.model == nil || !slices.EqualFunc(last.guards, next.guards, samePolicy) || change.Whole || len(change.Policies)+len(change.Gone) > 0
	isOther = isOther || slices.ContainsFunc(change.World, func(r policies.Ref) bool { return r.Kind == "Namespace" || r.Kind == "Node" }) // which say modes, and ranges
	switch {
	case last.model == next.model && !isOther:
	case isOther:
		a.judge(next)
	case len(change.Pods)+len(change.World) > 0:
		a.rejudge(next, change)
	default:
		last.told, last.in.Crowd = next, next.model.Crowd
		if loaded != nil && loaded == last.ruleset {
			last.ruleset = loaded.Among(next.model.Crowd)
			return last.ruleset
		}
	}
	last.ruleset = a.compiler.Compile(last.in, loaded)
	return last.ruleset
}

// lasting are the options of judges that others are made of.
var lasting = reach.Options{Lasting: true}

// judge judges a world.
func (a *Agent) judge(next told) {
	admitted, accepted, refusals := nft.Admit(next.model, a.accepted)
	a.accepted = accepted
	m := withGuards(admitted, next.guards)
	modes := modesOf(m, a.options.Observe)
	j := judgement{told: next, refusals: append(refusals, modes.refusals...), policies: len(m.Policies)}
	j.in = nft.Input{
		Judge: reach.New(m, lasting), LogGroup: a.options.LogGroup, LogRate: a.options.LogRate, Strangers: a.strangers(m), Crowd: m.Crowd, Pods: a.podsOf(&m.World),
	}
	if enforced := modes.enforced(m); enforced != nil {
		j.in.Enforced = reach.New(enforced, lasting)
	}
	if len(modes.observed) > 0 {
		j.in.Observed = modes.observed
		if len(next.guards) > 0 {
			j.in.Guards = reach.New(onlyGuards(m), lasting)
		}
	}
	for i := range m.Policies {
		for _, d := range policies.Directions {
			j.rules += len(m.Policies[i].Rules[d])
		}
	}
	a.judged = j
}

// rejudge judges a world that differs from the last one in pods, and in objects that
// policies may name.
func (a *Agent) rejudge(next told, change k8s.Change) {
	w := &next.model.World
	e := reach.Edit{World: w, Pods: change.Pods, Others: change.World}
	j := a.judged
	j.told, j.in.Crowd, j.in.Pods = next, w.Crowd, a.podsOf(w)
	for _, judge := range []**reach.Judge{&j.in.Judge, &j.in.Enforced, &j.in.Guards} {
		if *judge != nil {
			*judge, _ = (*judge).With(e)
		}
	}
	a.judged = j
}

// podsOf returns the pods that are guarded.
func (a *Agent) podsOf(w *policies.World) (all []int) {
	for i := range w.Pods {
		if p := &w.Pods[i]; p.Kind == 0 && !p.HostNetwork && len(p.Addresses) > 0 && (a.options.Node == "" || p.Node == a.options.Node) {
			all = append(all, i)
		}
	}
	return all
}

// doubtAlways finds what is in doubt whenever that is asked for: at leisure, for it may
// take a while, and holds up nothing.
func (a *Agent) doubtAlways(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.doubts:
		}
		a.mutex.Lock()
		asked := a.asked
		a.mutex.Unlock()
		a.refuse(append(slices.Clip(asked.refusals), nft.Doubts(asked.in)...))
		if !sleep(ctx, time.Second) {
			return
		}
	}
}
