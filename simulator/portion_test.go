package simulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// TestPortionsMakeNoDifference replays recordings at once and in portions, however
// little is held of them.
func TestPortionsMakeNoDifference(t *testing.T) {
	before, after := shop()
	rapid.Check(t, func(t *rapid.T) {
		recorded := shelve(someFlows(t), rapid.Bool().Draw(t, "by prefix"))
		change := after
		if rapid.Bool().Draw(t, "one model") {
			change = nil
		}
		replayed := func(most int) *Result {
			b, h := reach.New(before, reach.Options{}), (*reach.Judge)(nil)
			if change != nil {
				b, h = reach.Pair(before, change, reach.Options{})
			}
			r := New(b, h)
			if most > 0 {
				r.Spill(inMemory(1<<20), most)
			}
			if err := r.Replay(context.Background(), recorded); err != nil {
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
			t.Fatal("(-at once +in portions)\n" + d)
		}
	})
}

// TestPortionsOfOneAnswer has connections of which each is a portion of its
// own, and more records than may be held.
func TestPortionsOfOneAnswer(t *testing.T) {
	before, after := shop()
	var flows []policies.Flow
	for i := range 40 {
		f := flow(web, db, uint16(5400+i), policies.Allow)
		f.First = time.Date(2026, 3, 1, 0, i, 0, 0, time.UTC)
		flows = append(flows, f)
	}
	recorded := shelve(flows, false)
	r := New(reach.Pair(before, after, reach.Options{}))
	r.Spill(inMemory(1<<20), 1)
	if err := r.Replay(t.Context(), recorded); err != nil {
		t.Fatal(err)
	}
	if got := r.Result(); got.Flows != 40 || got.Questions != 40 {
		t.Errorf("%d flows in %d questions, want 40 in 40", got.Flows, got.Questions)
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

// TestTuplesArePacked has recordings of all kinds of ends.
func TestTuplesArePacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, want := range shelve(someFlows(t), rapid.Bool().Draw(t, "by prefix")).tuples {
			got, err := readTuple(appendTuple(nil, &want))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, exact); d != "" {
				t.Fatal("(-want +got)\n" + d)
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
