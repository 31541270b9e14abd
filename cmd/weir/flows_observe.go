package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowline"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// agentSocket is where an agent is listened to, unless somebody says otherwise.
const agentSocket = "/run/weir/flows.sock"

func newFlowsObserve(s streams) *cobra.Command {
	out, chosen := output{streams: s, formats: []string{string(report.Text), string(report.JSON)}}, newChoice(s)
	var socket string
	var follow bool
	var limit int
	c := &cobra.Command{
		Use:   "observe [--follow]",
		Short: "Watch what a node's agent records, as it happens",
		Long: `Watch the connections of a node as they begin and end, and what is denied, from
the socket of its agent. Each line of JSON is a Flow: one with "started" begins,
one with "ended" has ended and says what it carried, one with the verdict deny is
a packet.

It ends after as many flows as --limit says, or with --follow when the agent ends
or an interrupt does. Flags that choose flows must all hold, and one of the values
of each.`,
		Example: `  weir flows observe --follow
  weir flows observe --follow --verdict deny --to shop/db
  weir flows observe --limit 100 -o json > flows.weir.jsonl`,
		Args: takes(0, 0, "flows observe takes no arguments; choose flows as in --from shop/web"),
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := chosen.filter()
			if limit < 1 {
				err = errors.Join(err, fmt.Errorf("--limit: %d is no number of flows to wait for", limit))
			}
			if err := errors.Join(err, out.check()); err != nil {
				return err
			}
			if follow {
				limit = 0
			}
			return out.write(func(w io.Writer, format report.Format, style report.Style) error {
				return observe(c.Context(), socket, s.err, limit, func(flow *policies.Flow) (bool, error) {
					if f.Match(flow) != simulator.Yes {
						return false, nil
					}
					return true, report.WriteFlow(w, format, flow, flowline.Encode, style)
				})
			})
		},
	}
	out.addTo(c)
	chosen.addChoosingTo(c)
	c.Flags().StringVar(&socket, "socket", agentSocket, "the `path` of the agent's socket")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the agent ends, or an interrupt")
	c.Flags().IntVar(&limit, "limit", 20, "without --follow: end after so many `flows`")
	return c
}

var errEnough = errors.New("enough")

// observe calls each for the flows that an agent tells of, until so many were taken, or
// without an end where limit is 0.
func observe(ctx context.Context, socket string, told io.Writer, limit int, each func(*policies.Flow) (taken bool, err error)) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; is weir-agent running here with --socket?", err)
		}
		return fmt.Errorf("observe: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // that ends the reading
	defer stop()
	defer conn.Close() //nolint:errcheck // nothing is written to it
	taken := 0
	stats, err := flowlog.Read(context.WithoutCancel(ctx), conn, socket, flowlog.Options{Format: "weir", Lines: true}, func(f policies.Flow) error {
		is, err := each(&f)
		if is {
			taken++
		}
		if err == nil && limit > 0 && taken >= limit {
			err = errEnough
		}
		return err
	})
	if stats.Lost > 0 {
		fmt.Fprintf(told, "%d flows were lost, for they came faster than they were read\n", stats.Lost)
	}
	if errors.Is(err, errEnough) || ctx.Err() != nil && limit == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	if limit > 0 {
		return fmt.Errorf("observe: the agent ended after %d of %d flows", taken, limit)
	}
	return nil
}
