package flowstore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

var equal = gocmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateComparable(time.Time{})}

// long is far behind all times of the tests: every hour has closed.
var long = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func openStore(t testing.TB, where string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), where, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, s *Store, all ...policies.Flow) {
	t.Helper()
	w := s.NewWriter()
	for i := range all {
		if err := w.Add(t.Context(), &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func compact(t testing.TB, s *Store, now time.Time) Compacted {
	t.Helper()
	done, err := s.Compact(t.Context(), now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func verify(t testing.TB, s *Store) {
	t.Helper()
	for _, err := range s.Verify(t.Context(), time.Now(), nil) {
		t.Error(err)
	}
}

// all returns the flows of a store in an order of their own.
func all(t testing.TB, s *Store, q simulator.Filter) []policies.Flow {
	t.Helper()
	var found []policies.Flow
	if err := s.Scan(t.Context(), &q, func(f *policies.Flow) error { found = append(found, *f); return nil }); err != nil {
		t.Fatal(err)
	}
	return ordered(found)
}

func ordered(all []policies.Flow) []policies.Flow {
	text := func(f policies.Flow) string { return fmt.Sprintf("%+v", f) }
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b policies.Flow) int {
		if c := cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last), cmp.Compare(a.Bytes, b.Bytes)); c != 0 {
			return c
		}
		return cmp.Compare(text(a), text(b))
	})
	return all
}

func recordedOf(t testing.TB, s *Store, r Range) simulator.Recorded {
	t.Helper()
	found, err := s.Recorded(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// summed is what the tuples of a store come to, by what names them.
type tupleHour struct {
	ID         uint64
	Start      int64
	Reporter   policies.Reporter
	Verdict    policies.Verdict
	EgressOnly bool
}

type tupleSum struct {
	Flows, Bytes uint64
	First, Last  time.Time
}

// tuplesOf returns what tuples say of each hour, and in all.
func tuplesOf(t testing.TB, r simulator.Recorded) map[tupleHour]tupleSum {
	t.Helper()
	found := map[tupleHour]tupleSum{}
	last, begun := uint64(0), false
	err := r.Tuples(t.Context(), func(tuple *simulator.Tuple) error {
		if begun && tuple.ID <= last {
			t.Errorf("tuple %x comes after %x", tuple.ID, last)
		}
		last, begun = tuple.ID, true
		for _, side := range tuple.Sides {
			key := tupleHour{tuple.ID, allHours, side.Reporter, side.Verdict, side.EgressOnly}
			if _, twice := found[key]; twice {
				t.Errorf("side %+v comes twice", key)
			}
			found[key] = tupleSum{side.Flows, side.Bytes, side.First, side.Last}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	days, err := r.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint64]bool{}
	for key := range found {
		ids[key.ID] = true
	}
	all := slices.Sorted(maps.Keys(ids))
	for _, day := range days {
		err := r.Hours(t.Context(), day, all, func(id uint64, side *simulator.Side, hours []simulator.HourFlows) error {
			for _, h := range hours {
				if at := time.Unix(h.Hour*3600, 0).UTC(); !at.Truncate(24 * time.Hour).Equal(day) {
					t.Errorf("hour %s is of another day than %s", at, day)
				}
				key := tupleHour{id, h.Hour * 3600, side.Reporter, side.Verdict, side.EgressOnly}
				found[key] = tupleSum{Flows: found[key].Flows + h.Flows}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

const allHours = math.MinInt64

// sidesOf is what tuplesOf says of flows that countRows has counted.
func sidesOf(hours map[tupleHour]tupleSum) map[tupleHour]tupleSum {
	found := map[tupleHour]tupleSum{}
	for key, of := range hours {
		found[key] = tupleSum{Flows: of.Flows}
		key.Start = allHours
		sum, known := found[key]
		sum.Flows += of.Flows
		sum.Bytes += of.Bytes
		if !known || sum.First.IsZero() || of.First.Before(sum.First) && !of.First.IsZero() {
			sum.First = of.First
		}
		if of.Last.After(sum.Last) {
			sum.Last = of.Last
		}
		found[key] = sum
	}
	return found
}

// countRows is the oracle: it adds up flow by flow.
func countRows(all []policies.Flow) map[tupleHour]tupleSum {
	found, table := map[tupleHour]tupleSum{}, newTable()
	for i := range all {
		f := &all[i]
		r := table.row(f)
		key := tupleHour{table.tuples[r.tuple].id, f.First.Truncate(time.Hour).Unix(), f.Origin.Reporter, f.Verdict, f.EgressOnly}
		sum, known := found[key]
		sum.Flows += max(1, f.Count)
		sum.Bytes += f.Bytes
		if !known || f.First.Before(sum.First) {
			sum.First = f.First
		}
		if f.Last.After(sum.Last) {
			sum.Last = f.Last
		}
		found[key] = sum
	}
	return found
}

func small(seed uint64) flows.Options {
	return flows.Options{Seed: seed, Namespaces: 8, Workloads: 40, Edges: 120, Outside: 200, Rate: 1}
}

func generate(o flows.Options, n int) []policies.Flow {
	g := flows.New(o)
	var all []policies.Flow
	for range n {
		all = append(all, g.Next())
	}
	return all
}

func TestWhatIsAddedIsThere(t *testing.T) {
	made := generate(small(1), 20_000)
	want := ordered(made)
	for _, c := range []struct {
		name    string
		options Options
		parts   int
		compact bool
	}{
		{"as imported", Options{}, 3, false},
		{"compacted", Options{}, 3, true},
		{"with little memory", Options{Memory: 1 << 18}, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), c.options)
			for part := range slices.Chunk(made, len(made)/c.parts+1) {
				add(t, s, part...)
			}
			if c.compact {
				compact(t, s, long)
			}
			verify(t, s)
			if diff := gocmp.Diff(want, all(t, s, simulator.Filter{}), equal); diff != "" {
				t.Fatal(diff)
			}
			r := recordedOf(t, s, Range{})
			if diff := gocmp.Diff(sidesOf(countRows(made)), tuplesOf(t, r)); diff != "" {
				t.Fatal(diff)
			}
			counted := map[uint64]uint64{}
			if err := s.CountTuples(t.Context(), func(id, n uint64) { counted[id] = n }); err != nil {
				t.Fatal(err)
			}
			records := map[uint64]uint64{}
			for key, sum := range countRows(made) {
				records[key.ID] += sum.Flows
			}
			if diff := gocmp.Diff(records, counted); diff != "" {
				t.Fatal(diff)
			}
			checkFlowsOf(t, r, made)
		})
	}
}

// checkFlowsOf asks for the flows of every seventh tuple.
func checkFlowsOf(t *testing.T, r simulator.Recorded, made []policies.Flow) {
	t.Helper()
	table, wanted := newTable(), map[uint64]bool{}
	var want []policies.Flow
	for i := range made {
		row := table.row(&made[i])
		if id := table.tuples[row.tuple].id; id%7 == 0 {
			wanted[id] = true
			want = append(want, made[i])
		}
	}
	var got []policies.Flow
	days, err := r.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		err = errors.Join(err, r.Flows(t.Context(), day, slices.Sorted(maps.Keys(wanted)), func(_ uint64, f *policies.Flow) error { got = append(got, *f); return nil }))
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(ordered(want), ordered(got), equal); diff != "" {
		t.Error(diff)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	made := generate(small(2), 3_000)
	shuffled := slices.Clone(made)
	for i := range shuffled {
		j := i * 7919 % (i + 1)
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	a, b := openStore(t, t.TempDir(), Options{}), openStore(t, t.TempDir(), Options{})
	add(t, a, made...)
	for part := range slices.Chunk(shuffled, 500) {
		add(t, b, part...)
		compact(t, b, long)
	}
	compact(t, a, long)
	verify(t, b)
	if diff := gocmp.Diff(all(t, a, simulator.Filter{}), all(t, b, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff(tuplesOf(t, recordedOf(t, a, Range{})), tuplesOf(t, recordedOf(t, b, Range{}))); diff != "" {
		t.Error(diff)
	}
}

func TestRangeCutsHours(t *testing.T) {
	made := generate(small(3), 12_000)
	since, until := made[2_000].First, made[9_000].First
	var want []policies.Flow
	for _, f := range made {
		if !f.First.Before(since) && f.First.Before(until) {
			want = append(want, f)
		}
	}
	s := openStore(t, t.TempDir(), Options{})
	add(t, s, made...)
	for range 2 {
		r := recordedOf(t, s, Range{Since: since, Until: until})
		if diff := gocmp.Diff(sidesOf(countRows(want)), tuplesOf(t, r)); diff != "" {
			t.Error(diff)
		}
		checkFlowsOf(t, r, want)
		if diff := gocmp.Diff(ordered(want), all(t, s, simulator.Filter{Since: since, Until: until}), equal); diff != "" {
			t.Error(diff)
		}
		compact(t, s, long)
	}
}

func TestFlowsComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFlow(t)
		a, b := newTable(), newTable()
		row := a.row(&f)
		back := b.adopt(a, &row)
		got, err := b.flow(&back)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(f, got, equal); diff != "" {
			t.Fatal(diff)
		}
	})
}

func drawFlow(t *rapid.T) policies.Flow {
	times := rapid.Int64Range(-62135596800000000, 253402300799999999)
	number := rapid.Uint64()
	first := flowrow.Moment(times.Draw(t, "first"))
	f := policies.Flow{
		First: first, Last: flowrow.Moment(times.Draw(t, "last")), From: drawPeer(t), To: drawPeer(t),
		Protocol: netset.Protocol(rapid.Byte().Draw(t, "protocol")), Port: rapid.Uint16().Draw(t, "port"),
		Verdict: policies.Verdict(rapid.IntRange(0, 3).Draw(t, "verdict")), EgressOnly: rapid.Bool().Draw(t, "half"),
		Count: max(1, number.Draw(t, "count")), SourcePort: rapid.Uint16().Draw(t, "source port"),
		Bytes: number.Draw(t, "bytes"), Packets: number.Draw(t, "packets"), ReplyBytes: number.Draw(t, "reply"), ReplyPackets: number.Draw(t, "replies"),
		Origin: policies.Origin{
			Format: rapid.String().Draw(t, "format"), Reporter: policies.Reporter(rapid.IntRange(0, 3).Draw(t, "reporter")),
			Window: time.Duration(rapid.Int64Range(0, 1<<44).Draw(t, "window")) * time.Microsecond,
		},
	}
	for range rapid.IntRange(0, 3).Draw(t, "hits") {
		f.Hits = append(f.Hits, policies.Hit{
			Tier: rapid.String().Draw(t, "tier"), Policy: drawRef(t), Action: policies.Action(rapid.IntRange(0, 4).Draw(t, "action")),
			Rule: rapid.IntRange(-2, 9).Draw(t, "rule"), Staged: rapid.Bool().Draw(t, "staged"),
		})
	}
	return f
}

func drawRef(t *rapid.T) policies.Ref {
	text := rapid.StringMatching("[a-z./,|%=é ]{0,6}")
	return policies.Ref{Group: text.Draw(t, "group"), Kind: text.Draw(t, "kind"), Namespace: text.Draw(t, "namespace"), Name: text.Draw(t, "name")}
}

func drawPeer(t *rapid.T) policies.FlowPeer {
	text := rapid.StringMatching("[a-z./,|%=é -]{0,6}")
	p := policies.FlowPeer{
		Namespace: text.Draw(t, "namespace"), Pod: text.Draw(t, "pod"), PodPrefix: text.Draw(t, "prefix"),
		Set: drawRef(t), Network: policies.Network(rapid.IntRange(0, 2).Draw(t, "network")),
		Outside: rapid.Bool().Draw(t, "outside"), Host: rapid.Bool().Draw(t, "host"), OwnNode: rapid.Bool().Draw(t, "own node"),
		LabelsPartial: rapid.Bool().Draw(t, "partial"),
	}
	if rapid.Bool().Draw(t, "labels") {
		p.Labels = rapid.MapOf(text, text).Draw(t, "labels")
	}
	if p.LabelsPartial && len(p.Labels) == 0 {
		p.Labels = nil
	}
	for range rapid.IntRange(0, 2).Draw(t, "owners") {
		p.Workloads = append(p.Workloads, drawRef(t))
	}
	for range rapid.IntRange(0, 2).Draw(t, "names") {
		p.Names = append(p.Names, text.Draw(t, "name")+".")
	}
	if n := rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "address"); n > 0 {
		p.Address, _ = netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes"))
	}
	return p
}

// TestTuplesThatAreNotHeldTogether reads tuples as often as it takes for those that are
// held at a time.
func TestTuplesThatAreNotHeldTogether(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	g := flows.New(flows.Options{Rate: 0.02, Workloads: 60, Namespaces: 7, Edges: 900})
	made := make([]policies.Flow, 2000)
	for i := range made {
		made[i] = g.Next()
	}
	add(t, s, made[:1500]...)
	compact(t, s, long)
	add(t, s, made[1500:]...)
	said := func(s *Store) (all []string) {
		err := recordedOf(t, s, Range{}).Tuples(t.Context(), func(tuple *simulator.Tuple) error {
			all = append(all, fmt.Sprintf("%+v", *tuple))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	few := openStore(t, dir, Options{ReadOnly: true, Memory: 1})
	want, got := said(s), said(few)
	if len(want) < 5*few.heldTuples() {
		t.Fatalf("there are %d tuples only", len(want))
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error("(-held +in parts)\n" + d)
	}
}
