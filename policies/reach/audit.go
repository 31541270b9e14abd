package reach

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// RuleID names a rule of a model by its indexes: Model.Policies[Policy] holds it
// as Rules[Direction][Rule].
type RuleID struct {
	Policy    int
	Direction policies.Direction
	Rule      int // or WholePolicy
}

// WholePolicy as a RuleID's Rule names the policy with all its rules, in both
// directions.
const WholePolicy = -1

// Audit says what each policy and rule of a model is good for, in that model's
// world. It prepares little and remembers what it is asked, so it is not safe
// for concurrent use.
type Audit struct {
	*Judge
	model    *policies.Model
	e        evaluation
	grants   *grants
	groups   [2][]group
	groupOf  [2][]int32 // by class; -1 where no policy governs it
	people   []int      // by class: the pods and nodes that are of it, replicas counted
	scratch  policies.Model
	standing [2][][]standing
	lister   *lister
	byFamily [4]*set // columns, as within returns them
}

// group is classes that the same policies govern, and for which ports by name
// mean the same.
type group struct {
	classes   []int32
	list      []governing
	row       *row
	fromOwner *row // at ingress: what comes from a pod's own node
}

// standing is what a rule does in its place.
type standing struct{ matches, decides bool }

// NewAudit returns the audit of what a judge judges.
func NewAudit(j *Judge) *Audit {
	j = j.settled()
	b := newBuilder(j.frame)
	b.turnTo(j.world, j.placement)
	a := &Audit{Judge: j, model: j.Model(), e: newEvaluation(b, j.book, j.hosts), grants: newGrants(b.ports), scratch: *j.Model()}
	a.grants.ports = b.ports
	a.scratch.Policies = slices.Clone(a.model.Policies)
	a.countPeople()
	for _, d := range policies.Directions {
		a.group(d)
	}
	for _, d := range policies.Directions {
		a.standing[d] = make([][]standing, len(a.model.Policies))
		for i := range a.model.Policies {
			a.standing[d][i] = make([]standing, len(a.model.Policies[i].Rules[d]))
			if a.model.Policies[i].Forwarded && len(j.world.Hosts) > 0 {
				// What a host forwards goes another way than what it takes itself.
				for r := range a.standing[d][i] {
					s := standing{true, true}
					if rule := &a.model.Policies[i].Rules[d][r]; !dependsOnSubject(rule, d) {
						c := a.e.compileRule(rule, d, nil)
						s.matches = len(a.e.normal(c.possible)) > 0
					}
					a.standing[d][i][r] = s
				}
			}
		}
		for i := range a.groups[d] {
			a.walk(d, &a.groups[d][i], func(r *visit) {
				s := &a.standing[d][r.id.Policy][r.id.Rule]
				s.matches = s.matches || len(r.matches) > 0
				s.decides = s.decides || len(r.hit) > 0
			})
		}
	}
	return a
}

func (a *Audit) countPeople() {
	a.people = make([]int, len(a.classes))
	for i, class := range a.placement.pods {
		a.people[class] += max(1, a.world.Pods[i].Replicas)
	}
	for _, class := range a.placement.nodes {
		a.people[class]++
	}
	a.people[a.placement.anyNode]++
	for class, faces := range a.faces {
		for _, face := range faces {
			a.people[face] += a.people[class]
		}
	}
}

// group sorts the classes that some policy governs.
func (a *Audit) group(d policies.Direction) {
	known := map[string]int32{}
	a.groupOf[d] = make([]int32, len(a.classes))
	for class, list := range a.governing[d].each() {
		a.groupOf[d][class] = -1
		if len(list) == 0 && len(a.hosts.forwarded) == 0 || a.people[class] == 0 {
			continue
		}
		c, itself := &a.classes[class], int32(-1)
		if c.host() || c.role == faced { // its addresses may count
			itself = class
		}
		var key []byte
		for _, n := range []int32{c.node, itself, int32(len(list))} {
			key = binary.LittleEndian.AppendUint32(key, uint32(n))
		}
		for _, g := range list {
			key = binary.LittleEndian.AppendUint32(key, uint32(g.policy)<<2|uint32(g.truth))
		}
		key = a.e.appendSubjectKey(key, d, class, list)
		for _, node := range slices.Sorted(maps.Keys(a.hosts.forwarded)) {
			key = a.e.appendSubjectKey(key, d, class, a.hosts.forwarded[node][d])
		}
		at, ok := known[string(key)]
		if !ok {
			at = int32(len(a.groups[d]))
			known[string(key)] = at
			g := group{list: list, row: a.e.row(d, class, list)}
			if d == policies.Ingress {
				g.fromOwner = a.e.rowFromOwnNode(class, list)
			}
			a.groups[d] = append(a.groups[d], g)
		}
		a.groupOf[d][class] = at
		a.groups[d][at].classes = append(a.groups[d][at].classes, class)
	}
}

// Governs is a policy that applies to an end, in one direction: for sure, or
// perhaps.
type Governs struct {
	Policy int
	Truth  policies.Truth
}

// Governing returns the policies that govern an end in one direction, in the
// order of evaluation.
func (j *Judge) Governing(d policies.Direction, e End) []Governs {
	class := j.classOf(e)
	if class < 0 {
		return nil
	}
	var all []Governs
	for _, g := range j.governs(d, class) {
		all = append(all, Governs{j.book.index(g.policy), g.truth})
	}
	return all
}

// GoverningPolicies yields the policies that govern an end in one direction, in the
// order of evaluation: for sure, or perhaps.
func (j *Judge) GoverningPolicies(d policies.Direction, e End) iter.Seq2[*policies.Policy, policies.Truth] {
	return func(yield func(*policies.Policy, policies.Truth) bool) {
		class := j.classOf(e)
		if class < 0 {
			return
		}
		for _, g := range j.governs(d, class) {
			if !yield(j.book.policy(g.policy), g.truth) {
				return
			}
		}
	}
}

// Order returns the indexes of the model's policies in the order of evaluation.
func (j *Judge) Order() []int {
	var all []int
	for _, i := range j.book.evaluationOrder() {
		all = append(all, j.book.index(i))
	}
	return all
}

// Selects reports whether a policy governs anything of the world, or may.
func (a *Audit) Selects(policy int) bool {
	for _, d := range policies.Directions {
		for _, lists := range a.hosts.forwarded {
			if governs(lists[d], policy) {
				return true
			}
		}
		for i := range a.groups[d] {
			if governs(a.groups[d][i].list, policy) {
				return true
			}
		}
	}
	return false
}

// MatchesAny reports whether a rule matches, or may match, any traffic of what
// its policy governs.
func (a *Audit) MatchesAny(r RuleID) bool { return a.standing[r.Direction][r.Policy][r.Rule].matches }

// Decides reports whether there is traffic that a rule decides, or may decide:
// traffic it matches that nothing before it settles. Of policies that have no
// order among them, one with a rule that does the same counts as before it where
// it stands before it in Order.
func (a *Audit) Decides(r RuleID) bool { return a.standing[r.Direction][r.Policy][r.Rule].decides }

// Matched is a peer that a rule matches at the other end: on some ports for
// sure, on others perhaps.
type Matched struct {
	Peer          policies.Peer // a workload, a node, or addresses outside
	Sure, Perhaps netset.Ports
}

// Matched returns what a rule matches at the other end of whatever its policy
// governs, by workload, then nodes, then addresses outside.
func (a *Audit) Matched(r RuleID) []Matched {
	as := a.asRow(r)
	if a.lister == nil {
		a.lister = newLister(a.Judge, Listing{})
	}
	var all []Matched
	add := func(p policies.Peer, g grantID) {
		if g != noGrant {
			sets := a.grants.ports.sets
			all = append(all, Matched{p, sets[a.grants.all[g].allow], sets[a.grants.all[g].unknown]})
		}
	}
	ofClasses := func(classes ...int32) grantID {
		g := noGrant
		for _, class := range classes {
			for _, column := range a.classes[class].columns {
				g = a.grants.either(g, a.grants.of(as, column))
			}
		}
		return g
	}
	for _, u := range a.lister.units {
		add(u.peer, ofClasses(u.classes...))
	}
	for i := range a.world.Nodes {
		add(a.Peer(a.Node(i)), ofClasses(a.placement.nodes[i]))
	}
	alike := map[grantID]netset.Addresses{}
	var order []grantID
	for _, atom := range a.lister.atoms {
		g := a.grants.of(as, a.outside+atom)
		if _, ok := alike[g]; !ok {
			order = append(order, g)
		}
		alike[g] = alike[g].Union(a.frame.atoms[atom].addresses())
	}
	for _, g := range order {
		for _, b := range alike[g].Blocks() {
			add(policies.Outside(b), g)
		}
	}
	return all
}

// Matches returns the ports on which a rule matches an end as the other end of
// whatever its policy governs: for sure, and perhaps.
func (a *Audit) Matches(r RuleID, e End) (sure, perhaps netset.Ports) {
	as := a.asRow(r)
	g := noGrant
	var buf [2]int32
	for _, column := range a.columnsOf(e, &buf) {
		g = a.grants.either(g, a.grants.of(as, column))
	}
	sets := a.grants.ports.sets
	return sets[a.grants.all[g].allow], sets[a.grants.all[g].unknown]
}

// asRow returns what a rule matches as a row would grant it.
func (a *Audit) asRow(r RuleID) *row {
	rule := &a.model.Policies[r.Policy].Rules[r.Direction][r.Rule]
	var yes, possible []layer
	take := func(c *compiled) { yes, possible = append(yes, c.yes...), append(possible, c.possible...) }
	if !dependsOnSubject(rule, r.Direction) {
		take(a.e.compileRule(rule, r.Direction, &class{}))
	} else {
		for _, g := range a.groups[r.Direction] {
			if governs(g.list, r.Policy) {
				take(a.e.compileRule(rule, r.Direction, &a.classes[g.classes[0]]))
			}
		}
	}
	sure := a.e.normal(yes)
	return &row{allow: sure, unknown: a.e.subtract(a.e.normal(possible), sure)}
}

// Ends returns one end for each thing a target names that policies can tell
// apart: of addresses, one in each range that no rule tells apart.
func (j *Judge) Ends(t policies.Target) []End {
	var all []End
	for _, x := range j.ends(t) {
		all = append(all, x.end)
	}
	return all
}

// InNamespace reports whether a namespace is in a selector: perhaps, where its
// labels are not known.
func InNamespace(s selector.Selector, n *policies.Namespace) policies.Truth {
	return matches(s, n.Labels, n.Implied)
}
