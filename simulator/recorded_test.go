package simulator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// shelf keeps flows by tuple, in memory, and notes which were looked at.
type shelf struct {
	tuples []Tuple
	flows  [][]policies.Flow // by ID
	asked  []uint64          // of which hours were read
	read   []uint64
	fails  error
}

// shelve keeps flows; where it is asked to, tuples know their pods by the
// beginning of their names only.
func shelve(flows []policies.Flow, byPrefix bool) *shelf {
	s := &shelf{}
	ids := map[string]uint64{}
	for _, f := range flows {
		f.Count = max(1, f.Count)
		ends := policies.Flow{From: identity(f.From, byPrefix), To: identity(f.To, byPrefix), Protocol: f.Protocol, Port: f.Port}
		id, known := ids[fmt.Sprint(ends)]
		if !known {
			id = uint64(len(ids))
			ids[fmt.Sprint(ends)] = id
			ends.From.Address, ends.To.Address = f.From.Address, f.To.Address
			s.tuples, s.flows = append(s.tuples, Tuple{ID: id, Flow: ends}), append(s.flows, nil)
		}
		t := &s.tuples[id]
		if t.Flow.From.Address != f.From.Address {
			t.Flow.From.Address = netip.Addr{}
		}
		if t.Flow.To.Address != f.To.Address {
			t.Flow.To.Address = netip.Addr{}
		}
		s.flows[id] = append(s.flows[id], f)
		t.add(&f)
	}
	return s
}

func identity(p policies.FlowPeer, byPrefix bool) policies.FlowPeer {
	p.Address = netip.Addr{}
	if i := strings.LastIndexByte(p.Pod, '-'); byPrefix && strings.HasPrefix(p.Pod, "web-") {
		p.Pod, p.PodPrefix = "", p.Pod[:i+1]
	}
	return p
}

func (t *Tuple) add(f *policies.Flow) {
	i := slices.IndexFunc(t.Sides, func(s Side) bool {
		return s.Reporter == f.Origin.Reporter && s.Verdict == f.Verdict && s.EgressOnly == f.EgressOnly
	})
	if i < 0 {
		i = len(t.Sides)
		t.Sides = append(t.Sides, Side{Reporter: f.Origin.Reporter, Verdict: f.Verdict, EgressOnly: f.EgressOnly})
	}
	s := &t.Sides[i]
	s.Flows, s.Bytes = s.Flows+f.Count, s.Bytes+f.Bytes
	s.First, s.Last = earliest(s.First, f.First), latest(s.Last, f.Last)
}

// Tuples hands over each tuple in memory that is used again.
func (s *shelf) Tuples(_ context.Context, each func(*Tuple) error) error {
	var shared Tuple
	from, to := labels{}, labels{}
	for _, t := range s.tuples {
		shared.ID, shared.Flow, shared.Sides = t.ID, t.Flow, append(shared.Sides[:0], t.Sides...)
		clear(from)
		clear(to)
		if t.Flow.From.Labels != nil {
			maps.Copy(from, t.Flow.From.Labels)
			shared.Flow.From.Labels = from
		}
		if t.Flow.To.Labels != nil {
			maps.Copy(to, t.Flow.To.Labels)
			shared.Flow.To.Labels = to
		}
		if err := each(&shared); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) Days(context.Context) (days []time.Time, err error) {
	for _, flows := range s.flows {
		for _, f := range flows {
			days = append(days, f.First.Truncate(24*time.Hour))
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.Compact(days), nil
}

func (s *shelf) Hours(_ context.Context, day time.Time, tuples []uint64, each func(uint64, *Side, []HourFlows) error) error {
	s.asked = append(s.asked, tuples...)
	return s.of(day, tuples, func(tuple uint64, f *policies.Flow) error {
		side := Side{Reporter: f.Origin.Reporter, Verdict: f.Verdict, EgressOnly: f.EgressOnly}
		return each(tuple, &side, []HourFlows{{floorDiv(f.First.Unix(), 3600), f.Count}})
	})
}

func (s *shelf) Flows(_ context.Context, day time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	s.read = append(s.read, tuples...)
	return errors.Join(s.of(day, tuples, each), s.fails)
}

// of hands over the records of some tuples on a day.
func (s *shelf) of(day time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	if !slices.IsSorted(tuples) {
		return errors.New("tuples are not sorted")
	}
	for _, id := range tuples {
		for _, f := range s.flows[id] {
			if f.First.Truncate(24 * time.Hour).Equal(day) {
				if err := each(id, &f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// replayRecorded also returns the distinct tuples whose records were read.
func replayRecorded(before, after *policies.Model, s *shelf) (*Result, []uint64, error) {
	b, h := reach.New(before, reach.Options{}), (*reach.Judge)(nil)
	if after != nil {
		b, h = reach.Pair(before, after, reach.Options{})
	}
	r := New(b, h)
	if err := r.Replay(context.Background(), s); err != nil {
		return nil, nil, err
	}
	slices.Sort(s.read)
	return r.Result(), slices.Compact(s.read), nil
}

// TestARecordingIsReplayedAsItsFlows compares Replay with Add, but for examples of
// what nobody asks about and for the number of questions: an address outside that
// makes no difference is not asked about.
func TestARecordingIsReplayedAsItsFlows(t *testing.T) {
	before, after := shop()
	comparable := func(r *Result) *Result {
		r.Questions = 0
		rows := slices.Collect(r.Rows.All())
		for i := range rows {
			if o := rows[i].Outcome; o == Stays || o == Undecided {
				rows[i].Example = policies.Flow{}
			}
		}
		r.Rows = RowsOf(rows...)
		return r
	}
	rapid.Check(t, func(t *rapid.T) {
		flows := someFlows(t)
		if rapid.Bool().Draw(t, "at midnight") {
			for i := range flows {
				flows[i].First = flows[i].First.Add(10 * time.Hour)
			}
		}
		change := after
		if rapid.Bool().Draw(t, "one model") {
			change = nil
		}
		want := replay(before, change, flows...)
		got, _, err := replayRecorded(before, change, shelve(flows, rapid.Bool().Draw(t, "by prefix")))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(comparable(want), comparable(got), exact); d != "" {
			t.Fatal("(-want +got)\n" + d)
		}
	})
}

// TestAPodThatTalksToItself is of records that name pods whose tuples do not.
func TestAPodThatTalksToItself(t *testing.T) {
	before, after := shop()
	open := *before
	open.Policies = nil
	for name, models := range map[string][2]*policies.Model{"closed": {before, after}, "open": {&open, nil}, "closing": {&open, after}} {
		for _, v := range []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
			flows := []policies.Flow{flow(web, web, 9, v), flow(web+" app=web", web, 80, v)}
			got, _, err := replayRecorded(models[0], models[1], shelve(flows, true))
			if err != nil {
				t.Errorf("%s, %s: %v", name, v, err)
				continue
			}
			if want := replay(models[0], models[1], flows...); !cmp.Equal(want.Outcomes, got.Outcomes) {
				t.Errorf("%s, %s: %v, want %v", name, v, got.Outcomes, want.Outcomes)
			}
		}
	}
}

func TestOnlyRecordsThatTellMoreAreRead(t *testing.T) {
	before, after := shop()
	const allow, deny = policies.Allow, policies.Deny
	at := func(hour int, f policies.Flow) policies.Flow {
		f.First = noon.Add(time.Duration(hour) * time.Hour)
		f.Last = f.First
		return f
	}
	for name, row := range map[string]struct {
		flows []policies.Flow
		want  []uint64
	}{
		"what stays":                             {[]policies.Flow{flow(web, "shop/report-29387520-abcde", 81, allow)}, nil},
		"what has no verdict":                    {[]policies.Flow{flow(web, db, 5432, policies.Unknown)}, nil},
		"what breaks":                            {[]policies.Flow{flow(web, db, 5432, allow)}, []uint64{0}},
		"the first that breaks":                  {[]policies.Flow{at(3, flow("shop/ app=web", db, 5432, allow)), at(2, flow(web, db, 5432, allow)), at(4, flow(web, db, 5432, allow))}, []uint64{1}},
		"an address that makes no difference":    {[]policies.Flow{flow("outside 192.0.2.0", web, 81, deny), flow("outside 192.0.2.7", web, 81, deny)}, nil},
		"an address that does":                   {[]policies.Flow{flow("outside 192.0.2.0", web, 80, deny), flow("outside 192.0.2.7", web, 80, deny)}, []uint64{0}},
		"the only address there is":              {[]policies.Flow{flow("outside 198.51.100.1", web, 80, allow), flow("outside 198.51.100.1", web, 80, allow)}, nil},
		"an address that makes none, but drifts": {[]policies.Flow{flow("outside 192.0.2.0", web, 81, allow), flow("outside 192.0.2.7", web, 81, allow)}, []uint64{0}},
		"a namespace that is not there":          {[]policies.Flow{flow("legacy/x 192.0.2.1", db, 1, allow), flow("legacy/x 192.0.2.2", db, 1, allow)}, nil},
		"a name that an address may tell":        {[]policies.Flow{flow("ops/x 10.1.0.7", db, 1, deny), flow("ops/x 10.1.0.8", db, 1, deny)}, []uint64{0}},
		"nothing but addresses":                  {[]policies.Flow{flow("10.1.0.7", web, 81, deny), flow("10.1.0.8", web, 81, deny)}, []uint64{0}},
	} {
		if _, read, err := replayRecorded(before, after, shelve(row.flows, false)); err != nil || !slices.Equal(read, row.want) {
			t.Errorf("%s: read %v, want %v (%v)", name, read, row.want, err)
		}
	}
}

func TestOnlyHoursThatMayHaveTwinsAreRead(t *testing.T) {
	before, after := shop()
	const source, destination = policies.SourceSide, policies.DestinationSide
	stays, sameWorkload := flow("shop/ app=web", db, 5432, policies.Allow), flow(web, db, 5432, policies.Allow)
	own, hidden, too := flow("own", web, 81, policies.Allow), flow("10.1.0.7", web, 81, policies.Deny), flow("10.1.0.8", web, 81, policies.Deny)
	for name, row := range map[string]struct {
		flows []policies.Flow
		want  []uint64
	}{
		"one side alone":                   {[]policies.Flow{reported(source, 1, 1, 1, stays), reported(source, 2, 1, 1, sameWorkload)}, nil},
		"both sides of a tuple":            {[]policies.Flow{reported(source, 1, 1, 1, stays), reported(destination, 1, 1, 1, stays)}, []uint64{0}},
		"two tuples of one question":       {[]policies.Flow{reported(source, 1, 1, 1, stays), reported(destination, 1, 1, 1, sameWorkload)}, []uint64{0, 1}},
		"somebody whose records are read":  {[]policies.Flow{reported(source, 1, 1, 1, stays), reported(destination, 1, 1, 1, hidden), reported(destination, 1, 1, 1, too)}, []uint64{0}},
		"an end that nobody reports for":   {[]policies.Flow{reported(source, 1, 1, 1, own), reported(destination, 1, 1, 1, own)}, nil},
		"an end that is nowhere, by name":  {[]policies.Flow{reported(source, 1, 1, 1, flow("legacy/x", db, 1, policies.Allow)), reported(destination, 1, 1, 1, flow("legacy/x", db, 1, policies.Allow))}, []uint64{0}},
		"a gateway, which is on no side":   {[]policies.Flow{reported(source, 1, 1, 1, stays), reported(policies.OnTheWay, 1, 1, 1, stays)}, nil},
		"the destination's, whatever else": {[]policies.Flow{reported(destination, 1, 1, 1, stays), reported(destination, 1, 1, 1, flow(web, db, 5432, policies.Deny))}, nil},
	} {
		s := shelve(row.flows, false)
		if _, _, err := replayRecorded(before, after, s); err != nil || !slices.Equal(s.asked, row.want) {
			t.Errorf("%s: read hours of %v, want %v (%v)", name, s.asked, row.want, err)
		}
	}
}

func TestARecordingThatCannotBeRead(t *testing.T) {
	before, after := shop()
	s := shelve([]policies.Flow{flow(web, db, 5432, policies.Allow)}, false)
	s.flows[0] = nil
	if _, _, err := replayRecorded(before, after, s); err == nil || err.Error() != "tuple 0 counts flows of which there is no record; verify the store" {
		t.Error(err)
	}
	s = shelve([]policies.Flow{flow(web, db, 5432, policies.Allow)}, false)
	s.fails = errors.New("no such file")
	if _, _, err := replayRecorded(before, after, s); !errors.Is(err, s.fails) || err.Error() != "read flows of 1 tuples on 2026-03-01: no such file" {
		t.Error(err)
	}
}

// tuplesOf is a recording of as many tuples as there are pairs of some workloads,
// as both sides report them.
type tuplesOf struct {
	workloads int
	verdict   policies.Verdict
}

func (r tuplesOf) tuple(id uint64) Tuple {
	end := func(i uint64) policies.FlowPeer {
		return policies.FlowPeer{Namespace: "shop", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: fmt.Sprint("w", i)}}}
	}
	n := uint64(r.workloads)
	side := Side{Verdict: r.verdict, Flows: 3, Bytes: 5000, First: noon.Add(time.Duration(id) * time.Millisecond), Last: noon.Add(time.Hour)}
	return Tuple{ID: id, Flow: policies.Flow{From: end(id / n), To: end(id % n), Protocol: netset.TCP, Port: 80}, Sides: []Side{
		{policies.SourceSide, side.Verdict, true, side.Flows, side.Bytes, side.First, side.Last}, {policies.DestinationSide, side.Verdict, false, side.Flows, side.Bytes, side.First, side.Last},
	}}
}

func (r tuplesOf) Tuples(_ context.Context, each func(*Tuple) error) error {
	for id := range uint64(r.workloads * r.workloads) {
		t := r.tuple(id)
		if err := each(&t); err != nil {
			return err
		}
	}
	return nil
}

func (r tuplesOf) Days(context.Context) ([]time.Time, error) {
	return []time.Time{noon.Truncate(24 * time.Hour)}, nil
}

func (r tuplesOf) Hours(_ context.Context, _ time.Time, tuples []uint64, each func(uint64, *Side, []HourFlows) error) error {
	for _, id := range tuples {
		for _, side := range r.tuple(id).Sides {
			if err := each(id, &side, []HourFlows{{side.First.Unix() / 3600, side.Flows}}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r tuplesOf) Flows(_ context.Context, _ time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	for _, id := range tuples {
		t := r.tuple(id)
		f := t.Flow
		f.From.Pod, f.To.Pod, f.SourcePort, f.Packets = f.From.Workloads[0].Name+"-x", f.To.Workloads[0].Name+"-x", 40000, 9
		for i := range t.Sides {
			t.Sides[i].describe(&f)
			if err := each(id, &f); err != nil {
				return err
			}
		}
	}
	return nil
}

// BenchmarkReplayTuples replays 160,000 tuples, no two of which ask the same.
func BenchmarkReplayTuples(b *testing.B) {
	const workloads = 400
	m := model(policies.World{Namespaces: world().Namespaces})
	for i := range workloads {
		m.Pods = append(m.Pods, deployed("shop", "Deployment", fmt.Sprint("w", i), 2, labels{"app": fmt.Sprint("w", i)}))
	}
	for name, verdict := range map[string]policies.Verdict{"stay": policies.Allow, "drift": policies.Deny} {
		b.Run(name, func(b *testing.B) {
			var held [2]float64
			for b.Loop() {
				r := New(reach.New(m, reach.Options{}), nil)
				before := heapInUse()
				if err := r.Replay(b.Context(), tuplesOf{workloads, verdict}); err != nil {
					b.Fatal(err)
				}
				held[0] = heapInUse() - before
				result := r.Result()
				held[1] = heapInUse() - before
				if result.Flows != 6*workloads*workloads {
					b.Fatal(result.Flows)
				}
				runtime.KeepAlive(r)
			}
			b.ReportMetric(held[0]/(workloads*workloads), "bytes/tuple")
			b.ReportMetric(held[1]/(workloads*workloads), "bytes/tuple-with-row")
		})
	}
}

func heapInUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
