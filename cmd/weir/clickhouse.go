package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/clickhouse"
	"github.com/weir-policy/weir/simulator/flowrow"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// writableStore is a flow store of any kind that takes flows.
type writableStore interface {
	Import(ctx context.Context, name, how string, file io.ReadSeeker, read func(each func(policies.Flow) error) (partly bool, err error)) (flowrow.Imported, error)
	newWriter() flowWriter
}

// flowWriter adds flows that come from nowhere in particular.
type flowWriter interface {
	Add(ctx context.Context, f *policies.Flow) error
	Commit(ctx context.Context) error
}

type (
	fileStore struct{ *flowstore.Store }
	database  struct{ *clickhouse.Store }
)

func (s fileStore) newWriter() flowWriter { return s.NewWriter() }
func (d database) newWriter() flowWriter  { return d.NewWriter() }

func isClickHouse(where string) bool { return strings.HasPrefix(where, clickhouse.Scheme) }

// checkScheme refuses addresses that would be taken for folders.
func checkScheme(where string) error {
	scheme, _, ok := strings.Cut(where, "://")
	if !ok || scheme == "s3" || isClickHouse(where) {
		return nil
	}
	return fmt.Errorf("--store: %s:// is no kind of store; name a folder, s3://bucket/prefix, or clickhouse://host/database, with ?secure=true where TLS is wanted", scheme)
}

// openToWrite opens a store, and makes it where there is none.
func (f *flowStore) openToWrite(ctx context.Context, s streams) (store writableStore, done func() error, err error) {
	if err := checkScheme(f.where); err != nil {
		return nil, nil, err
	}
	if !isClickHouse(f.where) {
		files, err := flowstore.Open(ctx, f.where, f.options)
		return fileStore{files}, func() error { return nil }, err
	}
	told := func(what string) { fmt.Fprintln(s.err, what) }
	d, err := clickhouse.Open(ctx, f.where, clickhouse.Options{Told: told})
	if err != nil {
		return nil, nil, err
	}
	return database{d}, d.Close, nil
}

// lookAtDatabase returns what a database holds, and what is wrong with it if that
// is asked for.
func lookAtDatabase(ctx context.Context, s streams, where string, verify bool) (_ *report.FlowStore, err error) {
	d, err := clickhouse.Open(ctx, where, clickhouse.Options{ReadOnly: true, Told: func(what string) { fmt.Fprintln(s.err, what) }})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r := &report.FlowStore{Where: d.String(), Verified: verify}
	if verify {
		problems, err := d.Verify(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range problems {
			r.Problems = append(r.Problems, p.Error())
		}
	}
	stats, err := d.Stats(ctx)
	if err != nil {
		return nil, err
	}
	r.Records, r.Flows, r.First, r.Last, r.Hours, r.Compacted = stats.Records, stats.Flows, stats.First, stats.Last, stats.Hours, stats.Hours
	r.Files, r.Bytes, r.FlowBytes = stats.Parts, stats.Bytes, stats.FlowBytes
	r.Database = &report.FlowDatabase{Server: stats.Server, Cluster: stats.Cluster, Tables: stats.Tables, Imported: stats.Imported, Keep: stats.Keep}
	return r, nil
}

func newFlowsSchema(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindFlowSchema}, flowStore{}
	var version string
	c := &cobra.Command{
		Use:   "schema --store clickhouse://HOST/DATABASE",
		Short: "Print the SQL that makes a database ready for flows",
		Long: `Print the statements that 'weir flows import' runs where a ClickHouse database has no
tables for flows yet, and run none of them. They suit the server's version, and
the cluster and ttl that the address names. With --server-version no server is asked.`,
		Example: `  weir flows schema --store 'clickhouse://flows@ch-1:9000,ch-2:9000/weir?cluster=main&ttl=30d' --server-version 25.8`,
		Args:    takes(0, 0, "flows schema takes no arguments; the database is named as in --store clickhouse://host/database"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !isClickHouse(flags.where) {
				return errors.New("only databases have a schema; name one as in --store clickhouse://host/database")
			}
			statements, err := clickhouse.Schema(c.Context(), flags.where, version)
			if err != nil {
				return err
			}
			return out.write(func(w io.Writer, f report.Format, _ report.Style) error {
				return report.WriteFlowSchema(w, f, &report.FlowSchema{Where: clickhouse.Name(flags.where), Statements: statements})
			})
		},
	}
	out.addTo(c)
	c.Flags().StringVar(&flags.where, "store", "", "the flow `store`, a database: clickhouse://user@host:9000,host2:9000/database?cluster=NAME&ttl=30d")
	c.Flags().StringVar(&version, "server-version", "", "the `version` of the servers, as in 25.8 (default: ask them)")
	return c
}
