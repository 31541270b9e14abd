package enforcer

import (
	"context"
	"maps"
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
	in    nft.Input
	modes modes
	// refused is what of its policies is not enforced as it is written, whatever its pods
	// are.
	refused         []nft.Refusal
	policies, rules int
	ruleset         *nft.Ruleset // that was compiled of it last
}

// compile returns the ruleset of a world, given how that differs from the one that was
// judged last.
func (a *Agent) compile(next told, change k8s.Change, loaded *nft.Ruleset) *nft.Ruleset {
	last := &a.judged
	isOther := last.model == nil || change.Whole || !slices.EqualFunc(last.guards, next.guards, samePolicy)
	switch {
	case isOther:
		a.judge(next)
	case change.IsEmpty():
	case len(change.Policies)+len(change.Gone)+len(change.Pods)+len(change.World) > 0:
		if !a.rejudge(next, change) {
			a.judge(next)
		}
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
	j := judgement{told: next, modes: modes, refused: refusals}
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
	j.count()
	a.judged = j
}

// count counts policies and rules.
func (j *judgement) count() {
	j.policies, j.rules = 0, 0
	for _, all := range [][]policies.Policy{j.guards, j.model.Policies} {
		j.policies += len(all)
		for i := range all {
			for _, d := range policies.Directions {
				j.rules += len(all[i].Rules[d])
			}
		}
	}
}

// rejudge judges a world that differs from the last one in a change. It is not ok where
// that changes who is observed, so that all is to be judged anew.
func (a *Agent) rejudge(next told, change k8s.Change) (ok bool) {
	w := &next.model.World
	j := a.judged
	j.told, j.in.Crowd, j.in.Pods = next, w.Crowd, a.podsOf(w)
	edit := reach.Edit{World: w, Pods: change.Pods, Others: change.World}
	enforced := edit
	if len(change.Policies)+len(change.Gone)+len(change.World) > 0 {
		m := *next.model
		m.Policies = change.Policies
		admitted, accepted, refusals := nft.Admit(&m, a.accepted)
		modes := modesOf(admitted, a.options.Observe)
		if len(modes.refusals)+len(j.modes.refusals) > 0 || !maps.Equal(modes.observed, j.modes.observed) || j.in.Enforced == nil && len(modes.policies) > 0 {
			return false
		}
		j.in.Strangers, j.refused = a.strangers(next.model), slices.Clone(j.refused)
		forget := func(ref policies.Ref) {
			delete(a.accepted, ref)
			j.refused = slices.DeleteFunc(j.refused, func(r nft.Refusal) bool { return r.Policy == ref })
		}
		edit.Put, edit.Delete, enforced.Delete = admitted.Policies, change.Gone, change.Gone
		for _, ref := range change.Gone {
			forget(ref)
		}
		for _, p := range admitted.Policies {
			forget(p.Ref)
			if modes.policies[p.Ref] {
				enforced.Delete = append(slices.Clip(enforced.Delete), p.Ref)
			} else {
				enforced.Put = append(enforced.Put, p)
			}
		}
		maps.Copy(a.accepted, accepted)
		j.refused = append(j.refused, refusals...)
		j.count()
	}
	j.in.Judge, _ = j.in.Judge.With(edit)
	if j.in.Enforced != nil {
		j.in.Enforced, _ = j.in.Enforced.With(enforced)
	}
	if j.in.Guards != nil {
		j.in.Guards, _ = j.in.Guards.With(reach.Edit{World: w, Pods: change.Pods, Others: change.World})
	}
	a.judged = j
	return true
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
		a.refuse(slices.Concat(asked.refused, asked.modes.refusals, nft.Doubts(asked.in)))
		if a.options.Settled != nil {
			a.options.Settled()
		}
		if !sleep(ctx, time.Second) {
			return
		}
	}
}
