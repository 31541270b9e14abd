package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/clickhouse"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowrow"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// flowStore is the flags by which a verb names a store of flows.
type flowStore struct {
	where   string
	options flowstore.Options
}

func (f *flowStore) addTo(c *cobra.Command) {
	s3 := flowstore.FromEnvironment(os.Getenv)
	c.Flags().StringVar(&f.where, "store", "", "the flow `store`: a folder, s3://bucket/prefix?endpoint=URL&region=NAME, or clickhouse://user@host:9000/database")
	c.Flags().StringVar(&f.options.S3.Endpoint, "s3-endpoint", s3.Endpoint, "the `URL` of S3-compatible storage, where the address has none (default: AWS, or $AWS_ENDPOINT_URL)")
	c.Flags().StringVar(&f.options.S3.Region, "s3-region", s3.Region, "the `region` of the bucket, where the address has none (default: $AWS_REGION)")
}

// open opens a store that is there.
func (f *flowStore) open(ctx context.Context) (*flowstore.Store, error) {
	if f.where == "" {
		return nil, errors.New("name the flow store, as in --store flows, --store s3://bucket/prefix or --store clickhouse://host/database")
	}
	if isClickHouse(f.where) {
		return nil, fmt.Errorf("%s is a database, which sorts and sums up by itself, and forgets what is older than its ttl; there is nothing to compact", clickhouse.Name(f.where))
	}
	if err := checkScheme(f.where); err != nil {
		return nil, err
	}
	f.options.ReadOnly = true
	return flowstore.Open(ctx, f.where, f.options)
}

// importTo adds the flows of files to a store, which it makes where there is
// none. A file that is damaged does not keep it from the others.
func (f *flowFiles) importTo(ctx context.Context, s streams, to *flowStore, files []string) (all flowlog.Stats, stored report.Stored, err error) {
	store, done, err := to.openToWrite(ctx, s)
	if err != nil {
		return all, stored, err
	}
	defer func() { err = errors.Join(err, done()) }()
	seen := newWatch(s.err, files)
	defer seen.done()
	var damaged []error
	for _, name := range files {
		stats, done, err := f.importFile(ctx, s, store, seen, name)
		all.Add(stats)
		stored.Added += done.Added
		stored.Known += done.Known
		if err != nil && ctx.Err() != nil && name != "-" {
			seen.done()
			fmt.Fprintf(s.err, "%s: %d of its flows are stored; do the same again to add the rest\n", name, done.Known+done.Added)
		}
		var bad policies.Problem
		switch {
		case errors.As(err, &bad) && !f.options.Strict:
			damaged = append(damaged, err)
		case err != nil:
			return all, stored, errors.Join(append(damaged, err)...)
		}
	}
	if stored.Known > 0 || len(damaged) > 0 {
		return all, stored, errors.Join(damaged...)
	}
	return all, stored, anyRead(all)
}

func (f *flowFiles) importFile(ctx context.Context, s streams, store writableStore, seen *watch, name string) (stats flowlog.Stats, done flowrow.Imported, err error) {
	if name == "-" {
		w := store.newWriter()
		stats, err = flowlog.Read(ctx, s.in, "standard input", f.options, seen.each(f.resolved(func(flow policies.Flow) error {
			done.Added++
			return w.Add(ctx, &flow)
		})))
		return stats, done, errors.Join(err, w.Commit(context.WithoutCancel(ctx)))
	}
	file, err := os.Open(name)
	if err != nil {
		return stats, done, err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && !info.Mode().IsRegular() {
		return stats, done, fmt.Errorf("flows: %s is no file; name files, as in '%s', or - for standard input", name, filepath.Join(name, "*"))
	}
	shown := filepath.ToSlash(filepath.Clean(name))
	plain, err := flowlog.Unpacked(file, f.options)
	if err != nil {
		return stats, done, fmt.Errorf("%s: %w", shown, err)
	}
	seen.next(file)
	done, err = store.Import(ctx, shown, f.how(), plain, func(each func(policies.Flow) error) (partly bool, err error) {
		stats, err = f.readOpen(ctx, file, seen.each(f.resolved(each)))
		return stats.Bad > 0, err
	})
	return stats, done, err
}

// how says how files are read, for those who read them again.
func (f *flowFiles) how() string {
	how := "without --flow-format"
	if f.options.Format != "" {
		how = "with --flow-format " + f.options.Format
	}
	for i, field := range slices.Sorted(maps.Keys(f.options.Columns)) {
		how += []string{" --columns ", ","}[min(i, 1)] + field + "=" + f.options.Columns[field]
	}
	return how
}

func newFlowsVerify(s streams) *cobra.Command {
	return newStoreVerb(s, &cobra.Command{
		Use:   "verify --store STORE",
		Short: "Read a flow store through, and say what is wrong with it",
		Long: `Read every file of a flow store, and say which are missing, cut off or changed, and
whose tuples are not those of the flows. Of a database, say in which hours the sums
are not what the records come to. Exits with status 1 where anything is wrong.`,
		Example: `  weir flows import examples/shop/flows.jsonl.gz --store flows
  weir flows verify --store flows`,
	}, func(ctx context.Context, store *flowstore.Store, r *report.FlowStore) error {
		progress, done := progressed(s.err, "verified")
		defer done()
		r.Verified = true
		for _, err := range store.Verify(ctx, time.Now(), progress) {
			r.Problems = append(r.Problems, err.Error())
		}
		return ctx.Err()
	})
}

func newFlowsCompact(s streams) *cobra.Command {
	var keepFor, keepSize string
	c := newStoreVerb(s, &cobra.Command{
		Use:   "compact --store STORE",
		Short: "Sort the flows of closed hours, so that replays of them are quick",
		Long: `Sort the flows of every hour that has ended an hour ago by who talks to whom, and add
up what each pair came to: replays then read sums in place of records. Files that
were replaced go away a quarter of an hour later, with the next run. Run it once
an hour; it may be stopped at any time.`,
		Example: `  weir flows import examples/shop/flows.jsonl.gz --store flows
  weir flows compact --store flows --keep 30d --keep-size 100GB`,
	}, func(ctx context.Context, store *flowstore.Store, r *report.FlowStore) error {
		limitMemory()
		now := time.Now()
		var keep flowstore.Keep
		age, errAge := parseAge("keep", keepFor)
		size, errSize := parseSize("keep-size", keepSize)
		if err := errors.Join(errAge, errSize); err != nil {
			return err
		}
		if age > 0 {
			keep.Since = now.Add(-age)
		}
		keep.Bytes = size
		r.Work = &report.StoreWork{}
		var err error
		if r.Work.Forgotten, err = store.Retain(ctx, now, keep); err != nil {
			return err
		}
		progress, shown := progressed(s.err, "compacted")
		defer shown()
		did, err := store.Compact(ctx, now, progress)
		r.Work.Hours, r.Work.Days, r.Work.Records, r.Work.Open, r.Work.Removed = did.Hours, did.Days, did.Records, did.OpenHours, did.Removed
		return err
	})
	c.Flags().StringVar(&keepFor, "keep", "", "remove hours that ended longer ago than this `time`, as in 30d or 12h (default: keep all)")
	c.Flags().StringVar(&keepSize, "keep-size", "", "remove the oldest hours until no more than this `size` is left, as in 100GB (default: keep all)")
	return c
}

// limitMemory has garbage collected sooner than the heap doubles: a compaction holds
// 1 GiB of rows, and about half as much again with what it makes of them. It is the
// user's to say otherwise with GOMEMLIMIT.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(3 << 29)
	}
}

// newStoreVerb makes a verb that works on a store and says what it then holds.
func newStoreVerb(s streams, c *cobra.Command, work func(context.Context, *flowstore.Store, *report.FlowStore) error) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindFlowStore}, flowStore{}
	c.Args = takes(0, 0, "flows "+c.Name()+" takes no arguments; the store is named as in --store flows")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		r, err := flags.workOn(c.Context(), s, c.Name(), work)
		if err != nil {
			return err
		}
		err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
			return report.WriteFlowStore(w, f, r, style)
		})
		if err == nil && len(r.Problems) > 0 {
			return errNo
		}
		return err
	}
	out.addTo(c)
	flags.addTo(c)
	return c
}

// workOn does a verb's work on a store of files, or what there is of it to do on a
// database, and returns what the store then holds.
func (f *flowStore) workOn(ctx context.Context, s streams, verb string, work func(context.Context, *flowstore.Store, *report.FlowStore) error) (*report.FlowStore, error) {
	if isClickHouse(f.where) && verb != "compact" {
		return lookAtDatabase(ctx, s, f.where, verb == "verify")
	}
	store, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &report.FlowStore{Where: f.where}
	if err := work(ctx, store, r); err != nil {
		return nil, err
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		return nil, err
	}
	r.Records, r.Flows, r.First, r.Last, r.Hours, r.Compacted = stats.Records, stats.Flows, stats.First, stats.Last, stats.Hours, stats.Compacted
	r.Files, r.Bytes, r.FlowBytes = len(stats.Files), uint64(stats.Bytes), uint64(stats.FlowBytes)
	return r, nil
}

// parseAge reads a flag's duration, such as 30d or 12h; none of an empty text.
func parseAge(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	age, err := simulator.ParseAge(text)
	if err != nil || age <= 0 {
		return 0, fmt.Errorf("--%s: %q is no time such as 30d or 12h", flag, text)
	}
	return age, nil
}

// parseSize reads a flag's size, such as 100GB; none of an empty text.
func parseSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number, unit := strings.TrimRight(text, "kKMGTB"), int64(1)
	switch strings.TrimSuffix(strings.ToUpper(text[len(number):]), "B") {
	case "":
	case "K":
		unit = 1e3
	case "M":
		unit = 1e6
	case "G":
		unit = 1e9
	case "T":
		unit = 1e12
	default:
		unit = 0
	}
	if n, err := strconv.ParseUint(number, 10, 22); err == nil && n > 0 && unit > 0 {
		return int64(n) * unit, nil
	}
	return 0, fmt.Errorf("--%s: %q is no size such as 100GB or 500MB", flag, text)
}
