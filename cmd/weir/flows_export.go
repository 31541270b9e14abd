package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowline"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// lineWriter writes flows in one format.
type lineWriter interface {
	Write(policies.Flow) error
	Flush() error
}

// exports are the formats that flows can be written in.
var exports = []string{"jsonl", "parquet", "hubble", "otlp"}

func newFlowsExport(s streams) *cobra.Command {
	out, chosen := output{streams: s, kind: report.KindFlowExport}, newChoice(s)
	var into, as string
	c := &cobra.Command{
		Use:   "export --flows FILE --into FILE",
		Short: "Write recorded flows in a format that others read",
		Long: `Write recorded flows, all or those that flags choose, as lines of Weir's own
JSON (jsonl), as one Parquet file with the columns of a flow store (parquet), as
Hubble exports them (hubble), or as log records of OpenTelemetry in JSON (otlp).
What a format has no place for is told at the end, on standard error where the
flows go to standard output.`,
		Example: `  weir flows export --flows examples/shop/flows.jsonl.gz --verdict deny --into denied.jsonl
  weir flows export --flows examples/shop/flows.jsonl.gz --as parquet --into flows.parquet
  weir flows export --flows examples/shop/flows.jsonl.gz --as otlp --into flows.otlp.jsonl.zst`,
		Args: takes(0, 0, "flows export takes no arguments; name what to read as in --flows flows.jsonl.gz, and where to write as in --into flows.weir.jsonl.zst"),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if !slices.Contains(exports, as) {
				err = fmt.Errorf("--as: %q is none of %s", as, strings.Join(exports, ", "))
			}
			if as == "parquet" && (strings.HasSuffix(into, ".gz") || strings.HasSuffix(into, ".zst")) {
				err = fmt.Errorf("--into %s: Parquet is compressed inside, and no program reads it compressed again; name a file such as flows.parquet", into)
			}
			if as == "parquet" && into == "-" && isTerminal(s.out) {
				err = errors.New("Parquet is not for terminals; name a file, as in --into flows.parquet")
			}
			filter, errFilter := chosen.filter()
			if err := errors.Join(err, errFilter, out.check(), readOnce(chosen.flows.patterns...)); err != nil {
				return err
			}
			answer := report.FlowExport{As: as}
			fill := func(w io.Writer) error { return chosen.export(c.Context(), filter, w, &answer) }
			if into == "-" {
				out.out = s.err
				err = fill(s.out)
			} else {
				err = writeFile(into, 0o644, func(w io.Writer) error { return compressed(into, w, fill) })
			}
			if err != nil {
				return err
			}
			answer.Selection = chosen.selection()
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowExport(w, f, &answer, style)
			})
		},
	}
	chosen.addTo(c)
	out.addTo(c)
	c.Flags().StringVar(&into, "into", "-", "the `file` to write, compressed when its name ends in .gz or .zst; - is standard output")
	c.Flags().StringVar(&as, "as", "jsonl", "the `format` to write: "+strings.Join(exports, ", "))
	complete(c, "as", exports...)
	return c
}

// export writes the flows that the flags choose.
func (o *choice) export(ctx context.Context, f *simulator.Filter, w io.Writer, answer *report.FlowExport) error {
	lost := map[string]uint64{}
	var to lineWriter = flowline.NewWriter(w)
	switch answer.As {
	case "parquet":
		var err error
		if to, err = flowstore.NewFileWriter(w); err != nil {
			return err
		}
	case "hubble":
		to = flowlog.NewHubbleWriter(w, lost)
	case "otlp":
		to = flowlog.NewOTLPWriter(w, lost)
	}
	err := o.scan(ctx, f, func(f *policies.Flow) error {
		answer.Records++
		return to.Write(*f)
	})
	if err != nil {
		return err
	}
	for _, what := range slices.Sorted(maps.Keys(lost)) {
		answer.Lost = append(answer.Lost, simulator.Cause{Text: what, Flows: lost[what]})
	}
	return to.Flush()
}
