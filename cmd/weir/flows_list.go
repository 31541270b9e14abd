package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowline"
)

func newFlowsList(s streams) *cobra.Command {
	out, chosen := output{streams: s, kind: report.KindFlowList}, newChoice(s)
	var order, after string
	var limit int
	c := &cobra.Command{
		Use:   "list --flows FILE",
		Short: "List recorded flows, record by record",
		Long: `List recorded flows as they were recorded: a connection that both sides report
is there twice. Flags that choose flows must all hold, and one of the values of
each; records that do not say enough to tell are left out, and counted.

A page ends with the cursor of the next one, for --after.`,
		Example: `  weir flows list --flows examples/shop/flows.jsonl.gz --verdict deny --limit 20
  weir flows list --flows examples/shop/flows.jsonl.gz --to payments/db --sort -start
  weir flows list --flows examples/shop/flows.jsonl.gz --from app=web --port 443 -o csv`,
		Args: takes(0, 0, "flows list takes no arguments; name what to read as in --flows flows.jsonl.gz"),
		RunE: func(c *cobra.Command, _ []string) error {
			page, err := simulator.NewPage(order, limit, after)
			if err != nil {
				_, errFilter := chosen.filter()
				return errors.Join(err, errFilter, out.check())
			}
			if err := chosen.look(c, &out, func(f *policies.Flow) error { page.Add(f); return nil }); err != nil {
				return err
			}
			flows, next := page.Flows()
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowList(w, f, &report.FlowList{
					Selection: chosen.selection(), Flows: flows, Matched: page.Matched(), Next: next, Encode: flowline.Encode,
				}, style)
			})
		},
	}
	chosen.addTo(c)
	out.addTo(c)
	c.Flags().StringVar(&order, "sort", "start", "the `order`: "+strings.Join(simulator.Sorts, ", ")+"; with - before it, the other way round")
	complete(c, "sort", simulator.Sorts...)
	c.Flags().IntVar(&limit, "limit", 100, "at most so many `flows`")
	c.Flags().StringVar(&after, "after", "", "the flows after this `cursor`, which the page before ended with")
	return c
}
