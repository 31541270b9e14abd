package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/simulator"
)

func newFlowsGraph(s streams) *cobra.Command {
	out, chosen := output{streams: s, kind: report.KindFlowGraph}, newChoice(s)
	var by string
	var most int
	c := &cobra.Command{
		Use:   "graph --flows FILE",
		Short: "Show who talked to whom",
		Long: `Show which workloads or namespaces talked to which, on which ports, with what
recorded verdict. Connections that both sides report are counted once. In
pictures, those with the same connections are drawn as one.`,
		Example: `  weir flows graph --flows examples/shop/flows.jsonl.gz --by namespace
  weir flows graph --flows examples/shop/flows.jsonl.gz --peer 'payments/*' -o svg=payments.svg
  weir flows graph --flows examples/shop/flows.jsonl.gz --verdict deny -o mermaid`,
		Args: takes(0, 0, "flows graph takes no arguments; name what to read as in --flows flows.jsonl.gz"),
		RunE: func(c *cobra.Command, _ []string) error {
			if by != "workload" && by != "namespace" {
				_, err := chosen.filter()
				return errors.Join(fmt.Errorf("--by: %q is neither workload nor namespace", by), err, out.check())
			}
			talk := simulator.NewTalk(by == "namespace", most)
			if err := chosen.count(c, &out, talk, true); err != nil {
				return err
			}
			graph := talk.Graph()
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowGraph(w, f, &report.FlowGraph{Selection: chosen.selection(), Graph: graph}, style)
			})
		},
	}
	chosen.addTo(c)
	out.addTo(c)
	c.Flags().StringVar(&by, "by", "workload", "the `unit` of an end: workload or namespace")
	complete(c, "by", "workload", "namespace")
	addMost(c, &most)
	return c
}
