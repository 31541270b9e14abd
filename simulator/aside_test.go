package simulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
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

// memory is a Scratch in memory, of so many bytes.
type memory struct {
	bytes.Buffer
	room int
}

var errNoRoom = errors.New("no room")

func (m *memory) Write(p []byte) (int, error) {
	if m.Len()+len(p) > m.room {
		return 0, errNoRoom
	}
	return m.Buffer.Write(p)
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(m.Bytes()).ReadAt(p, at)
}

func (m *memory) Close() error { return nil }

func inMemory(room int) func() (Scratch, error) {
	return func() (Scratch, error) { return &memory{room: room}, nil }
}

// TestWhatIsPutAsideMakesNoDifference replays recordings, and their flows one by one,
// however little is held of them.
func TestWhatIsPutAsideMakesNoDifference(t *testing.T) {
	before, after := shop()
	rapid.Check(t, func(t *rapid.T) {
		flows := someFlows(t)
		recorded := shelve(flows, rapid.Bool().Draw(t, "by prefix"))
		change := after
		if rapid.Bool().Draw(t, "one model") {
			change = nil
		}
		oneByOne := rapid.Bool().Draw(t, "one by one")
		replayed := func(most int) *Result {
			b, h := reach.New(before, reach.Options{}), (*reach.Judge)(nil)
			if change != nil {
				b, h = reach.Pair(before, change, reach.Options{})
			}
			r := New(b, h)
			if most > 0 {
				r.Spill(inMemory(1<<20), most)
			}
			if oneByOne {
				for i, f := range flows {
					r.Add(f)
					if i == len(flows)/2 {
						r.Result()
					}
				}
			} else if err := r.Replay(context.Background(), recorded); err != nil {
				t.Fatal(err)
			}
			all := r.Result()
			rows := slices.Collect(all.Rows.All())
			if again := slices.Collect(r.Result().Rows.All()); !cmp.Equal(rows, again, exact) {
				t.Fatal("a second result has other rows")
			}
			if err := all.Rows.Err(); err != nil {
				t.Fatal(err)
			}
			all.Rows = RowsOf(rows...)
			return all
		}
		if d := cmp.Diff(replayed(0), replayed(rapid.IntRange(1, 30).Draw(t, "most")), exact); d != "" {
			t.Fatal("(-at once +put aside)\n" + d)
		}
	})
}

// TestLittleIsHeld counts what is held of flows of ever more ports, and of ever more
// addresses outside of one connection that breaks.
func TestLittleIsHeld(t *testing.T) {
	before, after := shop()
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const most = 20
	for name, of := range map[string]func(i int) policies.Flow{
		"ports": func(i int) policies.Flow { return flow(web, db, uint16(5000+i), policies.Allow) },
		"addresses": func(i int) policies.Flow {
			f := flow(web, db, 5432, policies.Allow)
			f.From = policies.FlowPeer{Outside: true, Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}
			return f
		},
		"days": func(i int) policies.Flow {
			f := flow(web, db, 5432, policies.Allow)
			f.First = at.AddDate(0, 0, i)
			return f
		},
		"names that are nowhere": func(i int) policies.Flow {
			gone := policies.FlowPeer{Namespace: "shop", Pod: fmt.Sprint("gone-", i), Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: fmt.Sprint("gone-", i)}}}
			f := flow(web, db, 5432, policies.Allow)
			f.From = gone
			return f
		},
	} {
		r := New(reach.Pair(before, after, reach.Options{}))
		r.Spill(inMemory(1<<20), most)
		for i := range 200 {
			f := of(i)
			if f.First.IsZero() {
				f.First = at
			}
			f.Origin.Reporter = policies.DestinationSide
			r.Add(f)
			if r.held > most+8 {
				t.Fatalf("%s: %d are held, of %d that may be", name, r.held, most)
			}
		}
		if r.aside == nil {
			t.Errorf("%s: nothing was put aside", name)
		}
		if got := r.Result(); got.Flows != 200 || got.Rows.Err() != nil {
			t.Errorf("%s: %d flows of 200, %v", name, got.Flows, got.Rows.Err())
		}
	}
}

func TestAScratchThatIsFull(t *testing.T) {
	before, after := shop()
	var flows []policies.Flow
	for i := range 100 {
		flows = append(flows, flow(web, db, uint16(1+i), policies.Allow))
	}
	for _, room := range []int{0, 2000} {
		r := New(reach.Pair(before, after, reach.Options{}))
		r.Spill(inMemory(room), 20)
		err := r.Replay(t.Context(), shelve(flows, false))
		if err == nil {
			err = r.Result().Rows.Err()
		}
		if !errors.Is(err, errNoRoom) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
	}
	r := New(reach.Pair(before, after, reach.Options{}))
	r.Spill(func() (Scratch, error) { return nil, errNoRoom }, 20)
	for _, f := range flows {
		r.Add(f)
	}
	if err := r.Result().Rows.Err(); !errors.Is(err, errNoRoom) {
		t.Errorf("no scratch: %v", err)
	}
}

func TestSorter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.IntRange(0, 50), 0, 400).Draw(t, "all")
		s := &sorter[int]{
			open: inMemory(1 << 20), most: rapid.IntRange(1, 20).Draw(t, "most"), compare: func(a, b *int) int { return *a - *b },
			append: func(b []byte, v *int) []byte { return fmt.Append(b, *v) },
			read:   func(b []byte) (n int, err error) { _, err = fmt.Sscan(string(b), &n); return n, err },
		}
		for _, v := range all {
			if err := s.add(v); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Sorted(slices.Values(all))
		for range 2 {
			var got []int
			if err := s.each(func(v *int) error { got = append(got, *v); return nil }); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// TestPartsArePacked has what is put aside of reports, of which some have very many flows.
func TestPartsArePacked(t *testing.T) {
	r := New(reach.New(&policies.Model{}, reach.Options{}), nil)
	rapid.Check(t, func(t *rapid.T) {
		want := part{owner: owner{answerKey: answerKey{
			from: rapid.Int32Min(0).Draw(t, "from"), to: 7, port: rapid.Uint16().Draw(t, "port"), protocol: netset.TCP, leaves: rapid.Bool().Draw(t, "leaves"),
			before: r.ruling(ruling{policies.Deny, rapid.String().Draw(t, "cause")}), after: r.ruling(ruling{}),
		}}}
		if rapid.Bool().Draw(t, "named") {
			want.owner = owner{named: &namedConnection{"it is nowhere", connectionKey{"", endName{"shop", "web"}, endName{"", "203.0.113.9"}, netset.UDP, 53}}}
		}
		if rapid.Bool().Draw(t, "reports") {
			want.pairs = &pairing{settled: rapid.Uint64().Draw(t, "settled"), left: remains{hour: rapid.Int64().Draw(t, "last hour")}}
			for range rapid.IntRange(0, 9).Draw(t, "hours") {
				want.pairs.addHours(side(rapid.IntRange(0, 1).Draw(t, "side")), []HourFlows{{rapid.Int64Range(-100, 100_000).Draw(t, "hour"), rapid.Uint64Range(0, 1<<40).Draw(t, "flows")}})
			}
		} else {
			want.key = tallyKey{kind{policies.Allow, rapid.Bool().Draw(t, "half")}, netip.Addr{}, netip.MustParseAddr("2001:db8::1")}
			want.flows, want.bytes = rapid.Uint64().Draw(t, "flows"), 9
		}
		got, err := r.readPart(appendPart(nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		if compareParts(&got, &want) != 0 || got.flows != want.flows || got.bytes != want.bytes {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if want.pairs != nil {
			counts := func(p *pairing) map[int64][2]uint64 { return maps.Collect(p.hours(p.days)) }
			if got.pairs.settled != want.pairs.settled || got.pairs.left != want.pairs.left || !cmp.Equal(counts(got.pairs), counts(want.pairs)) {
				t.Fatalf("got %+v, want %+v", got.pairs, want.pairs)
			}
		}
	})
}

// TestRowsArePacked has rows of which everything is set, and of which nothing is.
func TestRowsArePacked(t *testing.T) {
	address, block := netip.MustParseAddr("2001:db8::1"), netip.MustParsePrefix("192.0.2.0/24")
	one := policies.FlowPeer{
		Namespace: "shop", Pod: "web-1", PodPrefix: "web-", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: "web"}},
		Labels: labels{"app": "web", "": "x"}, LabelsPartial: true, Address: address, Set: policies.Ref{Kind: "NetworkSet", Name: "s"},
		Network: policies.PublicNetwork, Outside: true, Host: true, OwnNode: true, Names: []string{"a.example", "b.example"},
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	full := policies.Flow{
		First: at, Last: at.Add(time.Hour), From: one, To: policies.FlowPeer{Labels: labels{}}, Protocol: netset.SCTP, Port: 65535, Verdict: policies.Deny,
		EgressOnly: true, Count: 1 << 40, SourcePort: 40000, Bytes: 1, Packets: 2, ReplyBytes: 3, ReplyPackets: 4,
		Hits:   []policies.Hit{{Tier: "t", Policy: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "p"}, Action: policies.ActionDeny, Rule: policies.EndOfTier, Staged: true}},
		Origin: policies.Origin{Format: "hubble", Reporter: policies.DestinationSide, Window: time.Minute},
		Record: policies.Place{File: "flows.jsonl", Line: 7, Column: 2},
	}
	for _, c := range []struct {
		flow     policies.Flow
		from, to policies.Peer
	}{
		{full, policies.Peer{Namespace: "shop", Name: "web", Kind: "Deployment", Pod: "web-1"}, policies.Outside(netset.Block{CIDR: block, Except: []netip.Prefix{block}})},
		{},
	} {
		want := row{
			rowKey: rowKey{&c.from, &c.to, "why", 3, netset.UDP, 53, policies.Allow, policies.Deny, policies.Unknown}, flows: 1 << 50, bytes: 3,
			seen: spanOf(at, time.Time{}), example: exampleOf(&c.flow, &recorded{peer: c.flow.From}, &recorded{peer: c.flow.To}),
		}
		packed := appendRow(nil, &want)
		got, err := readRow(packed)
		if err != nil {
			t.Fatal(err)
		}
		if compareKeys(&got, &want) != 0 || got.flows != want.flows || got.bytes != want.bytes || got.seen != want.seen || compareExamples(got.example, want.example) != 0 {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if d := cmp.Diff(want.example.flow(), got.example.flow(), exact); d != "" {
			t.Error("(-want +got)\n" + d)
		}
		if d := cmp.Diff([]policies.Peer{*want.from, *want.to}, []policies.Peer{*got.from, *got.to}, exact); d != "" {
			t.Error("(-want +got)\n" + d)
		}
		for n := range packed {
			if _, err := readRow(packed[:n]); err == nil {
				t.Errorf("%d of %d bytes are read as if they were all", n, len(packed))
			}
		}
		if _, err := readRow([]byte(strings.Repeat("\xff", 40))); err == nil {
			t.Error("other bytes are read")
		}
	}
}
