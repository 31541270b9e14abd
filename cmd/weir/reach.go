package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

func newReach(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindReachability}
	var n narrowing
	c := &cobra.Command{
		Use:   "reach [SRC...]",
		Short: "List every connection that policies allow",
		Long: `List every connection that is allowed, or for which the answer is unknown, over
TCP, UDP and SCTP. A row between two workloads says what some pod of one can do
with some pod of the other; a pod to itself is left out.`,
		Example: `  weir reach examples/shop/deploy
  weir reach examples/shop/deploy --to payments/db --port 5432
  weir reach examples/shop/deploy --from world
  weir reach examples/shop/deploy -o svg=shop.svg`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), readOnce(slices.Concat(in.files, args)...)); err != nil {
				return err
			}
			judge, err := in.judge(c.Context(), args)
			if err != nil {
				return err
			}
			listing, notes, err := n.listing(judge)
			if err != nil {
				return err
			}
			warnings := slices.Concat(notes, judge.Model().Warnings)
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteReachability(w, f, judge.Connections(listing), warnings, style)
			})
		},
	}
	in.addSourceTo(c)
	out.addTo(c)
	f := c.Flags()
	f.StringVar(&n.from, "from", "", "only from this `end`: namespace/name, an address, a CIDR, or world")
	f.StringVar(&n.to, "to", "", "only to this `end`: namespace/name, namespace/svc/name, an address, a CIDR, or world")
	f.StringVar(&n.port, "port", "", "only this `port`: 5432, UDP/53, TCP/8000-8100")
	f.StringVar(&n.by, "by", "workload", "the `unit` of a row: pod, workload or namespace")
	complete(c, "by", "workload", "pod", "namespace")
	return c
}

// narrowing is the flags that narrow a listing.
type narrowing struct{ from, to, port, by string }

// listing returns the listing that the flags ask for, with what its reader
// should know, or everything that is wrong with them.
func (n narrowing) listing(j *reach.Judge) (reach.Listing, []policies.Warning, error) {
	m, l := j.Model(), reach.Listing{By: reach.Grouping(n.by)}
	var errs []error
	switch l.By {
	case reach.ByPod, reach.ByWorkload, reach.ByNamespace:
	default:
		errs = append(errs, fmt.Errorf("--by: %q is none of pod, workload, namespace", n.by))
	}
	find := func(flag, text string) *policies.Target {
		if text == "" {
			return nil
		}
		t, err := m.Find(text)
		if err == nil && len(t.Nodes) > 0 {
			err = fmt.Errorf("%s is node %s, and nodes are not listed; ask weir explain", text, m.Nodes[t.Nodes[0]].Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
		return &t
	}
	l.From, l.To = find("--from", n.from), find("--to", n.to)
	query, err := policies.ParsePort(cmp.Or(n.port, "any"))
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("--port: %w", err))
	case query.Name != "" && l.To == nil:
		errs = append(errs, fmt.Errorf("--port: %q is a port's name, and each pod may give it another number; say whose with --to, or say the number", n.port))
	}
	if err := errors.Join(errs...); err != nil {
		return l, nil, err
	}
	l.Ports = &query.Ports
	if l.To == nil || l.To.Service == nil && query.Name == "" {
		return l, nil, nil
	}
	ports, err := j.PortsOf(*l.To, query)
	if err != nil {
		return l, nil, fmt.Errorf("--to: %w", err)
	}
	l.Ports = &ports
	if l.To.Service == nil {
		return l, nil, nil
	}
	return l, []policies.Warning{{Message: fmt.Sprintf("policies see what comes through service %s at its pods, on %s", l.To.Service.Ref, ports)}}, nil
}
