package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

func newFlowsStats(s streams) *cobra.Command {
	out, chosen := output{streams: s, kind: report.KindFlowStats}, newChoice(s)
	c := &cobra.Command{
		Use:   "stats --flows FILE",
		Short: "Say what there is in recorded flows",
		Long: `Say how many records there are and of when, in which formats, who reported them,
with what verdicts, what they aggregate, how much they say of their ends, and how
large the files are.`,
		Example: `  weir flows stats --flows examples/shop/flows.jsonl.gz
  weir flows stats --flows 'examples/shop/*.jsonl.gz' --peer 'payments/*' -o json`,
		Args: takes(0, 0, "flows stats takes no arguments; name what to read as in --flows flows.jsonl.gz"),
		RunE: func(c *cobra.Command, _ []string) error {
			census := simulator.NewCensus(simulator.MaxConnections)
			if err := chosen.look(c, &out, func(f *policies.Flow) error { census.Add(f); return nil }); err != nil {
				return err
			}
			census.Close()
			r, err := chosen.flows.open(c.Context(), s)
			if err != nil {
				return err
			}
			files, size, err := r.Size(c.Context())
			if err != nil {
				return err
			}
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowStats(w, f, &report.FlowStats{Selection: chosen.selection(), Census: census, Files: files, Size: size}, style)
			})
		},
	}
	chosen.addTo(c)
	out.addTo(c)
	return c
}
