package reach_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// edited returns a world that is one edit, or a few, away.
func edited(d dice, c *cluster) *cluster {
	e := *c
	e.pods, e.deployments, e.policies, e.nodes, e.namespaces = slices.Clone(c.pods), slices.Clone(c.deployments), slices.Clone(c.policies), slices.Clone(c.nodes), slices.Clone(c.namespaces)
	for edit := range d.between(1, 3) {
		switch form := d.between(0, 9); {
		case form == 9 && len(e.namespaces) > 0:
			i := d.between(0, len(e.namespaces)-1)
			e.namespaces[i].Labels = drawLabels(d, "team", "env")
		case form == 8 && len(e.nodes) > 0:
			e.nodes = e.nodes[:len(e.nodes)-1]
		case form == 7 && len(e.pods) > 0:
			i := d.between(0, len(e.pods)-1)
			pod := drawPod(d, e.pods[i].Namespace, i)
			pod.Name, pod.OwnerReferences = e.pods[i].Name, e.pods[i].OwnerReferences
			e.pods[i] = pod
		case form == 6 && len(e.deployments) > 0:
			i := d.between(0, len(e.deployments)-1)
			deployment := drawDeployment(d, e.deployments[i].Namespace, i)
			deployment.Name = e.deployments[i].Name
			e.deployments[i] = deployment
		case form == 5:
			e.pods = append(e.pods, drawPod(d, pick(d, "a", "b"), 20+edit))
		case form >= 3 && len(e.policies) > 0:
			i := d.between(0, len(e.policies)-1)
			policy := drawPolicy(d, e.policies[i].Namespace)
			policy.Name = e.policies[i].Name
			e.policies[i] = policy
		case form >= 2 && len(e.policies) > 0:
			i := d.between(0, len(e.policies)-1)
			e.policies = slices.Delete(e.policies, i, i+1)
		default:
			policy := drawPolicy(d, pick(d, "a", "b"))
			policy.Name = fmt.Sprintf("new-%d", edit)
			e.policies = append(e.policies, policy)
		}
	}
	return &e
}

func pairOfJudges(t *rapid.T, base, head *cluster) (*reach.Judge, *reach.Judge) {
	return reach.Pair(readModel(t, base.String(), base.podCIDRs), readModel(t, head.String(), head.podCIDRs), reach.Options{IgnorePodBlocks: base.ignoreBlocks})
}

// turn is a change of verdict between two peers.
type turn struct {
	pairOf
	before, after policies.Verdict
}

// A diff is the difference of the naive answers, pod by pod, gathered by
// workload.
func TestDiffIsTheDifferenceOfPointAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		base := drawCluster(d)
		head := edited(d, base)
		b, h := pairOfJudges(t, base, head)
		change := diff.Compare(b, h)
		before, after := byRef(base), byRef(head)
		for _, q := range []point{{netset.TCP, 80}, {netset.UDP, 53}, pick(d, points[:30]...)} {
			want := map[turn]bool{}
			for from := range joined(before, after) {
				for to := range joined(before, after) {
					s, d := before[from], before[to]
					s2, d2 := after[from], after[to]
					if from == to && cmp.Or(replicasOf(s), 1) <= 1 && cmp.Or(replicasOf(s2), 1) <= 1 {
						continue
					}
					was, is := judgedBy(base, s, d, q), judgedBy(head, s2, d2, q)
					if was != is {
						want[turn{pairOf{workloadOf(s, s2), workloadOf(d, d2)}, was, is}] = true
					}
				}
			}
			got := map[turn]bool{}
			for _, x := range change.Differences {
				if !x.From.IsOutside() && !x.To.IsOutside() && x.Ports.Contains(q.protocol, q.port) {
					got[turn{pairOf{keyOf(*x.From), keyOf(*x.To)}, x.Before, x.After}] = true
				}
			}
			if !gocmp.Equal(want, got) {
				t.Fatalf("on %v: got %v, want %v; base\n%s\nhead\n%s", q, got, want, base, head)
			}
			checkOutsideTurns(t, base, head, change, q)
		}
	})
}

func checkOutsideTurns(t *rapid.T, base, head *cluster, change *diff.Change, q point) {
	before, after := byRef(base), byRef(head)
	for _, text := range outsiders {
		a := netip.MustParseAddr(text)
		if slices.ContainsFunc(base.podCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		want, got := map[turn]bool{}, map[turn]bool{}
		for ref := range joined(before, after) {
			s, s2 := before[ref], after[ref]
			if was, is := judgedBy(base, s, outsider(a), q), judgedBy(head, s2, outsider(a), q); was != is {
				want[turn{pairOf{workloadOf(s, s2), ""}, was, is}] = true
			}
			if was, is := judgedBy(base, outsider(a), s, q), judgedBy(head, outsider(a), s2, q); was != is {
				want[turn{pairOf{"", workloadOf(s, s2)}, was, is}] = true
			}
		}
		holds := func(p *policies.Peer) bool {
			return netset.Block{CIDR: *p.CIDR, Except: p.Except}.Addresses().Contains(a)
		}
		for _, x := range change.Differences {
			switch {
			case !x.Ports.Contains(q.protocol, q.port):
			case x.To.IsOutside() && holds(x.To):
				got[turn{pairOf{keyOf(*x.From), ""}, x.Before, x.After}] = true
			case x.From.IsOutside() && holds(x.From):
				got[turn{pairOf{"", keyOf(*x.To)}, x.Before, x.After}] = true
			}
		}
		if !gocmp.Equal(want, got) {
			t.Fatalf("%v on %v: got %v, want %v; base\n%s\nhead\n%s", a, q, got, want, base, head)
		}
	}
}

func byRef(c *cluster) map[policies.Ref]*party {
	all := map[policies.Ref]*party{}
	for _, p := range onlyPods(c.parties()) {
		all[p.ref] = p
	}
	return all
}

func joined(a, b map[policies.Ref]*party) map[policies.Ref]bool {
	all := map[policies.Ref]bool{}
	for _, m := range []map[policies.Ref]*party{a, b} {
		for ref := range m {
			all[ref] = true
		}
	}
	return all
}

func replicasOf(p *party) int {
	if p == nil {
		return 0
	}
	return p.replicas
}

func workloadOf(a, b *party) string {
	if a == nil {
		a = b
	}
	return keyOf(a.peerOf(reach.ByWorkload))
}

// judgedBy is the naive verdict in one world; deny where the world lacks an end.
func judgedBy(c *cluster, from, to *party, q point) policies.Verdict {
	if from == nil || to == nil {
		return policies.Deny
	}
	return c.between(from, to, q.protocol, q.port)
}

func TestLawsOfDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		base := drawCluster(d)
		head := edited(d, base)

		same := reach.Options{IgnorePodBlocks: base.ignoreBlocks}
		b, again := reach.Pair(readModel(t, base.String(), base.podCIDRs), readModel(t, shuffled(d, base), base.podCIDRs), same)
		if nothing := diff.Compare(b, again); len(nothing.Differences)+len(nothing.Groups)+len(nothing.Policies)+len(nothing.NewWorkloads)+len(nothing.GoneWorkloads) > 0 {
			t.Fatalf("a world differs from itself: %+v in\n%s", nothing, base)
		}
		there := diff.Compare(pairOfJudges(t, base, head))
		back := diff.Compare(pairOfJudges(t, head, base))
		if a, b := lines(there.Differences, false), lines(back.Differences, true); !slices.Equal(a, b) {
			t.Fatalf("one way\n%s\nthe other\n%s\nbase\n%s\nhead\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"), base, head)
		}
		if !gocmp.Equal(there.NewWorkloads, back.GoneWorkloads) || !gocmp.Equal(there.GoneWorkloads, back.NewWorkloads) {
			t.Fatalf("new and gone workloads do not mirror: %v, %v", there, back)
		}
		if problem := expand(there); problem != "" {
			t.Fatalf("%s\nbase\n%s\nhead\n%s", problem, base, head)
		}
	})
}

// lines prints differences, sorted; turned round they go from after to before.
func lines(all []diff.Difference, turned bool) []string {
	var text []string
	for _, x := range all {
		if turned {
			x.Before, x.After = x.After, x.Before
		}
		text = append(text, fmt.Sprint(keyOf(*x.From), " ", keyOf(*x.To), " ", x.Ports, " ", x.Before, " ", x.After))
	}
	slices.Sort(text)
	return text
}

// expand says where the groups of a change are not its differences.
func expand(c *diff.Change) string {
	open := map[string]bool{}
	for _, line := range lines(c.Differences, false) {
		open[line] = true
	}
	for i, g := range c.Groups {
		pairs := 0
		for _, from := range g.From {
			for _, to := range g.To {
				line := lines([]diff.Difference{{From: &from, To: &to, Ports: g.Ports, Before: g.Before, After: g.After}}, false)[0]
				switch {
				case open[line]:
					delete(open, line)
					pairs++
				case keyOf(from) != keyOf(to):
					return fmt.Sprintf("group %d holds %s, which is no difference, or one of another group too", i, line)
				}
			}
		}
		if pairs != g.Pairs {
			return fmt.Sprintf("group %d says %d pairs and holds %d", i, g.Pairs, pairs)
		}
		for _, x := range []struct {
			decision policies.Decision
			want     policies.Verdict
		}{{g.Was, g.Before}, {g.Is, g.After}} {
			if x.decision.Verdict == policies.Undecided {
				continue
			}
			if x.decision.Verdict != x.want || !among(x.decision.From, g.From) || !among(x.decision.To, g.To) {
				return fmt.Sprintf("group %d, from %v to %v on %v, %v to %v: its example is %v to %v, %v", i, g.From, g.To, g.Ports, g.Before, g.After, x.decision.From, x.decision.To, x.decision.Verdict)
			}
		}
	}
	if len(open) > 0 {
		return fmt.Sprintf("no group holds %v", open)
	}
	return ""
}

// among reports whether a peer is a pod or an address of one of the peers.
func among(p policies.Peer, peers []policies.Peer) bool {
	return slices.ContainsFunc(peers, func(q policies.Peer) bool {
		if p.IsOutside() {
			return p.String() == q.String()
		}
		return p.Kind == q.Kind && p.Namespace == q.Namespace && p.Name == q.Name
	})
}

func TestAnAllowRuleTakesNothingAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		base := drawCluster(d)
		if len(base.policies) == 0 {
			return
		}
		head := *base
		head.policies = slices.Clone(base.policies)
		p := &head.policies[d.between(0, len(head.policies)-1)]
		extra := drawPolicy(d, p.Namespace)
		p.Spec.Ingress = slices.Concat(p.Spec.Ingress, extra.Spec.Ingress)
		// Without policy types a first egress rule would begin to deny egress.
		if len(p.Spec.Egress) > 0 || len(p.Spec.PolicyTypes) > 0 {
			p.Spec.Egress = slices.Concat([]networkingv1.NetworkPolicyEgressRule{}, p.Spec.Egress, extra.Spec.Egress)
		}
		for _, x := range diff.Compare(pairOfJudges(t, base, &head)).Differences {
			if x.Before == policies.Allow || x.After == policies.Deny {
				t.Fatalf("%v to %v on %v turns from %v to %v; base\n%s\nhead\n%s", x.From, x.To, x.Ports, x.Before, x.After, base, &head)
			}
		}
	})
}

func TestOrderAndNamesMakeNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCluster(d)
		listing := func(text string) []string {
			var all []string
			for x := range reach.New(readModel(t, text, c.podCIDRs), reach.Options{}).Connections(reach.Listing{By: reach.ByPod}) {
				all = append(all, fmt.Sprint(keyOf(*x.From), " to ", keyOf(*x.To), ": ", x.Allow, "; ", x.Unknown))
			}
			return all
		}
		want := listing(c.String())
		if diff := gocmp.Diff(want, listing(shuffled(d, c))); diff != "" {
			t.Fatalf("another order of the documents: %s\n%s", diff, c)
		}
		// Back to front, so that the pods sort differently.
		var there, back []string
		for i := range 30 {
			old, renamed := fmt.Sprintf("name: w%d\n", i), fmt.Sprintf("name: z%d\n", 30-i)
			there = append(there, old, renamed)
			back = append(back, fmt.Sprintf("/z%d ", 30-i), fmt.Sprintf("/w%d ", i), fmt.Sprintf("/z%d:", 30-i), fmt.Sprintf("/w%d:", i), fmt.Sprintf("pod z%d)", 30-i), fmt.Sprintf("pod w%d)", i))
		}
		renamed := listing(strings.NewReplacer(there...).Replace(c.String()))
		for i := range renamed {
			renamed[i] = strings.NewReplacer(back...).Replace(renamed[i])
		}
		slices.Sort(want)
		slices.Sort(renamed)
		if diff := gocmp.Diff(want, renamed); diff != "" {
			t.Fatalf("other names of pods: %s\n%s", diff, c)
		}
	})
}

// A pod on its node's network loses the pods on other nodes, although it keeps
// one of the same workload on its own.
func TestDiffSeesPodsNodeByNode(t *testing.T) {
	base, head := modelWith(t, ""), modelWith(t, `data {podSelector: {}}`)
	for _, x := range diff.Compare(reach.Pair(base, head, reach.Options{})).Differences {
		if keyOf(*x.From) == "Pod data/agent" && keyOf(*x.To) == "StatefulSet data/db" {
			if x.Before != policies.Allow || x.After != policies.Deny || x.Ports.String() != "any" {
				t.Errorf("data/agent to data/db turns from %v to %v on %v", x.Before, x.After, x.Ports)
			}
			return
		}
	}
	t.Error("data/agent to data/db is no difference")
}
