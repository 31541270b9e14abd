package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowstore"
)

func newFlowsStats(s streams) *cobra.Command {
	c := newStoreVerb(s, &cobra.Command{
		Use:   "stats --flows FILE | --store STORE",
		Short: "Say what there is in recorded flows, or in a flow store",
		Long: `With --flows, read recorded flows and say how many records there are and of when,
in which formats, who reported them, with what verdicts, what they aggregate, how
much they say of their ends, and how large the files are. With --store, say what a
flow store holds, from its manifest alone, or from the sums of a database.`,
		Example: `  weir flows stats --flows examples/shop/flows.jsonl.gz
  weir flows stats --flows 'examples/shop/*.jsonl.gz' --peer 'payments/*' -o json
  weir flows import examples/shop/flows.jsonl.gz --store flows
  weir flows stats --store flows`,
	}, func(context.Context, *flowstore.Store, *report.FlowStore) error { return nil })
	ofStore, chosen := c.RunE, newChoice(s)
	chosen.addTo(c)
	c.Args = takes(0, 0, "flows stats takes no arguments; name what to read as in --flows flows.jsonl.gz, or a store as in --store flows")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch byStore, byFlows := c.Flags().Changed("store"), len(chosen.flows.patterns) > 0; {
		case byStore && byFlows:
			return errors.New("--flows and --store exclude each other; a store is read record by record as --flows STORE")
		case !byFlows && !byStore:
			return errors.New("name what to read as in --flows flows.jsonl.gz, or the flow store as in --store flows, s3://bucket/prefix or clickhouse://host/database")
		case byStore:
			return ofStore(c, args)
		}
		return chosen.stats(c)
	}
	return c
}

// stats reads the flows that the flags choose, and says what there is.
func (o *choice) stats(c *cobra.Command) error {
	out := output{streams: o.streams, kind: report.KindFlowStats}
	var err error
	if out.wants, err = c.Flags().GetStringArray("output"); err != nil {
		return err
	}
	census := simulator.NewCensus(simulator.MaxConnections)
	if err := o.look(c, &out, func(f *policies.Flow) error { census.Add(f); return nil }); err != nil {
		return err
	}
	census.Close()
	r, err := o.flows.open(c.Context(), o.streams)
	if err != nil {
		return err
	}
	files, size, err := r.Size(c.Context())
	if err != nil {
		return err
	}
	return out.write(func(w io.Writer, f report.Format, style report.Style) error {
		return report.WriteFlowStats(w, f, &report.FlowStats{Selection: o.selection(), Census: census, Files: files, Size: size}, style)
	})
}
