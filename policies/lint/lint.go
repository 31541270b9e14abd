// Package lint finds what is probably a mistake in policies: sentences that are
// well formed and mean something else than their author thinks, or nothing.
//
// Each check is a file of this package and a page of docs/checks. What policies
// do, package reach decides; a check only asks. It knows no files, and no clock:
// the moment comes with the options.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// Severity is how bad a finding is.
type Severity uint8

// The severities, mildest first. A note may well be intended; a warning is
// probably a mistake; an error is one.
const (
	Note Severity = iota
	Warning
	Error
)

// Severities are all of them, worst first.
var Severities = [...]Severity{Error, Warning, Note}

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// ParseSeverity reads a severity's name.
func ParseSeverity(text string) (Severity, error) {
	for _, s := range Severities {
		if s.String() == text {
			return s, nil
		}
	}
	return Note, fmt.Errorf("severity %q is none of error, warning, note", text)
}

// Finding is something a check has to say.
type Finding struct {
	Check    string // its name
	Severity Severity
	Place    policies.Place
	Message  string         // one sentence, lower case, no full stop: what is wrong and what to do
	Policy   policies.Ref   // or a staged policy, a network set, a tier
	See      policies.Place // the other place that the message speaks of, if any
	Waiver   *Waiver        // nil unless it is waived
	More     []string       // lines that tell more, where one sentence does not
}

// Check looks for one kind of mistake.
type Check struct {
	Name  string // as flags, waivers and the page in docs/checks call it
	Title string // one clause, for lists
	look  func(*look)
}

// Checks returns all checks, by name.
func Checks() []Check { return slices.Clone(checks) }

var checks = []Check{
	{"deprecated-kind", "a policy of a kind that another has replaced", deprecatedKind},
	{"egress-without-dns", "pods that may open connections but not look up a name", egressWithoutDNS},
	{"except-without-effect", "an except whose addresses are allowed all the same", exceptWithoutEffect},
	{"hidden-rule", "a rule that never decides, for a tier, policy or rule before it does", hiddenRule},
	{"inherited-label", "a pod with a label that to Calico is one of its namespace", inheritedLabel},
	{"missing-tier", "a policy in a tier that nobody defines", missingTier},
	{"negated-selector", "a denial of what lacks a label that leaves out what has no labels", negatedSelector},
	{"not-understood", "a policy of which Weir cannot tell what it does", notUnderstood},
	{"open-isolation", "a policy that looks like isolation and isolates nothing", openIsolation},
	{"peer-matches-nothing", "a peer that describes no pod, namespace or address", peerMatchesNothing},
	{"pod-range", "an ipBlock that takes in addresses of pods", podRange},
	{"priority-tie", "policies of one priority or order that disagree", priorityTie},
	{"rule-without-effect", "a rule that another one covers, or that matches nothing", ruleWithoutEffect},
	{"selects-nothing", "a policy that applies to no pod", selectsNothing},
	{"slow-selector", "a selector for which Calico has no index", slowSelector},
	{"split-selector", "namespaceSelector and podSelector as two peers where one was meant", splitSelector},
	{"staged-leftover", "a staged policy that would change nothing", stagedLeftover},
	{"unknown-port", "a port name that no pod in question has", unknownPort},
	{"unused-set", "a network set that no rule selects", unusedSet},
	{"unused-tier", "a tier without policies", unusedTier},
	{"waiver", "a waiver that has expired, or waives nothing", nil}, // Run looks at them last
}

// Options choose what Run looks at.
type Options struct {
	// Now is the moment at which waivers are or are not expired.
	Now time.Time
	// Only and Skip are names of checks: those that are run, all where it is
	// empty, and those that are not.
	Only, Skip []string
	// Others are names of checks that somebody else runs; hints know them.
	Others []string
}

// Result is what the checks found, in the order of places.
type Result struct {
	Checks   []Check // those that were run
	Findings []Finding
	Waived   []Finding // each with its Waiver
	Warnings []policies.Warning
}

// Worst returns the worst severity of the findings; false where there are none.
func (r *Result) Worst() (Severity, bool) {
	worst := Note
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst, len(r.Findings) > 0
}

// Run looks at the judge's model. It fails on names that are no check's.
func Run(j *reach.Judge, o Options) (*Result, error) {
	chosen, err := o.Checks()
	if err != nil {
		return nil, err
	}
	l := newLook(j)
	for _, c := range chosen {
		if c.look != nil {
			l.check = c.Name
			c.look(l)
		}
	}
	r := &Result{Checks: chosen, Warnings: j.Model().Warnings}
	r.Findings, r.Waived = waive(l, chosen, o.Now)
	for _, all := range [][]Finding{r.Findings, r.Waived} {
		slices.SortStableFunc(all, func(a, b Finding) int {
			return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Check, b.Check), strings.Compare(a.Message, b.Message))
		})
	}
	return r, nil
}

// Checks returns those that Run runs. It fails on names that are no check's.
func (o Options) Checks() ([]Check, error) {
	var names, unknown []string
	for _, c := range checks {
		names = append(names, c.Name)
	}
	for _, name := range slices.Concat(o.Only, o.Skip) {
		if !slices.Contains(names, name) {
			unknown = append(unknown, fmt.Sprintf("there is no check %q%s", name, policies.Near(name, slices.Concat(names, o.Others))))
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(unknown, "\n"))
	}
	return slices.DeleteFunc(Checks(), func(c Check) bool {
		return len(o.Only) > 0 && !slices.Contains(o.Only, c.Name) || slices.Contains(o.Skip, c.Name)
	}), nil
}

// look is what checks look at, and where they say what they found.
type look struct {
	*policies.Model
	judge    *reach.Judge
	parts    *reach.Parts
	subjects [2][][]int                                                        // Parts.Subject of each policy
	podsOf   map[string][]int                                                  // pods by namespace
	label    func(p *policies.Pod, key string) (value string, has, known bool) // as Calico sees it
	audit    func() *reach.Audit
	check    string
	found    []found
}

// found is a finding about the policy with this index, of those that can waive
// one; noPolicy for another object.
type found struct {
	policy int
	Finding
}

const noPolicy = -1

func newLook(j *reach.Judge) *look {
	l := &look{Model: j.Model(), judge: j, parts: j.Parts(), podsOf: map[string][]int{}, label: j.Model().Inherited()}
	l.audit = sync.OnceValue(func() *reach.Audit { return reach.NewAudit(j) })
	for i := range l.Pods {
		namespace := l.Pods[i].Ref.Namespace
		l.podsOf[namespace] = append(l.podsOf[namespace], i)
	}
	for _, d := range policies.Directions {
		for i := range l.Policies {
			l.subjects[d] = append(l.subjects[d], l.parts.Subject(i, d))
		}
	}
	return l
}

// report adds a finding of the check at work, and returns it for more details.
func (l *look) report(s Severity, at policies.Place, policy int, format string, args ...any) *Finding {
	return l.reportOf(s, at, policy, l.Policies[policy].Ref, format, args...)
}

// reportStaged is report for the i-th staged policy.
func (l *look) reportStaged(s Severity, i int, format string, args ...any) *Finding {
	staged := &l.Staged[i]
	return l.reportOf(s, staged.Policy.Place, len(l.Policies)+i, staged.Ref, format, args...)
}

func (l *look) reportOf(s Severity, at policies.Place, policy int, of policies.Ref, format string, args ...any) *Finding {
	l.found = append(l.found, found{policy, Finding{
		Check: l.check, Severity: s, Place: at, Message: fmt.Sprintf(format, args...), Policy: of,
	}})
	return &l.found[len(l.found)-1].Finding
}

// rules visits every rule of every policy that somebody wrote and that was
// understood.
func (l *look) rules(visit func(policy int, d policies.Direction, rule int, r *policies.Rule)) {
	for i := range l.Policies {
		if l.Policies[i].IsBuiltIn() {
			continue
		}
		for _, d := range policies.Directions {
			for k := range l.Policies[i].Rules[d] {
				visit(i, d, k, &l.Policies[i].Rules[d][k])
			}
		}
	}
}

// matches visits what policies that somebody wrote apply to, and all that their
// rules describe, part by part.
func (l *look) matches(visit func(policy int, m *policies.Match)) {
	for i := range l.Policies {
		if !l.Policies[i].IsBuiltIn() {
			visit(i, &l.Policies[i].Subject)
		}
	}
	l.rules(func(i int, _ policies.Direction, _ int, r *policies.Rule) {
		each := func(m *policies.Match) {
			eachPart(m, func(part *policies.Match) { visit(i, part) })
			for k := range m.Except {
				visit(i, &m.Except[k])
			}
		}
		for k := range r.Peers {
			each(&r.Peers[k])
		}
		if r.Own != nil {
			each(r.Own)
		}
	})
}

// subject returns the pods that a policy applies to in any direction.
func (l *look) subject(policy int) []int {
	if pods := l.subjects[policies.Ingress][policy]; len(pods) > 0 {
		return pods
	}
	return l.subjects[policies.Egress][policy]
}

// denies reports whether a policy's tier denies what no rule allows, so that a
// policy isolates the pods it selects.
func (l *look) denies(policy int) bool {
	return slices.ContainsFunc(l.Tiers, func(t policies.Tier) bool {
		return t.Name == l.Policies[policy].Tier && t.End == policies.ActionDeny
	})
}

// everywhere describes all pods of the namespaces that a match speaks of.
func everywhere(m *policies.Match) *policies.Match {
	return &policies.Match{Namespaces: m.Namespaces, Pods: selector.Everything()}
}

// selects reports whether a match is by labels of pods.
func selects(m *policies.Match) bool {
	return !m.Anyone && !m.Block.CIDR.IsValid() && !m.Namespaces.IsNothing()
}

// eachPart visits a match and those that it is made of, but for its exceptions.
func eachPart(m *policies.Match, visit func(*policies.Match)) {
	visit(m)
	for _, parts := range [][]policies.Match{m.Any, m.All} {
		for i := range parts {
			eachPart(&parts[i], visit)
		}
	}
}

// hasLabels reports whether the labels of a pod are in the selector of a match,
// or may be.
func (l *look) hasLabels(pod int, m *policies.Match) bool {
	_, possible := m.Pods.Test(l.labels(pod, m))
	return possible
}

// labels returns the labels of a pod as the selector of a match sees them.
func (l *look) labels(pod int, m *policies.Match) func(key string) (value string, has, known bool) {
	return func(key string) (string, bool, bool) {
		if m.Endpoints {
			return l.label(&l.Pods[pod], key)
		}
		value, has := l.Pods[pod].Labels[key]
		return value, has, true
	}
}

// overlap reports whether two ascending lists share something.
func overlap(a, b []int) bool {
	if len(b) < len(a) {
		a, b = b, a
	}
	return slices.ContainsFunc(a, func(i int) bool { return has(b, i) })
}

// covers reports whether all of the small set, in ascending order, is in the
// large one.
func covers(large, small []int) bool {
	return !slices.ContainsFunc(small, func(i int) bool { return !has(large, i) })
}

func has(ascending []int, i int) bool {
	_, found := slices.BinarySearch(ascending, i)
	return found
}

// workloads names the workloads of pods, the first few of them.
func (l *look) workloads(pods []int) string {
	var names []string
	for _, i := range pods {
		if name := l.Pods[i].Workload.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return firstOf(names)
}

// firstOf joins the first few of some names.
func firstOf(names []string) string {
	const most = 4
	if more := len(names) - most; more > 1 {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("%d more", more))
	}
	return enumerate(names, "and")
}

// enumerate joins names as "a, b and c".
func enumerate(names []string, conjunction string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " " + conjunction + " " + names[last]
}

// counted prints "1 pod" and "2 pods".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// numbers returns the ports that a rule means for a pod at the destination.
func numbers(r *policies.Rule, destination *policies.Pod) netset.Ports {
	ports := r.Ports
	for _, n := range r.Named {
		for _, c := range destination.Ports {
			if c.Name == n.Name && c.Protocol == n.Protocol {
				ports = ports.Union(netset.PortSpan(c.Protocol, c.Number, c.Number))
			}
		}
	}
	return ports
}
