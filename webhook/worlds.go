package webhook

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// question is an object of which nobody knows for sure what became of it, with all
// that may have. The first is nil: it is as it is seen.
type question struct {
	key     k8s.Key
	answers []*answer
}

// answer is what may have become of an object.
type answer struct {
	entry   *k8s.Entry // nil where it has gone, and owned nothing
	emptied bool       // all that a Namespace holds has gone, too
}

// questionsOf returns what is open while some admissions are pending and some objects
// are being deleted; those about nothing but policies are the last.
func questionsOf(m live.Moment, pending []*admission) []question {
	var all []question
	ask := func(k k8s.Key, it *answer) {
		i := slices.IndexFunc(all, func(q question) bool { return q.key == k })
		if i < 0 {
			i, all = len(all), append(all, question{k, []*answer{nil}})
		}
		holds := isNamespace(k) && len(m.Within(k.Name)) > 0
		if !slices.ContainsFunc(all[i].answers, func(other *answer) bool {
			if other == nil {
				other = &answer{entry: m.Get(k)}
			}
			return it.entry.Says(other.entry) && (it.emptied == other.emptied || !holds)
		}) {
			all[i].answers = append(all[i].answers, it)
		}
	}
	for _, a := range pending {
		if !isInvariant(a.key) {
			for _, it := range a.answers() {
				ask(a.key, it)
			}
		}
	}
	going := m.Going()
	slices.SortFunc(going, func(a, b k8s.Key) int { return a.Ref().Compare(b.Ref()) })
	for _, k := range going {
		if !slices.Contains(going, k8s.Key{Kind: "Namespace", Name: k.Namespace}) { // else it goes along with that
			it := &answer{emptied: true}
			if e := m.Get(k); e != nil {
				it.entry = e.Gone()
			}
			ask(k, it)
		}
	}
	all = slices.DeleteFunc(all, func(q question) bool { return len(q.answers) == 1 })
	slices.SortStableFunc(all, func(p, q question) int {
		switch {
		case isPolicy(p.key) == isPolicy(q.key):
			return 0
		case isPolicy(q.key):
			return -1
		}
		return 1
	})
	return all
}

// answers returns what an admission may make of its object. What is seen in a Namespace
// that comes may be that of its predecessor, or its own already.
func (a *admission) answers() []*answer {
	all := []*answer{{a.entry, a.isGone()}}
	if isNamespace(a.key) && a.was == (live.Version{}) {
		all = append(all, &answer{a.entry, true})
	}
	return all
}

func isNamespace(k k8s.Key) bool { return k.Group == "" && k.Kind == "Namespace" }

// isPolicy reports whether an object is nothing but a policy.
func isPolicy(k k8s.Key) bool {
	switch k.Group {
	case "", "apps", "batch":
		return false
	case policies.CalicoGroup:
		return strings.HasSuffix(k.Kind, "NetworkPolicy")
	}
	return true
}

// In how many ways questions may be answered for one request: gladly, since it does not
// take long, and at most.
const (
	fewBranches  = 16
	mostBranches = 64
)

// count returns in how many ways questions may be answered, or a number above
// mostBranches.
func count(questions []question) int {
	n := 1
	for _, q := range questions {
		n = min(n*len(q.answers), mostBranches+1)
	}
	return n
}

// ways returns all ways in which questions may be answered, by the numbers of the
// answers. One in which an answer is not as it is seen comes after that in which it is.
// Where there are too many, some are returned in which all but one answer is as it is
// seen, and whole is false.
func ways(questions []question) (all []string, whole bool) {
	all = []string{string(make([]byte, len(questions)))}
	if count(questions) > mostBranches {
		return some(questions, all), false
	}
	for i, q := range questions {
		for _, way := range all {
			for k := range q.answers[1:] {
				next := []byte(way)
				next[i] = byte(k + 1)
				all = append(all, string(next))
			}
		}
	}
	return all, true
}

func some(questions []question, all []string) []string {
	for i, q := range questions {
		for k := range q.answers[1:] {
			if len(all) == mostBranches {
				return all
			}
			next := []byte(all[0])
			next[i] = byte(k + 1)
			all = append(all, string(next))
		}
	}
	return all
}

// branch is one way in which all is answered but what becomes of the object that is
// asked about.
type branch struct {
	befores []*world // with each answer to that; in the first it is as it is seen
	afters  []*world // once it is as asked for; none for an Invariant
}

// branchesOf returns the branches of a request, and whether they are all.
func branchesOf(m live.Moment, questions []question, a *admission) (all []branch, whole bool) {
	own := []*answer{nil}
	if i := slices.IndexFunc(questions, func(q question) bool { return q.key == a.key }); i >= 0 {
		own, questions = questions[i].answers, slices.Delete(slices.Clone(questions), i, i+1)
	}
	found, whole := ways(questions)
	first := map[string]*world{}
	for _, way := range found {
		overlay := overlay{moment: m}
		for i, q := range questions {
			overlay.add(q.key, q.answers[way[i]])
		}
		if overlay.contradicts(questions, way, a.key) {
			continue
		}
		var next branch
		first[way] = overlay.try(parentOf(first, questions, way))
		next.befores = append(next.befores, first[way])
		var parent *world
		if isPolicy(a.key) {
			parent = first[way]
		}
		for _, it := range own[1:] {
			next.befores = append(next.befores, overlay.with(a.key, it).try(parent))
		}
		if !isInvariant(a.key) {
			for _, it := range a.answers() {
				next.afters = append(next.afters, overlay.with(a.key, it).try(parent))
			}
		}
		all = append(all, next)
	}
	return all, whole
}

// parentOf returns the world with one policy less that is not as it is seen; nil where it
// is not a policy.
func parentOf(worlds map[string]*world, questions []question, way string) *world {
	of := []byte(way)
	for i := len(of) - 1; i >= 0; i-- {
		if of[i] == 0 {
			continue
		}
		if of[i] = 0; isPolicy(questions[i].key) {
			return worlds[string(of)]
		}
		break
	}
	return nil
}

// overlay is what is not as it is seen.
type overlay struct {
	moment live.Moment
	put    []*k8s.Entry
	gone   []k8s.Key
}

func (o *overlay) add(k k8s.Key, it *answer) {
	if it == nil {
		return
	}
	if it.entry != nil {
		o.put = append(o.put, it.entry)
	} else {
		o.gone = append(o.gone, k)
	}
	if it.emptied && isNamespace(k) {
		o.gone = append(o.gone, o.moment.Within(k.Name)...)
	}
}

// with returns the overlay with one more answer. A Namespace that goes takes along what
// is put into it, too.
func (o overlay) with(k k8s.Key, it *answer) *overlay {
	next := &overlay{o.moment, slices.Clone(o.put), slices.Clone(o.gone)}
	if it != nil && it.entry == nil && isNamespace(k) {
		next.put = slices.DeleteFunc(next.put, func(e *k8s.Entry) bool { return e.Key().Namespace == k.Name })
	}
	next.add(k, it)
	return next
}

// contradicts reports whether something is in a Namespace that has gone.
func (o *overlay) contradicts(questions []question, way string, asked k8s.Key) bool {
	return slices.ContainsFunc(o.gone, func(k k8s.Key) bool {
		if !isNamespace(k) {
			return false
		}
		for i, q := range questions {
			if q.key.Namespace == k.Name && way[i] > 0 {
				return true
			}
		}
		return asked.Namespace == k.Name
	})
}

// world is a world that may be, told by what is not as in the last model.
type world struct {
	*standing.Standing
	change k8s.Change
	model  *policies.Model // nil where nothing but policies changes
	parent *world          // one in which nothing but policies is different, if it is known
}

// try returns a world that is not looked at yet.
func (o *overlay) try(parent *world) *world {
	w := &world{parent: parent}
	o.moment.Try(o.put, o.gone, func(c k8s.Change, model func() *policies.Model) {
		if w.change = c; !standing.IsOfPolicies(&c) {
			w.model = model()
		}
	})
	return w
}

// look finds how the invariants stand in a world, after its parent.
func (w *world) look(ctx context.Context, seen *standing.Standing, now time.Time) (err error) {
	if w.parent != nil {
		if edit, ok := delta(&w.parent.change, &w.change); ok {
			w.Standing, err = w.parent.Edited(ctx, edit, now)
			return err
		}
	}
	w.Standing, err = seen.After(ctx, &w.change, func() *policies.Model { return w.model }, now)
	return err
}

// delta returns what leads from one change of a world to another that differs in
// policies; false where that is more than policies that come, or say something else.
func delta(from, to *k8s.Change) (e reach.Edit, ok bool) {
	if from.Whole || to.Whole || !slices.Equal(from.Pods, to.Pods) || !slices.Equal(from.World, to.World) {
		return e, false
	}
	for _, ref := range from.Gone {
		if !slices.Contains(to.Gone, ref) && find(to, ref) == nil {
			return e, false
		}
	}
	for i := range from.Policies {
		if ref := from.Policies[i].Ref; !slices.Contains(to.Gone, ref) && find(to, ref) == nil {
			return e, false
		}
	}
	for _, ref := range to.Gone {
		if !slices.Contains(from.Gone, ref) {
			e.Delete = append(e.Delete, ref)
		}
	}
	for i := range to.Policies {
		if p := find(from, to.Policies[i].Ref); p == nil || !reflect.DeepEqual(p, &to.Policies[i]) {
			e.Put = append(e.Put, to.Policies[i])
		}
	}
	return e, true
}

func find(c *k8s.Change, ref policies.Ref) *policies.Policy {
	for i := range c.Policies {
		if c.Policies[i].Ref == ref {
			return &c.Policies[i]
		}
	}
	return nil
}
