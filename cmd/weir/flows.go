package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/simulator/flowline"
	"github.com/weir-policy/weir/simulator/flowlisten"
	"github.com/weir-policy/weir/simulator/flowlog"
)

func newFlows(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "flows",
		Short: "Work with recorded flows",
	}
	c.AddCommand(
		newFlowsImport(s), newFlowsList(s), newFlowsTop(s), newFlowsGraph(s), newFlowsExport(s), newFlowsStats(s), newFlowsSQL(s),
		newFlowsCompact(s), newFlowsVerify(s), newFlowsSchema(s), newFlowsServe(s), newFlowsObserve(s),
	)
	return group(c)
}

func newFlowsImport(s streams) *cobra.Command {
	out, flows := output{streams: s, kind: report.KindFlowImport}, flowFiles{}
	var to, listen string
	var commitEvery time.Duration
	var store flowStore
	in, addresses := input{streams: s}, addressBook{}
	c := &cobra.Command{
		Use:   "import FILE... | --listen ADDRESS",
		Short: "Read recorded flows of any format, and store them or write them as Weir's own",
		Long: `Read recorded flows, plain or compressed, and write them as Weir's JSON lines:
one connection a line, replies turned round to their requests. What was read,
left out and lost is told at the end, on standard error where the flows go to
standard output. With --store they become part of a flow store; a file that is in
it already adds nothing, and one that was interrupted or has grown, the rest.
With --world, ends that are recorded by their address alone become the pods that
had it then.

With --listen, flows are those that routers and nodes export by UDP as IPFIX,
NetFlow or sFlow, as in --listen udp://:2055, until an interrupt ends it; a file is
in its place then. With --store too, what arrives becomes part of the store every
--commit-every, and what is left, at the end.`,
		Example: `  weir flows import examples/shop/flows.jsonl.gz --to flows.weir.jsonl.zst
  weir flows import examples/shop/flows.jsonl.gz --store flows
  weir flows import examples/shop/flows.jsonl.gz --world examples/shop/deploy@2026-03-10T08:00:00Z --store flows
  hubble observe --last 1000 -o jsonpb | weir flows import - > flows.weir.jsonl`,
		Args: takes(0, math.MaxInt, ""),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), readOnce(args...)); err != nil {
				return err
			}
			if store.where != "" && c.Flags().Changed("to") {
				return errors.New("--to and --store exclude each other")
			}
			switch {
			case listen != "" && len(args) > 0:
				return errors.New("flows import takes files or --listen, not both")
			case listen != "" && store.where != "" && commitEvery <= 0:
				return fmt.Errorf("--commit-every: %s is no time to wait", commitEvery)
			case listen == "" && len(args) == 0:
				return errors.New("flows import takes files of recorded flows, or - for standard input, or --listen udp://:2055")
			}
			flows.patterns = args
			files, err := flows.files()
			if err != nil {
				return err
			}
			if len(addresses.worlds) > 0 {
				if err := addresses.learn(c.Context(), &in, time.Now()); err != nil {
					return err
				}
				flows.resolve = addresses.resolve
			}
			if store.where != "" {
				var stats flowlog.Stats
				var stored report.Stored
				if listen != "" {
					stats, stored, err = flows.listenTo(c.Context(), listen, s, &store, commitEvery)
				} else {
					stats, stored, err = flows.importTo(c.Context(), s, &store, files)
				}
				if err != nil && stored == (report.Stored{}) {
					return err
				}
				return errors.Join(err, out.write(func(w io.Writer, f report.Format, style report.Style) error {
					return report.WriteImport(w, f, preview.Reading(stats), &stored, addresses.told(), style)
				}))
			}
			var stats flowlog.Stats
			fill := func(w io.Writer) error {
				var err error
				if listen != "" {
					stats, err = flows.listen(c.Context(), listen, s.err, w)
				} else {
					stats, err = importFlows(c.Context(), &flows, s, files, w)
				}
				return err
			}
			if to == "-" {
				out.out = s.err
				err = fill(s.out)
			} else {
				err = writeFile(to, 0o644, func(w io.Writer) error { return compressed(to, w, fill) })
			}
			if err != nil {
				return err
			}
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteImport(w, f, preview.Reading(stats), nil, addresses.told(), style)
			})
		},
	}
	out.addTo(c)
	flows.addReadingTo(c)
	store.addTo(c)
	in.addTo(c)
	addresses.addTo(c)
	c.Flags().StringVar(&to, "to", "-", "the `file` to write, compressed when its name ends in .gz or .zst; - is standard output")
	c.Flags().DurationVar(&commitEvery, "commit-every", 10*time.Second, "with --listen and --store: the longest `time` that flows wait to be stored")
	c.Flags().StringVar(&listen, "listen", "", "the `address` at which to receive flow exports, such as udp://:2055")
	return c
}

// listen writes what arrives at an address until ctx ends, and says on
// told where that is.
func (f *flowFiles) listen(ctx context.Context, address string, told, w io.Writer) (flowlog.Stats, error) {
	records := flowline.NewWriter(w)
	l, err := flowlisten.Open(address, flowlisten.Options{Flows: f.options, Idle: records.Flush})
	if err != nil {
		return flowlog.Stats{}, err
	}
	fmt.Fprintf(told, "listening at %s; interrupt to end\n", l.Address())
	stats, err := l.Run(ctx, f.resolved(records.Write))
	return stats, errors.Join(err, records.Flush())
}

func importFlows(ctx context.Context, flows *flowFiles, s streams, files []string, w io.Writer) (flowlog.Stats, error) {
	records := flowline.NewWriter(w)
	stats, err := flows.read(ctx, s, files, records.Write)
	if err != nil {
		return stats, err
	}
	return stats, records.Flush()
}

// compressed fills w through the compression that the file's name asks for.
func compressed(name string, w io.Writer, fill func(io.Writer) error) error {
	var packed io.WriteCloser
	switch {
	case strings.HasSuffix(name, ".gz"):
		packed = gzip.NewWriter(w)
	case strings.HasSuffix(name, ".zst"):
		encoder, err := zstd.NewWriter(w)
		if err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		packed = encoder
	default:
		return fill(w)
	}
	if err := fill(packed); err != nil {
		return err
	}
	return packed.Close()
}
