package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

func newConvert(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindConversion}
	var to, world string
	c := &cobra.Command{
		Use:   "convert --to KIND [NAME...] [-f SRC]",
		Short: "Write policies as another kind that decides alike",
		Long: `Write policies as another kind, as YAML, and show that all is decided as before:

  --to clusternetworkpolicy   of AdminNetworkPolicy and BaselineAdminNetworkPolicy
  --to calico                 Calico NetworkPolicy, of NetworkPolicy
  --to networkpolicy          of Calico NetworkPolicy, where it only allows

NAME is namespace/name, a cluster-wide policy's name, or either with its kind in
front; without any, all policies of these kinds are meant. A policy of which
anything would be lost is not converted, and what would be lost is told. With
the others in the place of what they were made of, the world of -f, or of
--world, is decided again; where that gives another answer, nothing is written.

What became of each policy is told on standard error, or with -o text or json.
The exit status is 1 when a policy could not be converted.`,
		Example: `  weir convert --to clusternetworkpolicy -f examples/convert/admin.yaml
  weir convert --to calico -f examples/shop/deploy payments/db -o yaml=calico.yaml -o text
  weir convert --to networkpolicy -f examples/convert/calico.yaml -o json`,
		RunE: func(c *cobra.Command, names []string) error {
			if err := errors.Join(checkTarget(to), out.check(), readOnce(append(slices.Clone(in.files), world)...)); err != nil {
				return err
			}
			answer, err := in.convert(c.Context(), k8s.Target(to), world, names)
			if err != nil {
				return err
			}
			if err := out.writeConversion(answer); err != nil {
				return err
			}
			if !answer.IsWhole() {
				return errNo
			}
			return nil
		},
	}
	in.addSourceTo(c)
	out.addTo(c)
	f := c.Flags()
	f.StringVar(&to, "to", "", "the `kind` to write: "+strings.Join(targets(), ", "))
	complete(c, "to", targets()...)
	f.StringVar(&world, "world", "", "a `source` of the pods, namespaces and services that the policies meet (default: those of -f)")
	return c
}

func targets() []string {
	var names []string
	for _, t := range k8s.Targets {
		names = append(names, string(t))
	}
	return names
}

func checkTarget(to string) error {
	switch {
	case to == "":
		return errors.New("convert needs a kind to write; name it as in: weir convert --to clusternetworkpolicy")
	case !slices.Contains(targets(), to):
		return fmt.Errorf("--to: %q is none of %s", to, strings.Join(targets(), ", "))
	}
	return nil
}

// convert converts the policies of -f that have these names, or all of them, and
// compares.
func (i *input) convert(ctx context.Context, to k8s.Target, world string, names []string) (*report.Conversion, error) {
	o, errOptions := i.options()
	l, errLoader := i.loader()
	if err := errors.Join(errOptions, errLoader); err != nil {
		return nil, err
	}
	sources := i.files
	if len(sources) == 0 {
		sources = []string{"."}
	}
	wanted := func(r policies.Ref) bool {
		return len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return isNamed(r, name) })
	}
	converted, err := l.Convert(ctx, to, "converted.yaml", wanted, sources...)
	var meets *policies.Model
	if world != "" {
		var errWorld error
		meets, errWorld = l.Load(ctx, world)
		err = errors.Join(err, errWorld)
	}
	if err != nil {
		return nil, err
	}
	if err := checkNames(converted, to, names, sources); err != nil {
		return nil, err
	}
	before, after := converted.Before, converted.After
	if meets != nil {
		before, after = k8s.WithWorldOf(before, meets), k8s.WithWorldOf(after, meets)
	}
	base, head := reach.Pair(before, after, o)
	return &report.Conversion{
		To: string(to), Policies: converted.Policies, YAML: converted.YAML, Change: diff.CompareAll(base, head),
		Compared: pairs(before), Calico: to != k8s.ToClusterNetworkPolicy,
	}, nil
}

// isNamed reports whether a name means the policy.
func isNamed(r policies.Ref, name string) bool {
	return name == r.String() || strings.EqualFold(name, r.Full())
}

// checkNames fails on names that mean no policy that can be converted, and where
// there is none at all.
func checkNames(c *k8s.Conversion, to k8s.Target, names, sources []string) error {
	if len(names) == 0 && len(c.Policies) == 0 {
		return fmt.Errorf("there is no %s in %s to convert", to.Kinds(), strings.Join(sources, ", "))
	}
	var errs []error
	for _, name := range names {
		if slices.ContainsFunc(c.Policies, func(p policies.Conversion) bool { return isNamed(p.From, name) }) {
			continue
		}
		var near []string
		for i := range c.Before.Policies {
			if r := c.Before.Policies[i].Ref; to.Takes(r) {
				near = append(near, r.String())
			}
		}
		errs = append(errs, fmt.Errorf("there is no %s %q to convert%s", to.Kinds(), name, policies.Near(name, near)))
	}
	return errors.Join(errs...)
}

// pairs counts the pairs of workloads, and of a workload and the outside, that
// connections are possible between.
func pairs(m *policies.Model) int {
	pods := map[policies.Ref]int{}
	for i := range m.Pods {
		pods[m.Pods[i].Workload] += m.Pods[i].Replicas
	}
	n := len(pods) * (len(pods) + 1) // to each other, from outside and to it
	for _, replicas := range pods {
		if replicas > 1 {
			n++ // to another of its own
		}
	}
	return n
}

// writeConversion writes the answer in every form asked for, the manifests only
// where there are any, and what became of the policies at least to standard error.
func (o *output) writeConversion(answer *report.Conversion) error {
	var told bool
	o.wants = slices.DeleteFunc(o.wants, func(want string) bool {
		format, _, _ := strings.Cut(want, "=")
		told = told || format != string(report.YAML)
		return format == string(report.YAML) && len(answer.Manifests()) == 0
	})
	err := o.write(func(w io.Writer, f report.Format, style report.Style) error {
		return report.WriteConversion(w, f, answer, style)
	})
	if !told {
		err = errors.Join(err, report.WriteConversion(o.err, report.Text, answer, report.Style{}))
	}
	return err
}
