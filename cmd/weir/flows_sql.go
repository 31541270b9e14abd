package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/flowsql"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

func newFlowsSQL(s streams) *cobra.Command {
	out, flows := output{streams: s, kind: report.KindFlowRows}, flowFiles{}
	var rows int
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "sql --flows FILE QUESTION",
		Short: "Ask recorded flows a question in SQL",
		Long: `Ask recorded flows, in files of any format or in a store, a question in SQL: a
SELECT about the table flows, which has the columns of a store's files. The SQL is
SQLite's. Nothing is written but what sorting puts into temporary files.

Each record is a row: where both sides report a connection there are two, told
apart by the column reporter. Comparing start with a moment, as in
start >= '2026-03-01', leaves what is of another time unread.`,
		Example: `  weir flows sql --flows examples/shop/flows.jsonl.gz 'SELECT verdict, sum(flows) FROM flows GROUP BY verdict'
  weir flows sql --flows examples/shop/flows.jsonl.gz "SELECT src_namespace, src_pod, count(*) AS n FROM flows WHERE verdict = 'deny' AND start >= '2026-03-10' GROUP BY 1, 2 ORDER BY n DESC" -o csv`,
		Args: takes(1, 1, "flows sql takes one question, as in: weir flows sql --flows flows.jsonl.gz 'SELECT verdict, sum(flows) FROM flows GROUP BY verdict'"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), readOnce(flows.patterns...)); err != nil {
				return err
			}
			if rows < 1 || timeout <= 0 {
				return errors.New("--max-rows and --timeout are above 0")
			}
			r, err := flows.open(c.Context(), s)
			if err != nil {
				return err
			}
			scans := 0
			scan := func(ctx context.Context, since, until time.Time, each func(*policies.Flow) error) error {
				if scans++; scans > 1 && readsStdin(flows.patterns) {
					return errors.New("the question reads flows more than once, which standard input cannot be; give it a file")
				}
				_, err := r.Scan(ctx, &simulator.Filter{Since: since, Until: until}, each)
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			answer, err := flowsql.Ask(ctx, scan, args[0], flowsql.Options{MaxRows: rows})
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("no answer after %s; ask about less time, or give it longer by --timeout", timeout)
			}
			if err != nil {
				return err
			}
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteFlowRows(w, f, &report.FlowRows{Columns: answer.Columns, Rows: answer.Rows}, style)
			})
		},
	}
	out.addTo(c)
	c.Flags().StringArrayVar(&flows.patterns, "flows", nil, flowsUsage)
	flows.addReadingTo(c)
	c.Flags().IntVar(&rows, "max-rows", 100_000, "fail above so many `rows`")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "fail after so `long`, as in 90s or 1h")
	return c
}
