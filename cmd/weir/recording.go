package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/clickhouse"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowrow"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// recording is recorded flows, wherever they are kept.
type recording interface {
	// Scan calls each for every flow that the filter may choose, and maybe for
	// others. The flow is valid until each returns; its maps and slices are shared.
	Scan(ctx context.Context, f *simulator.Filter, each func(*policies.Flow) error) (flowlog.Stats, error)
	// Size returns how many files the flows are in, and their bytes as far as
	// they are known.
	Size(ctx context.Context) (files int, bytes uint64, err error)
}

const flowsUsage = "a `file` of recorded flows, a pattern such as 'flows/*.jsonl.gz', -, an agent's folder of records, or a flow store (a folder, s3://bucket/prefix or clickhouse://host/database); repeatable"

func readsStdin(patterns []string) bool { return slices.Contains(patterns, "-") }

// open returns what --flows names: files, or a store.
func (f *flowFiles) open(ctx context.Context, s streams) (recording, error) {
	if len(f.patterns) == 0 {
		return nil, errors.New("there are no recorded flows; name some as in --flows flows.jsonl.gz, or a flow store")
	}
	if i := slices.IndexFunc(f.patterns, isStore); i >= 0 {
		if len(f.patterns) > 1 {
			return nil, fmt.Errorf("--flows: %s is a flow store, and stands alone", f.patterns[i])
		}
		return openStore(ctx, f.patterns[i], s)
	}
	files, err := f.files()
	return &recordedFiles{f, s, files}, err
}

// recordedFiles is flows in files of any format.
type recordedFiles struct {
	*flowFiles
	streams
	files []string
}

func (r *recordedFiles) Scan(ctx context.Context, _ *simulator.Filter, each func(*policies.Flow) error) (flowlog.Stats, error) {
	return r.read(ctx, r.streams, r.files, func(f policies.Flow) error { return each(&f) })
}

func (r *recordedFiles) Size(context.Context) (files int, bytes uint64, err error) {
	for _, name := range r.files {
		if name == "-" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return 0, 0, err
		}
		if info.Mode().IsRegular() {
			bytes += uint64(info.Size())
		}
	}
	return len(r.files), bytes, nil
}

// store is a recording that is kept by tuple.
type store interface {
	recording
	Recorded(ctx context.Context, r flowrow.Range) (simulator.Recorded, error)
	// Summed returns what the filter may choose, and maybe more.
	Summed(ctx context.Context, f *simulator.Filter) (simulator.Summed, error)
	// Untimed returns how many records have no time.
	Untimed(ctx context.Context) (uint64, error)
}

// recordedStore is flows in a store of files.
type recordedStore struct{ *flowstore.Store }

// recordedDatabase is flows in ClickHouse.
type recordedDatabase struct{ *clickhouse.Store }

// isStore reports whether --flows names a store rather than files.
func isStore(name string) bool {
	if strings.HasPrefix(name, "s3://") || isClickHouse(name) {
		return true
	}
	info, err := os.Stat(filepath.Join(name, "v1"))
	return err == nil && info.IsDir()
}

func openStore(ctx context.Context, where string, s streams) (store, error) {
	if isClickHouse(where) {
		d, err := clickhouse.Open(ctx, where, clickhouse.Options{ReadOnly: true, Told: func(what string) { fmt.Fprintln(s.err, what) }})
		return &recordedDatabase{d}, err
	}
	files, err := flowstore.Open(ctx, where, flowstore.Options{ReadOnly: true, S3: flowstore.FromEnvironment(os.Getenv)})
	return &recordedStore{files}, err
}

func (r *recordedStore) Scan(ctx context.Context, f *simulator.Filter, each func(*policies.Flow) error) (flowlog.Stats, error) {
	var stats flowlog.Stats
	err := r.Store.Scan(ctx, f, func(f *policies.Flow) error {
		stats.Flows++
		return each(f)
	})
	return stats, err
}

func (r *recordedStore) Size(ctx context.Context) (files int, bytes uint64, err error) {
	stats, err := r.Stats(ctx)
	return len(stats.Files), uint64(stats.Bytes), err
}

func (r *recordedDatabase) Scan(ctx context.Context, f *simulator.Filter, each func(*policies.Flow) error) (flowlog.Stats, error) {
	var stats flowlog.Stats
	err := r.Store.Scan(ctx, f, func(f policies.Flow) error {
		stats.Flows++
		return each(&f)
	})
	return stats, err
}

func (r *recordedDatabase) Summed(_ context.Context, f *simulator.Filter) (simulator.Summed, error) {
	return r.Store.Summed(f), nil
}

// Size returns the parts of tables.
func (r *recordedDatabase) Size(ctx context.Context) (files int, bytes uint64, err error) {
	stats, err := r.Stats(ctx)
	return stats.Parts, stats.Bytes, err
}

// replaySpan is the flags by which replays choose flows by time.
type replaySpan struct{ choice }

func (p *replaySpan) addTo(c *cobra.Command) {
	p.now = time.Now
	c.Flags().StringVar(&p.since, "since", "", "only flows first seen at this `moment` or later: 30d, 12h, 2026-03-01, 2026-03-01T12:00:00Z")
	c.Flags().StringVar(&p.until, "until", "", "only flows first seen before this `moment`")
}

// From so many bytes on, replays of stores and of files collect garbage ever more often
// rather than take more memory. The program itself comes on top, some 65 MB. Tables are
// added up in memory before they are replayed.
const (
	replayMemory = 280 << 20
	filesMemory  = 340 << 20
)

// keepTo has garbage collected in time. It is the user's to say otherwise.
func keepTo(bytes int64) {
	if os.Getenv("GOGC")+os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}

// store returns the flows of a store, if --flows names one, and what is left out of
// them.
func (p *replaySpan) store(ctx context.Context, f *flowFiles) (simulator.Recorded, flowlog.Stats, error) {
	var left flowlog.Stats
	since, until, err := p.span()
	if err != nil || !slices.ContainsFunc(f.patterns, isStore) {
		return nil, left, err
	}
	opened, err := f.open(ctx, p.streams)
	if err != nil {
		return nil, left, err
	}
	keepTo(replayMemory)
	r := opened.(store)
	if !since.IsZero() || !until.IsZero() {
		without, err := r.Untimed(ctx)
		if err != nil {
			return nil, left, err
		}
		if without > 0 {
			left.LeftOut = map[string]uint64{flowlog.Untimed: without}
		}
		if since.IsZero() {
			since = flowrow.Moment(flowrow.NoTime + 1)
		}
	}
	recorded, err := r.Recorded(ctx, flowrow.Range{Since: since, Until: until})
	return recorded, left, err
}

// read hands over the flows of files that are of the time asked for. Rows of
// tables go together.
func (p *replaySpan) read(ctx context.Context, f *flowFiles, s streams, files []string, to *simulator.Replayers) (flowlog.Stats, error) {
	since, until, err := p.span()
	if err != nil {
		return flowlog.Stats{}, err
	}
	keepTo(filesMemory)
	sums, summing := flowlog.NewSums(to), *f
	sums.Since, sums.Until, summing.options.Sums = since, until, sums
	filter := simulator.Filter{Since: since, Until: until}
	var without uint64
	stats, err := summing.read(ctx, s, files, func(flow policies.Flow) error {
		switch filter.Match(&flow) {
		case simulator.Yes:
			to.Add(flow)
		case simulator.NotSay:
			without++
		}
		return nil
	})
	sums.Flush()
	if without > 0 {
		stats.Flows -= without
		stats.Add(flowlog.Stats{LeftOut: map[string]uint64{flowlog.Untimed: without}})
	}
	return stats, err
}

// tally reads what the flows come to that are of the time asked for: one for all
// whose ends, port and verdict are the same. It is not nil.
func (p *replaySpan) tally(ctx context.Context, f *flowFiles) ([]policies.Flow, error) {
	since, until, err := p.span()
	if err != nil {
		return nil, err
	}
	from, err := f.open(ctx, p.streams)
	if err != nil {
		return nil, err
	}
	type tuple struct {
		from, to int
		protocol netset.Protocol
		port     uint16
		verdict  policies.Verdict
	}
	ends, known, all := map[flowrow.End]int{}, map[tuple]int{}, []policies.Flow{}
	end := func(p *policies.FlowPeer) int {
		e := flowrow.EndOf(p)
		if _, ok := ends[e]; !ok {
			ends[e] = len(ends)
		}
		return ends[e]
	}
	filter := simulator.Filter{Since: since, Until: until}
	_, err = from.Scan(ctx, &filter, func(flow *policies.Flow) error {
		if filter.Match(flow) != simulator.Yes {
			return nil
		}
		t := tuple{end(&flow.From), end(&flow.To), flow.Protocol, flow.Port, flow.Verdict}
		k, ok := known[t]
		if !ok {
			known[t] = len(all)
			all = append(all, *flow)
			return nil
		}
		sum := &all[k]
		sum.Count += flow.Count
		sum.Bytes += flow.Bytes
		if sum.First.IsZero() || !flow.First.IsZero() && flow.First.Before(sum.First) {
			sum.First = flow.First
		}
		if flow.Last.After(sum.Last) {
			sum.Last = flow.Last
		}
		return nil
	})
	return all, err
}

// choice is the flags by which recorded flows are chosen.
type choice struct {
	streams
	flows                        flowFiles
	peers, from, to, ports, hits []string
	verdicts, reporters, origins []string
	since, until                 string
	now                          func() time.Time
	reading                      flowlog.Stats
	notSaying                    uint64
}

func newChoice(s streams) *choice { return &choice{streams: s, now: time.Now} }

func (o *choice) addTo(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.flows.patterns, "flows", nil, flowsUsage)
	o.flows.addReadingTo(c)
	o.addChoosingTo(c)
	f.StringSliceVar(&o.origins, "origin", nil, "recorded in one of these `formats`: "+strings.Join(flowlog.Formats(), ", "))
	completeList(c, "origin", flowlog.Formats()...)
	f.StringVar(&o.since, "since", "", "first seen at this `moment` or later: 30d, 12h, 2026-03-01, 2026-03-01T12:00:00Z")
	f.StringVar(&o.until, "until", "", "first seen before this `moment`")
}

// addChoosingTo adds the flags that choose flows by what they are.
func (o *choice) addChoosingTo(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.peers, "peer", nil, "with this `end` on either side: shop/*, shop/web, shop/Deployment/web, shop/pod/web-0, app=web, shop/app=web, an address, a CIDR, or world; repeatable")
	f.StringArrayVar(&o.from, "from", nil, "from this `end`; repeatable")
	f.StringArrayVar(&o.to, "to", nil, "to this `end`; repeatable")
	f.StringArrayVar(&o.ports, "port", nil, "on this `port`: 5432, UDP/53, TCP/8000-8100, ICMP; repeatable")
	f.StringArrayVar(&o.hits, "policy", nil, "judged by this `policy`, as recorded: shop/db, NetworkPolicy/shop/db, guard, or tier:security; repeatable")
	f.StringSliceVar(&o.verdicts, "verdict", nil, "with one of these recorded `verdicts`: allow, deny, unknown")
	completeList(c, "verdict", "allow", "deny", "unknown")
	f.StringSliceVar(&o.reporters, "reporter", nil, "as one of these `sides` reported them: source, destination, way")
	completeList(c, "reporter", "source", "destination", "way")
}

// filter reads the flags, or says everything that is wrong with them.
func (o *choice) filter() (*simulator.Filter, error) {
	var f simulator.Filter
	var errs []error
	wrong := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	for _, ends := range []struct {
		flag  string
		texts []string
		to    *[]simulator.End
	}{{"peer", o.peers, &f.Either}, {"from", o.from, &f.From}, {"to", o.to, &f.To}} {
		for _, text := range ends.texts {
			e, err := simulator.ParseEnd(text)
			wrong(ends.flag, err)
			*ends.to = append(*ends.to, e)
		}
	}
	for _, text := range o.ports {
		p, err := policies.ParsePort(text)
		if err == nil && p.Name != "" {
			err = fmt.Errorf("%q is a port's name, and records have numbers", text)
		}
		wrong("port", err)
		f.Ports = netset.JoinPorts(f.Ports, p.Ports)
	}
	for _, text := range o.hits {
		p, err := simulator.ParseHit(text)
		wrong("policy", err)
		f.Policies = append(f.Policies, p)
	}
	for _, text := range o.verdicts {
		var v policies.Verdict
		err := v.UnmarshalText([]byte(text))
		if err == nil && v == policies.Undecided {
			err = fmt.Errorf("%q is none of allow, deny, unknown", text)
		}
		wrong("verdict", err)
		f.Verdicts = append(f.Verdicts, v)
	}
	for _, text := range o.reporters {
		r, err := policies.ParseReporter(text)
		wrong("reporter", err)
		f.Reporters = append(f.Reporters, r)
	}
	for _, text := range o.origins {
		if !slices.Contains(flowlog.Formats(), text) {
			wrong("origin", fmt.Errorf("%q is none of %s", text, strings.Join(flowlog.Formats(), ", ")))
		}
	}
	f.Formats = o.origins
	var err error
	f.Since, f.Until, err = o.span()
	return &f, errors.Join(append(errs, err)...)
}

// span reads --since and --until.
func (o *choice) span() (since, until time.Time, err error) {
	var errs []error
	now := o.now()
	for _, bound := range []struct {
		flag, text string
		at         *time.Time
	}{{"since", o.since, &since}, {"until", o.until, &until}} {
		if bound.text == "" {
			continue
		}
		at, err := simulator.ParseMoment(bound.text, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", bound.flag, err))
		}
		*bound.at = at
	}
	if len(errs) == 0 && !since.IsZero() && !until.IsZero() && !since.Before(until) {
		errs = append(errs, fmt.Errorf("--since %s is not before --until %s", since.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return since, until, errors.Join(errs...)
}

// scan calls each for the flows that the flags choose. What each keeps, it may
// keep, but not change.
func (o *choice) scan(ctx context.Context, f *simulator.Filter, each func(*policies.Flow) error) error {
	r, err := o.flows.open(ctx, o.streams)
	if err != nil {
		return err
	}
	o.reading, err = r.Scan(ctx, f, func(flow *policies.Flow) error {
		switch f.Match(flow) {
		case simulator.Yes:
			return each(flow)
		case simulator.NotSay:
			o.notSaying++
		}
		return nil
	})
	return err
}

// countsSums is what counts flows, and may count sums of them.
type countsSums interface {
	AddSum(f *policies.Flow, records uint64) error
}

// count has to counted what the flows come to that the flags choose: sums of a store,
// where those tell all that it takes, else every record.
func (o *choice) count(c *cobra.Command, out *output, to countsSums, bySums bool) error {
	f, err := o.filter()
	if err := errors.Join(err, out.check(), readOnce(o.flows.patterns...)); err != nil {
		return err
	}
	if bySums && f.TellsTuples() && slices.ContainsFunc(o.flows.patterns, isStore) {
		r, err := o.flows.open(c.Context(), o.streams)
		if err != nil {
			return err
		}
		summed, err := r.(store).Summed(c.Context(), f)
		if err != nil {
			return err
		}
		o.reading.Flows, o.notSaying, err = simulator.Sum(c.Context(), summed, f, to.AddSum)
		return err
	}
	return o.scan(c.Context(), f, func(f *policies.Flow) error { return to.AddSum(f, 1) })
}

// selection says what scan read and left out.
func (o *choice) selection() report.Selection {
	return report.Selection{Reading: preview.Reading(o.reading), NotSaying: o.notSaying}
}

// look is what verbs that look at flows have in common: a filter that is read, an
// output that is checked, and each flow handed over.
func (o *choice) look(c *cobra.Command, out *output, each func(*policies.Flow) error) error {
	f, err := o.filter()
	if err := errors.Join(err, out.check(), readOnce(o.flows.patterns...)); err != nil {
		return err
	}
	return o.scan(c.Context(), f, each)
}
