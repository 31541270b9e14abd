package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/simulator"
)

// measures are what groups may be sorted by.
var measures = []string{"flows", "bytes", "packets"}

func newFlowsTop(s streams) *cobra.Command {
	out, chosen := output{streams: s, kind: report.KindFlowTop}, newChoice(s)
	var by, order string
	var limit, most int
	c := &cobra.Command{
		Use:   "top --flows FILE --by KEY,...",
		Short: "Count recorded flows by whatever they have",
		Long: `Count recorded flows by one key or several, those with most first. Connections
that both sides report are counted once. A key of an end stands behind from. or
to.; without, a flow counts for both its ends. A flow that several policies
judged counts for each.

Counts are exact. Where flows are of more different connections than --max, the
answer is an error rather than a guess.`,
		Example: `  weir flows top --flows examples/shop/flows.jsonl.gz --by from.workload,to.workload,port
  weir flows top --flows examples/shop/flows.jsonl.gz --by hour,verdict --verdict deny
  weir flows top --flows examples/shop/flows.jsonl.gz --by to.address --to world -o csv`,
		Args: takes(0, 0, "flows top takes no arguments; name what to read as in --flows flows.jsonl.gz, and keys as in --by workload,port"),
		RunE: func(c *cobra.Command, _ []string) error {
			keys, err := simulator.ParseKeys(by)
			if err != nil {
				err = fmt.Errorf("--by: %w", err)
			}
			if !slices.Contains(measures, order) {
				err = errors.Join(err, fmt.Errorf("--sort: %q is none of %s", order, strings.Join(measures, ", ")))
			}
			if limit < 1 || most < 1 {
				err = errors.Join(err, errors.New("--limit and --max are at least 1"))
			}
			if err != nil {
				_, errFilter := chosen.filter()
				return errors.Join(err, errFilter, out.check())
			}
			top := simulator.NewTop(keys, most)
			if err := chosen.count(c, &out, top, top.TellsTuples()); err != nil {
				return err
			}
			ranking := top.Ranking(order, limit)
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowTop(w, f, &report.FlowTop{Selection: chosen.selection(), Ranking: ranking, By: order}, style)
			})
		},
	}
	chosen.addTo(c)
	out.addTo(c)
	c.Flags().StringVar(&by, "by", "from.workload,to.workload,port", "the `keys`: "+strings.Join(simulator.KeyNames(), ", "))
	completeList(c, "by", simulator.KeyNames()...)
	c.Flags().StringVar(&order, "sort", "flows", "what comes first, a `measure`: "+strings.Join(measures, ", "))
	complete(c, "sort", measures...)
	c.Flags().IntVar(&limit, "limit", 20, "at most so many `groups`")
	addMost(c, &most)
	return c
}

// addMost adds --max, for verbs that tell connections apart.
func addMost(c *cobra.Command, most *int) {
	c.Flags().IntVar(most, "max", simulator.MaxConnections, "fail above so many different `connections` (ends and port, in each group), which are about half a kilobyte each")
}
