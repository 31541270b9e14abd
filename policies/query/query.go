// Package query answers questions about policies: which of them concern a pod,
// what a rule matches, which rules do nothing, who is exposed.
//
// It decides nothing itself; it asks package reach, and what it says of a rule
// is what deciding again without the rule, or with another in its place, shows.
package query

import (
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Question names what an answer is about.
type Question string

// The questions.
const (
	Policies  Question = "policies"  // which policies and rules concern a peer
	Peers     Question = "peers"     // whom a policy and its rules concern
	Selector  Question = "selector"  // what a label selector selects
	Exposure  Question = "exposure"  // what is open to and from outside, and to what may come
	Unused    Question = "unused"    // policies and rules that concern nothing
	Shadowed  Question = "shadowed"  // rules that never decide
	Redundant Question = "redundant" // rules and policies that change nothing
	Coverage  Question = "coverage"  // pods and nodes that no policy isolates
	Path      Question = "path"      // the decisions on the way of a connection
)

// Answer is the answer to a question. The same model and question give the same
// rows in the same order.
type Answer struct {
	Question Question
	Rows     []Row
}

// Row is one thing that an answer says. What tells its part in the answer; the
// other members are zero where they say nothing.
type Row struct {
	What      string
	Tier      string
	Policy    *policies.Ref
	Direction string // egress or ingress
	Rule      *int   // index of the rule in its direction; nil is the whole policy
	Action    policies.Action
	Verdict   policies.Verdict
	Peer      *policies.Peer // whom the row is about
	Other     *policies.Peer // addresses outside, at the other end
	Could     string         // who is not there and could be, at the other end
	Pods      int            // how many of the peer's pods are meant
	Ports     netset.Ports
	Perhaps   netset.Ports // ports for which it is not known
	By        []Rule       // the rules behind it
	Because   string       // one clause, lower case, no full stop
	Flows     uint64       // recorded flows
	Last      time.Time    // when the last of them was seen
	At        policies.Place
}

// Rule names a rule, or a whole policy where Rule is nil.
type Rule struct {
	Policy    policies.Ref
	Direction string
	Rule      *int
	At        policies.Place
}

// rowOf begins a row about a rule or a policy.
func rowOf(m *policies.Model, what string, r reach.RuleID) Row {
	p := &m.Policies[r.Policy]
	row := Row{What: what, Tier: p.Tier, Policy: &p.Ref, At: p.Place}
	if r.Rule != reach.WholePolicy {
		rule := &p.Rules[r.Direction][r.Rule]
		row.Direction, row.Rule, row.Action = r.Direction.String(), &r.Rule, rule.Action
		if rule.Place.File != "" {
			row.At = rule.Place
		}
	}
	return row
}

// rules yields every rule of a model in the order of evaluation.
func rules(j *reach.Judge) []reach.RuleID {
	var all []reach.RuleID
	for _, p := range j.Order() {
		for _, d := range policies.Directions {
			for r := range j.Model().Policies[p].Rules[d] {
				all = append(all, reach.RuleID{Policy: p, Direction: d, Rule: r})
			}
		}
	}
	return all
}

// members counts pods by workload, in the order of names.
type members struct {
	refs []policies.Ref
	pods map[policies.Ref]int
}

func (w *members) add(p *policies.Pod) {
	if w.pods == nil {
		w.pods = map[policies.Ref]int{}
	}
	if w.pods[p.Workload] == 0 {
		w.refs = append(w.refs, p.Workload)
	}
	w.pods[p.Workload]++
}

// rows returns a row for each workload.
func (w *members) rows(row Row) []Row {
	slices.SortFunc(w.refs, policies.Ref.Compare)
	var all []Row
	for _, ref := range w.refs {
		row.Peer, row.Pods = &policies.Peer{Namespace: ref.Namespace, Name: ref.Name, Kind: ref.Kind}, w.pods[ref]
		all = append(all, row)
	}
	return all
}

// Named is what a question calls a policy.
type Named struct {
	Ref policies.Ref
	// Policies are indexes of Model.Policies: several where a HostEndpoint or a
	// Profile is meant, for what decides at host endpoints besides policies. Of a
	// staged policy it is its index in Model.Staged.
	Policies []int
	Staged   bool
	Profile  string // only the rules of this profile
}

// Find returns what text may name: a policy's "namespace/name", a cluster-wide
// one's "name", or either behind a kind, as in "ClusterNetworkPolicy/name", see
// policies.Ref.Full. Staged policies are meant where no enforced one is.
// "HostEndpoint/name" names what it does by itself, "Profile/name" the rules of a
// profile that host endpoints have.
func Find(m *policies.Model, text string) []Named {
	kind, name, _ := strings.Cut(text, "/")
	own := Named{Ref: policies.Ref{Group: policies.CalicoGroup, Kind: "HostEndpoint", Name: name}}
	ofProfile := Named{Ref: policies.Ref{Group: policies.CalicoGroup, Kind: "Profile", Name: name}, Profile: name}
	var found []Named
	for i := range m.Policies {
		p := &m.Policies[i]
		switch {
		case !p.IsBuiltIn() && isCalled(p.Ref, text):
			found = append(found, Named{Ref: p.Ref, Policies: []int{i}})
		case !p.IsBuiltIn():
		case p.Ref == own.Ref && strings.EqualFold(kind, own.Ref.Kind):
			own.Policies = append(own.Policies, i)
		case strings.EqualFold(kind, ofProfile.Ref.Kind) && hasProfile(p, name):
			ofProfile.Policies = append(ofProfile.Policies, i)
		}
	}
	for _, n := range []Named{own, ofProfile} {
		if len(n.Policies) > 0 {
			found = append(found, n)
		}
	}
	if len(found) > 0 {
		return found
	}
	for i := range m.Staged {
		if isCalled(m.Staged[i].Ref, text) {
			found = append(found, Named{Ref: m.Staged[i].Ref, Policies: []int{i}, Staged: true})
		}
	}
	return found
}

func isCalled(r policies.Ref, text string) bool {
	return text == r.String() || strings.EqualFold(text, r.Full())
}

// hasProfile reports whether a host endpoint has rules of a profile.
func hasProfile(p *policies.Policy, profile string) bool {
	is := func(r policies.Rule) bool { return isOfProfile(&r, profile) }
	return slices.ContainsFunc(p.Rules[0], is) || slices.ContainsFunc(p.Rules[1], is)
}

// isOfProfile reports whether a rule of a host endpoint is one of a profile, as its
// name says, perhaps with the rule's own behind it.
func isOfProfile(r *policies.Rule, profile string) bool {
	rest, is := strings.CutPrefix(r.Name, profile)
	return is && (rest == "" || strings.HasPrefix(rest, ": ") || rest == " (missing)")
}
