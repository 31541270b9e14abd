package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/simulator"
)

func newQuery(s streams) *cobra.Command {
	in, out, flows := input{streams: s}, output{streams: s, kind: report.KindValue}, flowFiles{}
	var steps uint64
	c := &cobra.Command{
		Use:   "query [-f SRC] EXPRESSION",
		Short: "Ask what policies and rules concern, and which do nothing",
		Long: `Ask one of the questions below, or anything else in an expression of CEL, the
Common Expression Language, about these values:

  policies, workloads, pods, namespaces, services, nodes
  connections            what weir reach lists
  flows                  what was recorded, with --flows
  reach(from, to, port)  allow, deny or unknown
  explain(from, to, port), selects(policy, pod), maySelect(policy, pod)

docs/query.md says what each has, and shows examples. The exit status is 1 when
the expression is false, deny or unknown.`,
		Example: `  weir query -f examples/shop/deploy 'connections.filter(c, c.from.namespace != c.to.namespace && c.to.labels["app"] == "db")'
  weir query -f examples/shop/deploy 'pods.filter(p, !p.ingressIsolated)' -o json
  weir query -f examples/shop/deploy 'reach("storefront/web", "payments/db", 5432) == deny'
  weir query -f examples/shop/deploy --flows examples/shop/flows.jsonl.gz 'flows.filter(f, f.verdict == deny)' -o csv`,
	}
	c.AddCommand(
		newQueryPolicies(s),
		newQueryPeers(s),
		newQuerySelector(s),
		newQueryExposure(s),
		newQueryUnused(s),
		newQueryShadowed(s),
		newQueryRedundant(s),
		newQueryCoverage(s),
		newQueryPath(s),
	)
	group(c)
	in.addSourceTo(c)
	out.addTo(c)
	flows.addTo(c)
	c.Flags().Uint64Var(&steps, "max-steps", expression.Steps, "how many `steps` the expression may take; twenty million are about a second")
	noVerb, help := c.Args, c.RunE
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case strings.TrimSpace(args[0]) == "":
			return errors.New("the expression is empty; write one as in: weir query 'pods.filter(p, p.node == \"n1\")'")
		case isWord(args[0]) && !slices.Contains(expression.Variables(), args[0]):
			return noVerb(c, args)
		case len(args) > 1:
			return errors.New("query takes one expression; put it in quotes, as in: weir query 'pods.filter(p, p.node == \"n1\")'")
		}
		return nil
	}
	c.SetFlagErrorFunc(func(of *cobra.Command, err error) error {
		if args := of.Flags().Args(); of == c && len(args) > 0 && isWord(args[0]) {
			return noVerb(c, args) // whose flags these are
		}
		return c.Parent().FlagErrorFunc()(of, err)
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return help(c, args)
		}
		x, err := expression.Compile(args[0])
		if err != nil {
			return err
		}
		if x.Uses("flows") && len(flows.patterns) == 0 {
			return errors.New("the expression uses flows; name recorded flows as in --flows 'flows/*.jsonl.gz'")
		}
		if err := errors.Join(out.check(), readOnce(slices.Concat(in.files, flows.patterns)...)); err != nil {
			return err
		}
		j, err := in.judge(c.Context(), nil)
		if err != nil {
			return err
		}
		var recorded expression.Recorded
		if x.Uses("flows") {
			from, err := flows.open(c.Context(), s)
			if err != nil {
				return err
			}
			if _, err := from.Scan(c.Context(), &simulator.Filter{}, func(f *policies.Flow) error { recorded.Flows = append(recorded.Flows, *f); return nil }); err != nil {
				return err
			}
			recorded.Find = simulator.Finder(j)
		}
		v, err := x.Eval(c.Context(), expression.NewWorld(j, recorded), steps)
		if err != nil {
			return err
		}
		err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
			return report.WriteValue(w, f, x, v, j.Model().Warnings, style)
		})
		if err == nil && slices.Contains([]expression.Value{false, policies.Deny, policies.Unknown}, v) {
			err = errNo
		}
		return err
	}
	return c
}

// isWord reports whether an argument is more likely the name of a question than
// an expression.
func isWord(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') })
}

// question is what all questions share: where they read and how they write.
type question struct {
	in     input
	out    output
	no     bool     // the answer is a no
	stdins []string // more that may name standard input
}

func newQuestion(s streams, c *cobra.Command) *question {
	q := &question{in: input{streams: s}, out: output{streams: s, kind: report.KindAnswer}}
	q.in.addSourceTo(c)
	q.out.addTo(c)
	return q
}

// ask loads the world, lets answer answer, and writes what it says.
func (q *question) ask(ctx context.Context, answer func(*reach.Judge) (query.Answer, error)) error {
	if err := errors.Join(q.out.check(), readOnce(slices.Concat(q.in.files, q.stdins)...)); err != nil {
		return err
	}
	j, err := q.in.judge(ctx, nil)
	if err != nil {
		return err
	}
	a, err := answer(j)
	if err != nil {
		return err
	}
	err = q.out.write(func(w io.Writer, f report.Format, style report.Style) error {
		return report.WriteAnswer(w, f, &a, j.Model().Warnings, style)
	})
	if err == nil && q.no {
		err = errNo
	}
	return err
}

// newPlainQuery returns a question that takes nothing but a source.
func newPlainQuery(s streams, c *cobra.Command, answer func(*reach.Judge) query.Answer) *cobra.Command {
	q := newQuestion(s, c)
	c.Args = takes(0, 0, fmt.Sprintf("query %s takes no arguments; name the source as in: weir query %s -f SRC", c.Name(), c.Name()))
	c.RunE = func(c *cobra.Command, _ []string) error {
		return q.ask(c.Context(), func(j *reach.Judge) (query.Answer, error) { return answer(j), nil })
	}
	return c
}

// newQueryOf returns a question that is asked of one thing, which --of names.
func newQueryOf(s streams, c *cobra.Command, what, example string, answer func(j *reach.Judge, of string) (query.Answer, error)) *cobra.Command {
	q := newQuestion(s, c)
	of := c.Flags().String("of", "", "the `"+what+"`")
	c.Args = takes(0, 0, fmt.Sprintf("query %s takes no arguments; name the %s as in: weir query %s --of %s", c.Name(), what, c.Name(), example))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *of == "" {
			return fmt.Errorf("query %s needs a %s; name it as in --of %s", c.Name(), what, example)
		}
		return q.ask(c.Context(), func(j *reach.Judge) (query.Answer, error) {
			a, err := answer(j, *of)
			if err != nil {
				err = fmt.Errorf("--of: %w", err)
			}
			return a, err
		})
	}
	return c
}

func newQueryPolicies(s streams) *cobra.Command {
	return newQueryOf(s, &cobra.Command{
		Use:   "policies --of PEER",
		Short: "Say which policies and rules concern a peer",
		Long: `Say which policies select a peer, or host endpoints of its node, rule by rule in
the order of evaluation, and which rules of any policy match it at the other end
of a connection. PEER is namespace/pod, namespace/workload, namespace/kind/name, a
Service (namespace/svc/name), a node (node/name), a host endpoint
(hostendpoint/name), a network set (namespace/networkset/name or
globalnetworkset/name), an address, a CIDR, or world.`,
		Example: `  weir query policies -f examples/shop/deploy --of payments/db
  weir query policies -f examples/shop/deploy --of 203.0.113.7 -o json`,
	}, "peer", "shop/web", func(j *reach.Judge, of string) (query.Answer, error) {
		t, err := j.Model().Find(of)
		if err != nil {
			return query.Answer{}, err
		}
		return query.PoliciesOf(reach.NewAudit(j), t), nil
	})
}

func newQueryPeers(s streams) *cobra.Command {
	return newQueryOf(s, &cobra.Command{
		Use:   "peers --of POLICY",
		Short: "Say whom a policy and each of its rules concern",
		Long: `Say what a policy applies to, pods by workload and host endpoints, and which
peers each of its rules matches, on which ports. POLICY is namespace/name, a
cluster-wide policy's name, or either with its kind in front, as in
NetworkPolicy/shop/db, CalicoNetworkPolicy/shop/db or StagedNetworkPolicy/shop/db:
of a staged policy, what would be so if it were enforced. Profile/name is the
rules of a profile, HostEndpoint/name all that a host endpoint does by itself.`,
		Example: `  weir query peers -f examples/shop/deploy --of payments/db
  weir query peers -f examples/shop/deploy --of payments/db -o csv
  weir query peers -f examples/staged --of StagedNetworkPolicy/shop/web`,
	}, "policy", "shop/db", func(j *reach.Judge, of string) (query.Answer, error) {
		policy, err := findPolicy(j.Model(), of)
		if err != nil {
			return query.Answer{}, err
		}
		return query.PeersOf(j, policy), nil
	})
}

func findPolicy(m *policies.Model, text string) (query.Named, error) {
	found := query.Find(m, text)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		var names []string
		for i := range m.Policies {
			if !m.Policies[i].IsBuiltIn() {
				names = append(names, m.Policies[i].Ref.String())
			}
		}
		for i := range m.Staged {
			names = append(names, m.Staged[i].Ref.String())
		}
		return query.Named{}, fmt.Errorf("there is no policy %q%s", text, policies.Near(text, names))
	}
	return query.Named{}, fmt.Errorf("%q is ambiguous: say %s or %s", text, found[0].Ref.Full(), found[1].Ref.Full())
}

func newQuerySelector(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "selector EXPRESSION",
		Short: "Say what a label selector selects now",
		Long: `Say which pods, by workload, and which namespaces a label selector selects. It
is written as for kubectl, app=web,tier in (a,b),!old, or as for Calico,
app == "web" && tier in {"a", "b"} && !has(old). No text is both but the empty
one, which is kubectl's unless --syntax says otherwise. A selector of Calico sees
the labels that pods inherit, too, and selects network sets and host endpoints;
namespaces are those that it selects as a namespaceSelector.`,
		Example: `  weir query selector -f examples/shop/deploy app=db
  weir query selector -f examples/shop/deploy 'app in (web,api),!canary' -o json
  weir query selector -f examples/shop/deploy 'app == "db" || pcns.team contains "pay"'`,
		Args: takes(1, 1, "query selector takes one selector, as in: weir query selector 'app=web,!old'"),
	}
	q := newQuestion(s, c)
	syntax := c.Flags().String("syntax", "any", "how the selector is written: `kubernetes`, calico, or any that can read it")
	c.RunE = func(c *cobra.Command, args []string) error {
		answer, err := selectorQuestion(args[0], *syntax)
		if err != nil {
			return err
		}
		return q.ask(c.Context(), func(j *reach.Judge) (query.Answer, error) { return answer(j), nil })
	}
	return c
}

// selectorQuestion reads a selector as syntax says, and returns what asks for it.
func selectorQuestion(text, syntax string) (func(*reach.Judge) query.Answer, error) {
	plain, plainErr := selector.Parse(text)
	calico, calicoErr := selector.ParseCalico(text)
	if calicoErr == nil && calico.HasGlobal() && !calico.IsGlobal() {
		calicoErr = fmt.Errorf("selector %q: global() stands alone, or not at all", text)
	}
	if plainErr != nil && calicoErr != nil && syntax == "any" {
		return nil, errors.Join(fmt.Errorf("as kubectl writes it: %w", plainErr), fmt.Errorf("as Calico writes it: %w", calicoErr))
	}
	switch {
	case syntax == "kubernetes" || syntax == "any" && plainErr == nil:
		return func(j *reach.Judge) query.Answer { return query.Selected(j, plain) }, plainErr
	case syntax == "calico" || syntax == "any":
		return func(j *reach.Judge) query.Answer { return query.SelectedByCalico(j, calico) }, calicoErr
	}
	return nil, fmt.Errorf("--syntax: %q is none of kubernetes, calico, any", syntax)
}

func newQueryExposure(s streams) *cobra.Command {
	return newPlainQuery(s, &cobra.Command{
		Use:   "exposure",
		Short: "Say what is open to outside, from outside, and to what could come",
		Long: `Say which workloads addresses outside can reach, and which can reach them. Then,
who could come to reach or be reached: any pod of a new namespace, and pods that
a rule's selectors describe although no such pod is there, or that any new
namespace could claim by its labels, or addresses that are put into a network set
that has none, where they would have more than that.`,
		Example: `  weir query exposure -f examples/shop/deploy
  weir query exposure -f examples/shop/deploy -o csv`,
	}, query.ExposureOf)
}

func newQueryUnused(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "unused",
		Short: "List policies that select nothing and rules that match nothing",
		Long: `List policies that select nothing, rules of the others that match nothing, and
network sets that no rule finds. With --flows, list the rules too that decided none
of the recorded flows; and with --days, those that decided none in the last days
before the newest of them, with when each last did.`,
		Example: `  weir query unused -f examples/shop/deploy
  weir query unused -f examples/shop/deploy --flows examples/shop/flows.jsonl.gz --days 7`,
		Args: takes(0, 0, "query unused takes no arguments; name the source as in: weir query unused -f SRC"),
	}
	q, flows := newQuestion(s, c), flowFiles{}
	flows.addTo(c)
	days := c.Flags().Int("days", 0, "also list rules that decided no flow in so many `days` before the newest; 0 is all of them")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *days < 0 || *days > 0 && len(flows.patterns) == 0 {
			return errors.New("--days counts back from the newest recorded flow, so it is not below 0 and needs --flows")
		}
		var recorded recording
		if len(flows.patterns) > 0 {
			var err error
			if recorded, err = flows.open(c.Context(), s); err != nil {
				return err
			}
		}
		q.stdins = flows.patterns
		return q.ask(c.Context(), func(j *reach.Judge) (query.Answer, error) {
			audit := reach.NewAudit(j)
			if recorded == nil {
				return query.UnusedRules(audit, nil, time.Time{}), nil
			}
			usage := simulator.NewUsage(j)
			if _, err := recorded.Scan(c.Context(), &simulator.Filter{}, func(f *policies.Flow) error { usage.Add(*f); return nil }); err != nil {
				return query.Answer{}, err
			}
			var since time.Time
			if *days > 0 {
				since = usage.Newest().AddDate(0, 0, -*days)
			}
			return query.UnusedRules(audit, usage.Of, since), nil
		})
	}
	return c
}

func newQueryShadowed(s streams) *cobra.Command {
	return newPlainQuery(s, &cobra.Command{
		Use:   "shadowed",
		Short: "List rules that never decide, with the rules that hide them",
		Long: `List rules that match something and never decide, because rules before them
settle all of it. Rules of NetworkPolicies have no order; of two that allow the
same, the one whose policy's name comes later is listed.`,
		Example: `  weir query shadowed -f examples/shop/deploy
  weir query shadowed -f examples/shop/deploy -o json`,
	}, func(j *reach.Judge) query.Answer { return query.ShadowedRules(reach.NewAudit(j)) })
}

func newQueryRedundant(s streams) *cobra.Command {
	return newPlainQuery(s, &cobra.Command{
		Use:   "redundant",
		Short: "List rules and policies that could go without a change",
		Long: `List policies, and rules of the others, without which nothing would be decided
otherwise: each by itself, for of two that do the same either may go, not both.
Rules that log have an effect, and are not listed.`,
		Example: `  weir query redundant -f examples/shop/deploy
  weir query redundant -f examples/shop/deploy -o csv`,
	}, func(j *reach.Judge) query.Answer { return query.RedundantRules(reach.NewAudit(j)) })
}

func newQueryCoverage(s streams) *cobra.Command {
	return newPlainQuery(s, &cobra.Command{
		Use:   "coverage",
		Short: "List pods that no policy isolates, in each direction",
		Long: `List the pods, by workload, that no policy isolates in a direction: whatever no
rule forbids is open to them. Where there are host endpoints, list the nodes too.`,
		Example: `  weir query coverage -f examples/shop/deploy
  weir query coverage -f examples/shop/deploy -o json`,
	}, query.Uncovered)
}

func newQueryPath(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "path FROM TO [PORT]",
		Short: "Show every decision on the way of a connection",
		Long: `Show what a connection meets on its way: the Service that leads it on, the
decision at its source's egress, the nodes it leaves and comes to with what their
host endpoints decide, and the decision at its destination's ingress. FROM, TO and PORT are as for weir explain; without
PORT, it is any. The exit status is 0 when the connection is allowed, and 1 when
it is denied or the answer is unknown.`,
		Example: `  weir query path -f examples/shop/deploy payments/api payments/svc/db 5432
  weir query path -f examples/shop/deploy payments/api payments/svc/db -o json`,
		Args: takes(2, 3, "query path takes FROM, TO and perhaps PORT, as in: weir query path -f SRC shop/web shop/svc/db 5432"),
	}
	q := newQuestion(s, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		port := "any"
		if len(args) == 3 {
			port = args[2]
		}
		return q.ask(c.Context(), func(j *reach.Judge) (query.Answer, error) {
			from, errFrom := j.Model().Find(args[0])
			to, errTo := j.Model().Find(args[1])
			on, errPort := policies.ParsePort(port)
			if err := errors.Join(errFrom, errTo, errPort); err != nil {
				return query.Answer{}, err
			}
			a, verdict, err := query.PathOf(j, reach.Question{From: from, To: to, Port: on})
			q.no = err == nil && verdict != policies.Allow
			return a, err
		})
	}
	return c
}
