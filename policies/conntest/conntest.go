// Package conntest runs tests of connectivity: questions with the answers that
// they must have. It asks package reach, and decides nothing itself.
package conntest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Suite is a ConnectivityTest with the places of what it says.
type Suite struct {
	Ref         policies.Ref
	Description string
	Groups      map[string][]Text
	Tests       []Test
	Place       policies.Place
}

// Text is a word of a test where it stands.
type Text struct {
	Text  string
	Place policies.Place
}

// Test expects one verdict of each connection from From to To on Ports; or,
// where Only is not nil, that nothing else can reach any of To. Without ports,
// any is meant.
type Test struct {
	Description     string
	From, To, Ports []Text
	Expect          policies.Verdict
	Only            []Source
	Place           policies.Place
}

// Source is what can reach the end of a test, Allow or Unknown, on Ports. Each
// of From must be able to: on all of its ports, or, without any, on some.
type Source struct {
	From, Ports []Text
	Expect      policies.Verdict
}

// Result is the answers to a test's questions, one for each.
type Result struct {
	Suite       policies.Ref
	Description string
	// From, To and Port are the question as the test has it; From is empty for
	// one about everything that can reach To.
	From, To, Port string
	Expect         policies.Verdict // Undecided where From is empty
	Passed         bool
	Decision       *policies.Decision // the answer; nil where From is empty
	Surplus        []Difference       // what can reach To and is not listed
	Missing        []Difference       // what is listed and cannot
	Place          policies.Place
}

// Difference is sources that are decided otherwise than the test says.
type Difference struct {
	From     []policies.Peer
	To       string // those of the test's ends that it is about
	Ports    netset.Ports
	Verdict  policies.Verdict  // on these ports: Allow or Unknown of a Surplus, Deny of what is Missing
	Decision policies.Decision // on all of From, To and Ports, which may hold more verdicts than that
	Place    policies.Place    // of the source in the test, where it is Missing
}

// Name is the description of a result with its question, or the question alone.
func (r *Result) Name() string {
	question := r.From + " → " + r.To + " " + r.Port + ": " + r.Expect.String()
	if r.From == "" {
		question = "who reaches " + r.To + " " + r.Port
	}
	if r.Description == "" {
		return question
	}
	return r.Description + " (" + question + ")"
}

// Run asks everything that the suites ask, in their order. The error joins a
// policies.Problem for each thing that cannot be asked; there are no results
// then.
func Run(j *reach.Judge, suites []Suite) ([]Result, error) {
	r := run{Judge: j, found: map[string]found{}}
	for i := range suites {
		r.suite = &suites[i]
		for _, name := range slices.Sorted(maps.Keys(r.suite.Groups)) {
			r.ends(r.suite.Groups[name])
		}
		for k := range r.suite.Tests {
			r.test(&r.suite.Tests[k])
		}
	}
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b policies.Problem) int { return a.Place.Compare(b.Place) })
		var all []error
		for _, p := range slices.Compact(r.problems) {
			all = append(all, p)
		}
		return nil, errors.Join(all...)
	}
	return r.results, nil
}

type run struct {
	*reach.Judge
	suite    *Suite
	results  []Result
	problems []policies.Problem
	found    map[string]found
	pods     map[podName]int
}

// found remembers what a text means, since tests repeat their ends.
type found struct {
	target policies.Target
	err    error
}

func (r *run) problem(at policies.Place, err error) {
	r.problems = append(r.problems, policies.Problem{Place: at, Message: err.Error()})
}

// end is a target with the text that named it, which may be that of a group.
type end struct {
	policies.Target
	Text
	named string
}

// ends resolves texts, and the groups among them; what does not exist is a
// problem at its place.
func (r *run) ends(texts []Text) []end {
	var all []end
	for _, text := range texts {
		members, ok := r.suite.Groups[text.Text]
		if !ok {
			members = []Text{text}
		}
		for _, m := range members {
			f, known := r.found[m.Text]
			if !known {
				f.target, f.err = r.Model().Find(m.Text)
				r.found[m.Text] = f
			}
			if f.err != nil {
				r.problem(m.Place, r.explain(m.Text, f.err))
				continue
			}
			if ok {
				m.Place = text.Place
			}
			all = append(all, end{f.target, m, text.Text})
		}
	}
	return all
}

// explain adds to why an end is not found the groups that it may have meant.
func (r *run) explain(text string, err error) error {
	if len(r.suite.Groups) == 0 || strings.ContainsAny(text, "/.:") {
		return err
	}
	return fmt.Errorf("%w, nor a group of the test%s", err, policies.Near(text, slices.Collect(maps.Keys(r.suite.Groups))))
}

// port is a port of a question with the text that named it.
type port struct {
	policies.PortQuery
	Text
}

func (r *run) ports(texts []Text, at policies.Place) []port {
	if len(texts) == 0 {
		texts = []Text{{"any", at}}
	}
	var all []port
	for _, t := range texts {
		q, err := policies.ParsePort(t.Text)
		if err != nil {
			r.problem(t.Place, err)
			continue
		}
		all = append(all, port{q, t})
	}
	return all
}

func (r *run) test(t *Test) {
	from, to, ports := r.ends(t.From), r.ends(t.To), r.ports(t.Ports, t.Place)
	if t.Only != nil {
		r.only(t, to, ports)
		return
	}
	for _, f := range from {
		for _, d := range to {
			for _, p := range ports {
				decision, err := r.Ask(reach.Question{From: f.Target, To: d.Target, Port: p.PortQuery})
				if err != nil {
					r.problem(p.Place, err)
					continue
				}
				r.results = append(r.results, Result{
					Suite: r.suite.Ref, Description: t.Description, From: f.Text.Text, To: d.Text.Text, Port: p.Text.Text,
					Expect: t.Expect, Passed: decision.Verdict == t.Expect, Decision: &decision, Place: t.Place,
				})
			}
		}
	}
}

func join(texts []Text) string {
	var all []string
	for _, t := range texts {
		all = append(all, t.Text)
	}
	return cmp.Or(strings.Join(all, ", "), "any")
}
