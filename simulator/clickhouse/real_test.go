package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// servers is a ClickHouse of Debian's that the test started.
type servers struct{ folder, url string }

const script = "../../tools/clickhouse/servers.sh"

// start starts servers, or skips the test where it is not run to use them.
func start(t testing.TB, shards, replicas int) *servers {
	t.Helper()
	if os.Getenv("WEIR_CLICKHOUSE") == "" {
		t.Skip("no ClickHouse to ask: make test-clickhouse starts Debian's, where it can be had")
	}
	s := &servers{folder: t.TempDir()}
	t.Cleanup(func() { s.run(t, "stop", s.folder) })
	out := s.run(t, "start", s.folder, strconv.Itoa(shards), strconv.Itoa(replicas))
	s.url = strings.TrimSpace(out)
	return s
}

func (s *servers) run(t testing.TB, arguments ...string) string {
	t.Helper()
	c := exec.Command(script, arguments...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", script, arguments, err)
	}
	return string(out)
}

// kill ends a node at once.
func (s *servers) kill(t *testing.T, node int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.folder, fmt.Sprintf("node%d", node), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil {
		var process *os.Process
		if process, err = os.FindProcess(pid); err == nil {
			err = process.Kill()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *servers) revive(t *testing.T, node int) {
	s.run(t, "node", s.folder, strconv.Itoa(node))
}

// sync waits until every replica has what any has.
func (s *servers) sync(t *testing.T) {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range strings.Split(u.Host, ",") {
		one := *u
		one.Host = host
		replica := open(t, one.String(), Options{})
		for _, table := range []string{replica.local("flows"), replica.local("tuples"), replica.table("imports")} {
			if err := replica.conn.Exec(t.Context(), "SYSTEM SYNC REPLICA "+table); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func open(t *testing.T, url string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// flows makes n flows of three days, some from before there were times.
func flows(seed uint64, n int) []policies.Flow {
	r := rand.New(rand.NewPCG(seed, 1))
	var peers []policies.FlowPeer
	for i := range 12 {
		name := fmt.Sprintf("w%d", i)
		labels := map[string]string{"app": name, "odd": "a,b='c\\%"}
		workload := []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: name}}
		for j := range 3 {
			peers = append(peers, policies.FlowPeer{
				Namespace: "shop", Pod: fmt.Sprintf("%s-7d9c8b6f5-x2x4%c", name, 'b'+rune(j)), Workloads: workload, Labels: labels,
				Address: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j + 1)}),
			})
		}
		peers = append(peers,
			policies.FlowPeer{Namespace: "pay", Pod: fmt.Sprintf("db-%d", i), LabelsPartial: true},
			policies.FlowPeer{Namespace: "pay", PodPrefix: "job-", LabelsPartial: true, Labels: labels},
			policies.FlowPeer{Outside: true, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Names: []string{"a.example"}},
			policies.FlowPeer{Outside: true, Address: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i))},
			policies.FlowPeer{Outside: true, Network: policies.PublicNetwork},
			policies.FlowPeer{Host: true, OwnNode: i%2 == 0, Address: netip.AddrFrom4([4]byte{172, 16, 0, byte(i)})},
		)
	}
	hits := [][]policies.Hit{nil, {
		{Tier: "default", Policy: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}, Action: policies.ActionAllow, Rule: 2},
		{Tier: "default", Rule: policies.EndOfTier, Staged: true},
	}}
	begin := time.Date(2026, 11, 1, 10, 20, 0, 0, time.UTC)
	all := make([]policies.Flow, n)
	for i := range all {
		first := begin.Add(time.Duration(r.IntN(60*3600)) * time.Second)
		f := policies.Flow{
			First: first, Last: first.Add(time.Duration(r.IntN(9000)) * time.Millisecond),
			From: peers[r.IntN(len(peers))], To: peers[r.IntN(len(peers))],
			Protocol: netset.TCP, Port: []uint16{80, 443, 5432}[r.IntN(3)], SourcePort: uint16(r.IntN(60000)),
			Verdict: []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown}[r.IntN(3)], EgressOnly: r.IntN(9) == 0,
			Count: uint64(1 + r.IntN(5)), Bytes: uint64(r.IntN(100000)), Packets: uint64(r.IntN(100)),
			ReplyBytes: uint64(r.IntN(1000)), ReplyPackets: uint64(r.IntN(10)), Hits: hits[r.IntN(2)],
			Origin: policies.Origin{Format: "hubble", Reporter: policies.Reporter(r.IntN(4)), Window: time.Duration(r.IntN(2)) * time.Minute},
		}
		if len(f.From.Workloads) > 0 && f.From.Pod == f.To.Pod {
			f.To = peers[3] // only pods of no workload talk to themselves
		}
		if r.IntN(10) == 0 {
			f.Protocol = netset.UDP
		}
		switch r.IntN(500) {
		case 0:
			f.First, f.Last = time.Time{}, time.Time{}
		case 1: // by a clock that was never set, and then back
			f.First, f.Last = time.Unix(-1, 0), time.Unix(1, 0)
		}
		all[i] = f
	}
	return all
}

// memory is what a store must say, from flows in memory.
type memory struct{ flows []policies.Flow }

func tupleOf(f *policies.Flow) uint64 {
	from, to := flowrow.EndOf(&f.From), flowrow.EndOf(&f.To)
	return flowrow.TupleID(&from, &to, from.Hash(), to.Hash(), f.Protocol, f.Port)
}

func (m *memory) Tuples(_ context.Context, each func(*simulator.Tuple) error) error {
	byID := map[uint64]*simulator.Tuple{}
	var ids []uint64
	for i := range m.flows {
		f := &m.flows[i]
		id := tupleOf(f)
		t := byID[id]
		if t == nil {
			t = &simulator.Tuple{ID: id, Flow: policies.Flow{Protocol: f.Protocol, Port: f.Port}}
			for from, to := range map[*policies.FlowPeer]*policies.FlowPeer{&f.From: &t.Flow.From, &f.To: &t.Flow.To} {
				end := flowrow.EndOf(from)
				end = end.Identity()
				peer, err := end.Peer()
				if err != nil {
					return err
				}
				*to = peer
				to.Address = from.Address
			}
			byID[id] = t
			ids = append(ids, id)
		}
		if f.From.Address != t.Flow.From.Address {
			t.Flow.From.Address = netip.Addr{}
			t.Flow.From.Names = []string{"several"}
		}
		if f.To.Address != t.Flow.To.Address {
			t.Flow.To.Address = netip.Addr{}
			t.Flow.To.Names = []string{"several"}
		}
		at := slices.IndexFunc(t.Sides, func(s simulator.Side) bool {
			return s.Reporter == f.Origin.Reporter && s.Verdict == f.Verdict && s.EgressOnly == f.EgressOnly
		})
		if at < 0 {
			at = len(t.Sides)
			t.Sides = append(t.Sides, simulator.Side{Reporter: f.Origin.Reporter, Verdict: f.Verdict, EgressOnly: f.EgressOnly, First: f.First, Last: f.Last})
		}
		s := &t.Sides[at]
		s.Flows += f.Count
		s.Bytes += f.Bytes
		if s.First.IsZero() || f.First.Before(s.First) && !f.First.IsZero() {
			s.First = f.First
		}
		if f.Last.After(s.Last) {
			s.Last = f.Last
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		t := byID[id]
		for _, peer := range []*policies.FlowPeer{&t.Flow.From, &t.Flow.To} {
			if peer.Names != nil {
				peer.Names, peer.Address = nil, netip.Addr{}
			}
		}
		slices.SortFunc(t.Sides, compareSides)
		if err := each(t); err != nil {
			return err
		}
	}
	return nil
}

func compareSides(a, b simulator.Side) int {
	return cmp.Or(cmp.Compare(a.Reporter, b.Reporter), cmp.Compare(a.Verdict, b.Verdict), int(flag(a.EgressOnly))-int(flag(b.EgressOnly)))
}

func (m *memory) Days(context.Context) (days []time.Time, err error) {
	for i := range m.flows {
		days = append(days, m.flows[i].First.Truncate(24*time.Hour))
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal), nil
}

func (m *memory) Hours(ctx context.Context, day time.Time, tuples []uint64, each func(uint64, *simulator.Side, []simulator.HourFlows) error) error {
	return m.Flows(ctx, day, tuples, func(tuple uint64, f *policies.Flow) error {
		hour := f.First.Truncate(time.Hour).Unix() / 3600
		return each(tuple, &simulator.Side{Reporter: f.Origin.Reporter, Verdict: f.Verdict, EgressOnly: f.EgressOnly}, []simulator.HourFlows{{Hour: hour, Flows: f.Count}})
	})
}

func (m *memory) Flows(_ context.Context, day time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	for i := range m.flows {
		if !m.flows[i].First.Truncate(24 * time.Hour).Equal(day) {
			continue
		}
		if id := tupleOf(&m.flows[i]); contains(tuples, id) {
			if err := each(id, &m.flows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(sorted []uint64, id uint64) bool {
	_, known := slices.BinarySearch(sorted, id)
	return known
}

// in returns the flows of a range.
func (m *memory) in(r flowrow.Range) *memory {
	f := simulator.Filter{Since: r.Since, Until: r.Until}
	own := &memory{}
	for i := range m.flows {
		if f.Match(&m.flows[i]) == simulator.Yes || m.flows[i].First.IsZero() && r.Since.IsZero() {
			own.flows = append(own.flows, m.flows[i])
		}
	}
	return own
}

var comparers = gocmp.Options{
	gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	gocmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	gocmp.Transformer("rows", func(r simulator.Rows) []simulator.Row { return slices.Collect(r.All()) }),
}

func tuplesOf(t *testing.T, r simulator.Recorded) []simulator.Tuple {
	t.Helper()
	var all []simulator.Tuple
	err := r.Tuples(t.Context(), func(tuple *simulator.Tuple) error {
		own := *tuple
		own.Sides = slices.SortedFunc(slices.Values(tuple.Sides), compareSides)
		all = append(all, own)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tupleHours is a tuple with its hours.
type tupleHours struct {
	simulator.Tuple
	Hours []simulator.Hour
}

func summedBy(t *testing.T, r simulator.Summed) (all []tupleHours) {
	t.Helper()
	err := r.Sums(t.Context(), func(tuple *simulator.Tuple, hours []simulator.Hour) error {
		all = append(all, tupleHours{simulator.Tuple{ID: tuple.ID, Flow: tuple.Flow}, slices.Clone(hours)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// eachDay calls read for every day of a recording.
func eachDay(t *testing.T, r simulator.Recorded, read func(day time.Time) error) {
	t.Helper()
	days, err := r.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		if err := read(day); err != nil {
			t.Fatal(err)
		}
	}
}

// flowsOf returns the flows of some tuples, and their day.
func flowsOf(t *testing.T, r simulator.Recorded, tuples []uint64) []string {
	t.Helper()
	var all []string
	eachDay(t, r, func(day time.Time) error {
		return r.Flows(t.Context(), day, tuples, func(tuple uint64, f *policies.Flow) error {
			all = append(all, fmt.Sprintf("%s %d %+v", day, tuple, *f))
			return nil
		})
	})
	slices.Sort(all)
	return all
}

// hoursOf returns how many flows began in an hour of some tuples, by what else tells
// them apart.
func hoursOf(t *testing.T, r simulator.Recorded, tuples []uint64) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	eachDay(t, r, func(day time.Time) error {
		return r.Hours(t.Context(), day, tuples, func(tuple uint64, of *simulator.Side, hours []simulator.HourFlows) error {
			for _, h := range hours {
				all[fmt.Sprint(day, tuple, h.Hour, of.Reporter, of.Verdict, of.EgressOnly)] += h.Flows
			}
			return nil
		})
	})
	return all
}

// texts returns flows as texts, for those that are equal in all that orders them
// come in any order.
func texts(flows []policies.Flow) []string {
	var all []string
	for _, f := range flows {
		all = append(all, fmt.Sprintf("%+v", f))
	}
	return all
}

func equalTuples(t *testing.T, fact string, want, got simulator.Recorded) {
	t.Helper()
	if diff := gocmp.Diff(tuplesOf(t, want), tuplesOf(t, got), comparers); diff != "" {
		t.Errorf("%s: tuples (-memory +store):\n%.2000s", fact, diff)
	}
	var all []uint64
	for _, tuple := range tuplesOf(t, want) {
		all = append(all, tuple.ID)
	}
	for _, some := range [][]uint64{all, all[:len(all)/20]} {
		if diff := gocmp.Diff(hoursOf(t, want, some), hoursOf(t, got, some)); diff != "" {
			t.Errorf("%s: hours of %d tuples (-memory +store):\n%.2000s", fact, len(some), diff)
		}
	}
}

// equalAll makes sure that a store has exactly these flows, and says of them
// what memory says.
func equalAll(t *testing.T, s *Store, m *memory) {
	t.Helper()
	got, err := s.Recorded(t.Context(), flowrow.Range{})
	if err != nil {
		t.Fatal(err)
	}
	equalTuples(t, "all", m, got)
	var ids []uint64
	for i, tuple := range tuplesOf(t, m) {
		if i%3 == 0 {
			ids = append(ids, tuple.ID)
		}
	}
	if diff := gocmp.Diff(flowsOf(t, m, ids), flowsOf(t, got, ids)); diff != "" {
		t.Errorf("flows of tuples (-memory +store):\n%.2000s", diff)
	}
}

// importAll imports flows as a file of a name.
func importAll(ctx context.Context, s *Store, name string, flows []policies.Flow) (flowrow.Imported, error) {
	return s.Import(ctx, name, "as ever", strings.NewReader(strings.Repeat(name, len(flows))), func(each func(policies.Flow) error) (bool, error) {
		for _, f := range flows {
			if err := each(f); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

func mustImport(t *testing.T, s *Store, name string, flows []policies.Flow, want flowrow.Imported) {
	t.Helper()
	got, err := importAll(t.Context(), s, name, flows)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("import of %s: got %+v, want %+v", name, got, want)
	}
}

// golden asks a server at an address all there is to ask.
func golden(t *testing.T, url string) {
	all := flows(7, 6000)
	m := &memory{all}
	if _, err := Open(t.Context(), url, Options{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "there are no flows") {
		t.Errorf("open what is not there: %v", err)
	}
	s := open(t, url, Options{Batch: 1000})
	mustImport(t, s, "a", all[:4500], flowrow.Imported{Added: 4500})
	mustImport(t, s, "a", all[:4500], flowrow.Imported{Known: 4500})
	mustImport(t, s, "b", all[4500:5000], flowrow.Imported{Added: 500})
	// The first has grown.
	mustImport(t, s, "a", slices.Concat(all[:4500], all[5000:]), flowrow.Imported{Added: 1000, Known: 4500})
	equalAll(t, s, m)
	equalFiles(t, s, all)
	equalStats(t, s, all)
	again := open(t, url, Options{ReadOnly: true})
	equalAll(t, again, m)

	at := func(hour, minute int) time.Time { return time.Date(2026, 11, 2, hour, minute, 0, 0, time.UTC) }
	for _, r := range []flowrow.Range{
		{Since: at(3, 0)},
		{Until: at(3, 0)},
		{Since: at(3, 10)},
		{Until: at(3, 10)},
		{Since: at(3, 10), Until: at(9, 40)},
		{Since: at(3, 10), Until: at(3, 50)},
		{Since: at(3, 10), Until: at(4, 50)},
	} {
		got, err := s.Recorded(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		equalTuples(t, fmt.Sprint(r), m.in(r), got)
	}
	for fact, f := range filters(t, at) {
		if equalChosen(t.Context(), t, fact, s, all, f) == 0 {
			t.Errorf("%s: asks for nothing", fact)
		}
	}
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		f := anyFilter(t, all)
		equalChosen(ctx, t, "", s, all, f)
		if f.TellsTuples() {
			equalCounts(ctx, t, s, all, f)
		}
	})
}

// equalCounts makes sure that what a filter chooses comes to the same, by the sums
// of a store and flow by flow.
func equalCounts(ctx context.Context, t rapid.TB, s *Store, all []policies.Flow, f *simulator.Filter) {
	t.Helper()
	keys, err := simulator.ParseKeys("from.workload,to.workload,port,verdict,hour,reporter")
	if err != nil {
		t.Fatal(err)
	}
	type counted struct {
		Ranking *simulator.Ranking
		Graph   *simulator.Graph
		Unsaid  uint64
	}
	var results [2]counted
	for i := range results {
		top, talk := simulator.NewTop(keys, len(all)), simulator.NewTalk(false, len(all))
		add := func(f *policies.Flow, records uint64) error {
			return errors.Join(top.AddSum(f, records), talk.AddSum(f, records))
		}
		if i == 0 {
			for k := range all {
				switch f.Match(&all[k]) {
				case simulator.Yes:
					err = add(&all[k], 1)
				case simulator.NotSay:
					results[i].Unsaid++
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		} else if _, results[i].Unsaid, err = simulator.Sum(ctx, s.Summed(f), f, add); err != nil {
			t.Fatal(err)
		}
		results[i].Ranking, results[i].Graph = top.Ranking("flows", len(all)), talk.Graph()
	}
	if diff := gocmp.Diff(results[0], results[1], comparers, gocmp.Comparer(netset.Ports.Equal)); diff != "" {
		t.Errorf("counts (-memory +store):\n%.3000s", diff)
	}
}

// equalChosen makes sure that a filter chooses the same of a store's flows as of
// those in memory, and returns how many, with those that do not say enough.
func equalChosen(ctx context.Context, t rapid.TB, fact string, s *Store, all []policies.Flow, f *simulator.Filter) int {
	t.Helper()
	var want, got, unsaid []policies.Flow
	for i := range all {
		switch f.Match(&all[i]) {
		case simulator.Yes:
			want = append(want, all[i])
		case simulator.NotSay:
			unsaid = append(unsaid, all[i])
		}
	}
	var before time.Time
	read, notSaying := 0, 0
	err := s.Scan(ctx, f, func(flow policies.Flow) error {
		if read++; flow.First.Before(before) {
			t.Errorf("%s: not in the order of time", fact)
		}
		before = flow.First
		switch f.Match(&flow) {
		case simulator.Yes:
			got = append(got, flow)
		case simulator.NotSay:
			notSaying++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := texts(want), texts(got)
	slices.Sort(mine)
	slices.Sort(theirs)
	if diff := gocmp.Diff(mine, theirs); diff != "" {
		t.Errorf("%s (-memory +store, %d and %d):\n%.1000s", fact, len(mine), len(theirs), diff)
	}
	if notSaying != len(unsaid) {
		t.Errorf("%s: %d do not say enough in memory, %d in the store", fact, len(unsaid), notSaying)
	}
	// Names of workloads are told from those of pods only here.
	if most := 2*(len(want)+len(unsaid)) + 100; fact != "" && read > most {
		t.Errorf("%s: the server chose %d flows where %d are asked for", fact, read, len(want)+len(unsaid))
	}
	return len(want) + len(unsaid)
}

// question is a filter in the words of the command line.
type question struct {
	either, from, to, ports, hits, verdicts string
	since, until                            time.Time
}

func (q question) filter(t rapid.TB) *simulator.Filter {
	t.Helper()
	f := &simulator.Filter{Since: q.since, Until: q.until}
	for _, ends := range []struct {
		text string
		to   *[]simulator.End
	}{{q.either, &f.Either}, {q.from, &f.From}, {q.to, &f.To}} {
		for text := range strings.FieldsSeq(ends.text) {
			e, err := simulator.ParseEnd(text)
			if err != nil {
				t.Fatal(err)
			}
			*ends.to = append(*ends.to, e)
		}
	}
	for text := range strings.FieldsSeq(q.ports) {
		p, err := policies.ParsePort(text)
		if err != nil {
			t.Fatal(err)
		}
		f.Ports = netset.JoinPorts(f.Ports, p.Ports)
	}
	for text := range strings.FieldsSeq(q.hits) {
		p, err := simulator.ParseHit(text)
		if err != nil {
			t.Fatal(err)
		}
		f.Policies = append(f.Policies, p)
	}
	for text := range strings.FieldsSeq(q.verdicts) {
		var v policies.Verdict
		if err := v.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		f.Verdicts = append(f.Verdicts, v)
	}
	return f
}

// anyFilter draws a filter of patterns that some of the flows match, or nearly.
func anyFilter(t *rapid.T, all []policies.Flow) *simulator.Filter {
	end := rapid.Custom(func(t *rapid.T) string {
		f := rapid.SampledFrom(all).Draw(t, "flow")
		p := &f.From
		if rapid.Bool().Draw(t, "to") {
			p = &f.To
		}
		namespace, pod := cmp.Or(p.Namespace, "shop"), cmp.Or(p.Pod, p.PodPrefix+"x", "db-1")
		owner := simulator.Owner(p)
		patterns := []string{
			"world", namespace + "/*", namespace + "/pod/" + pod, namespace + "/" + pod, namespace + "/" + cmp.Or(owner.Name, "job"),
			namespace + "/" + cmp.Or(owner.Kind, "cronjob") + "/" + cmp.Or(owner.Name, "db"), "app=w1", "app!=w1", "!app", "shop/app=w2,odd",
			"app=w", "nosuch!=x", "10.0.0.0/8", "2001:db8::/125", "::/0", "0.0.0.0/0",
		}
		if p.Address.IsValid() {
			prefix := netip.PrefixFrom(p.Address, rapid.IntRange(0, p.Address.BitLen()).Draw(t, "bits"))
			patterns = append(patterns, p.Address.String(), prefix.Masked().String())
		}
		return rapid.SampledFrom(patterns).Draw(t, "pattern")
	})
	// Fields are drawn seldom, for all of them must hold.
	some := func(name string, of *rapid.Generator[string]) string {
		if rapid.IntRange(0, 2).Draw(t, name+"?") > 0 {
			return ""
		}
		return strings.Join(rapid.SliceOfN(of, 1, 2).Draw(t, name), " ")
	}
	q := question{
		either: some("either", end), from: some("from", end), to: some("to", end),
		ports:    some("ports", rapid.SampledFrom([]string{"80", "UDP/443", "TCP/1-1000", "any", "ICMP"})),
		hits:     some("hits", rapid.SampledFrom([]string{"shop/web", "NetworkPolicy/shop/web", "GlobalNetworkPolicy/shop/web", "tier:default", "tier:x", "web"})),
		verdicts: some("verdicts", rapid.SampledFrom([]string{"allow", "deny", "unknown"})),
	}
	if rapid.IntRange(0, 3).Draw(t, "since?") == 0 {
		q.since = rapid.SampledFrom(all).Draw(t, "since").First
	}
	f := q.filter(t)
	if rapid.IntRange(0, 3).Draw(t, "reporter?") == 0 {
		f.Reporters = []policies.Reporter{policies.Reporter(rapid.IntRange(0, 3).Draw(t, "reporter"))}
	}
	return f
}

// equalStats makes sure that a store says what it holds, and finds nothing wrong
// with it.
func equalStats(t *testing.T, s *Store, all []policies.Flow) {
	t.Helper()
	var want Stats
	hours := map[int64]bool{}
	for i := range all {
		f := &all[i]
		want.Records, want.Flows = want.Records+1, want.Flows+f.Count
		if f.First.IsZero() {
			continue
		}
		hours[flowrow.HourOf(f.First.UnixMicro())] = true
		if want.First.IsZero() || f.First.Before(want.First) {
			want.First = f.First
		}
		if f.Last.After(want.Last) {
			want.Last = f.Last
		}
	}
	want.Hours, want.Tables, want.Cluster, want.Keep = len(hours), schemaVersion, s.cluster, s.keep
	got, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Server == "" || got.Imported == 0 || got.Parts == 0 || got.FlowBytes == 0 || got.Bytes <= got.FlowBytes {
		t.Errorf("stats lack something: %+v", got)
	}
	got.Server, got.Imported, got.Parts, got.Bytes, got.FlowBytes = "", 0, 0, 0, 0
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("stats (-memory +store):\n%s", diff)
	}
	if problems := verify(t, s); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}

func verify(t *testing.T, s *Store) []error {
	t.Helper()
	problems, err := s.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return problems
}

// equalFiles makes sure that a store in Parquet files and one in the database
// replay alike, and as the flows in memory do.
func equalFiles(t *testing.T, s *Store, all []policies.Flow) {
	t.Helper()
	files, err := flowstore.Open(t.Context(), t.TempDir(), flowstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := files.NewWriter()
	for i := range all {
		if err := w.Add(t.Context(), &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored, errFiles := files.Recorded(t.Context(), flowstore.Range{})
	served, errServer := s.Recorded(t.Context(), flowrow.Range{})
	if err := errors.Join(errFiles, errServer); err != nil {
		t.Fatal(err)
	}
	summed, err := files.Summed(t.Context(), &simulator.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(summedBy(t, summed), summedBy(t, s.Summed(&simulator.Filter{})), comparers); diff != "" {
		t.Errorf("sums (-files +store):\n%.2000s", diff)
	}
	before, after := judge(t, 3), judge(t, 5)
	var results []*simulator.Result
	for _, r := range []simulator.Recorded{&memory{all}, stored, served} {
		replayer := simulator.New(before, after)
		if err := replayer.Replay(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		results = append(results, replayer.Result())
	}
	if results[0].Outcomes[simulator.Breaks] == 0 {
		t.Errorf("nothing breaks: %v", results[0].Outcomes)
	}
	for i, name := range []string{"files", "database"} {
		if diff := gocmp.Diff(results[0], results[i+1], comparers); diff != "" {
			t.Errorf("replay (-memory +%s):\n%.2000s", name, diff)
		}
	}
}

// judge decides by policies that isolate the first workloads of the flows.
func judge(t *testing.T, isolated int) *reach.Judge {
	t.Helper()
	var text strings.Builder
	text.WriteString("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: pay}}\n")
	for i := range 12 {
		fmt.Fprintf(&text, "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: shop, name: w%d}, "+
			"spec: {selector: {matchLabels: {app: w%[1]d}}, template: {metadata: {labels: {app: w%[1]d}}}}}\n", i)
	}
	for i := range isolated {
		fmt.Fprintf(&text, "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: p%d}, "+
			"spec: {podSelector: {matchLabels: {app: w%[1]d}}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 192.0.2.0/29}}], ports: [{port: 80}]}]}}\n", i)
	}
	docs, err := k8s.Parse("world.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, reach.Options{})
}

func filters(t *testing.T, at func(hour, minute int) time.Time) map[string]*simulator.Filter {
	filters := map[string]*simulator.Filter{}
	for _, q := range []question{
		{},
		{since: at(3, 10), until: at(9, 40)},
		{from: "shop/w1", to: "pay/*"},
		{either: "shop/Deployment/w2"},
		{either: "pay/StatefulSet/db"},
		{either: "shop/app=w1", verdicts: "deny unknown"},
		{either: "app!=w1"},
		{from: "!app"},
		{from: "10.0.3.0/24", ports: "TCP/80-443"},
		{from: "10.0.3.2"},
		{to: "2001:db8::/125", ports: "TCP/1-65535"},
		{to: "2001:db8::8/125"},
		{to: "::/0"},
		{to: "world"},
		{either: "0.0.0.0/0", ports: "5432"},
		{hits: "shop/web"},
		{hits: "tier:default"},
		{to: "pay/pod/db-3"},
		{to: "pay/pod/job-7"},
	} {
		filters[fmt.Sprintf("%+v", q)] = q.filter(t)
	}
	return filters
}

func TestRealServer(t *testing.T) { golden(t, start(t, 1, 1).url) }

func TestRealCluster(t *testing.T) { golden(t, start(t, 2, 1).url) }

func TestRealReplicas(t *testing.T) { golden(t, start(t, 1, 2).url) }

// What cannot be opened says what helps.
func TestRealRefusals(t *testing.T) {
	url := start(t, 1, 1).url
	s := open(t, url, Options{})
	mustImport(t, s, "a", flows(5, 10), flowrow.Imported{Added: 10})
	host := strings.TrimSuffix(strings.TrimPrefix(url, Scheme), "/default")
	for _, database := range []string{"newer", "halved"} {
		if err := s.conn.Exec(t.Context(), "CREATE DATABASE "+database); err != nil {
			t.Fatal(err)
		}
		other := open(t, Scheme+host+"/"+database, Options{})
		statement := "DROP TABLE halved.flows"
		if database == "newer" {
			statement = "INSERT INTO newer.weir_schema SELECT 99, 0"
		}
		if err := other.conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ fact, url, want string }{
		{"no database", Scheme + host + "/nosuch", "make it: CREATE DATABASE `nosuch`"},
		{"no user", Scheme + "bob:secret@" + host + "/default", "the user stands in the address"},
		{"no TLS", url + "?secure=true", "this port does not speak TLS"},
		{"no setting", url + "?nosuch=1", "is a setting of the server"},
		{"no cluster", url + "?cluster=main", "leave ?cluster=main out"},
		{"ttl of an old server", url + "?ttl=30d", "knows no ttl"},
		{"tables of a newer Weir", Scheme + host + "/newer", "version 99, and this program knows those up to 1; use a newer one"},
		{"tables that lack one", Scheme + host + "/halved", "there is no table flows; weir flows schema prints"},
	} {
		_, err := Open(t.Context(), test.url, Options{})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", test.fact, err)
		}
	}
	reader := open(t, url+"?readonly=1", Options{ReadOnly: true})
	equalAll(t, reader, &memory{flows(5, 10)})
	if _, err := importAll(t.Context(), reader, "b", flows(6, 10)); err == nil || !strings.Contains(err.Error(), "to import INSERT too") {
		t.Errorf("import where only reading is allowed: %v", err)
	}
}

// A node that dies during an import comes back in the end, or another takes over.
func TestRealNodeDies(t *testing.T) {
	for _, test := range []struct {
		name             string
		shards, replicas int
		dies             int
		back             bool
	}{
		{"the only server", 1, 1, 1, true},
		{"the node that is asked", 2, 1, 1, true},
		{"the other shard", 2, 1, 2, true},
		{"a replica, for good", 1, 2, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := flows(11, 3000)
			cluster := start(t, test.shards, test.replicas)
			killed := make(chan struct{}, 1)
			told := 0
			s := open(t, cluster.url, Options{Batch: 600, Patience: 2 * time.Minute, Told: func(string) {
				if told++; told == 1 && test.back {
					cluster.revive(t, test.dies)
				}
			}})
			n := 0
			got, err := s.Import(t.Context(), "a", "as ever", strings.NewReader("a"), func(each func(policies.Flow) error) (bool, error) {
				for _, f := range all {
					switch n++; {
					case n == 1200 && test.back:
						// As a batch is on its way.
						go func() {
							cluster.kill(t, test.dies)
							killed <- struct{}{}
						}()
					case n == 1200:
						// What one replica alone has is gone with it.
						cluster.sync(t)
						cluster.kill(t, test.dies)
						killed <- struct{}{}
					}
					if err := each(f); err != nil {
						return false, err
					}
				}
				return false, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			<-killed
			if want := (flowrow.Imported{Added: uint64(len(all))}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if test.back && told == 0 {
				cluster.revive(t, test.dies)
			}
			equalAll(t, s, &memory{all})
			mustImport(t, s, "b", all[:10], flowrow.Imported{Added: 10})
		})
	}
}

// An import that is cut off at any point goes on, and counts nothing twice.
func TestRealResume(t *testing.T) { resume(t, start(t, 1, 1).url) }

func resume(t *testing.T, url string) {
	all := flows(13, 4000)
	s := open(t, url, Options{Batch: 500})
	file := strings.NewReader("the file")
	for cut := 300; cut < len(all)+900; cut += 900 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := s.Import(ctx, "a", "as ever", file, func(each func(policies.Flow) error) (bool, error) {
			for _, f := range all {
				if n++; n == cut {
					cancel()
				}
				if err := each(f); err != nil {
					return false, err
				}
			}
			return false, nil
		})
		cancel()
		if done := cut > len(all); done != (err == nil) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	equalAll(t, s, &memory{all})

	half := func(each func(policies.Flow) error) (bool, error) { return true, each(all[0]) }
	if _, err := s.Import(t.Context(), "b", "in one way", strings.NewReader("another file"), half); err != nil {
		t.Fatal(err)
	}
	_, err := s.Import(t.Context(), "b", "in another way", strings.NewReader("another file"), half)
	if err == nil || !strings.Contains(err.Error(), "b: 1 of its flows are stored, read in one way,") {
		t.Error(err)
	}
	if got, err := s.Import(t.Context(), "b", "in one way", strings.NewReader("another file"), half); err != nil || got != (flowrow.Imported{Known: 1}) {
		t.Errorf("%+v %v", got, err)
	}
}

// A block may be in the store without its tuples, or without the note that says
// that it arrived.
func TestRealHalfABatch(t *testing.T) { halfABatch(t, start(t, 1, 1).url) }

func halfABatch(t *testing.T, url string) {
	all := flows(17, 600)
	s := open(t, url, Options{Batch: 300})
	ctx := t.Context()
	read := func(each func(policies.Flow) error) (bool, error) {
		for _, f := range all {
			if err := each(f); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	if err := s.conn.Exec(ctx, "DROP TABLE "+s.local("tuples_view")); err != nil {
		t.Fatal(err)
	}
	w := s.NewWriter()
	file := strings.NewReader("the file")
	source, _, err := flowrow.Identify(ctx, "a", "as ever", file, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.source, w.flows = &source, all[:300]
	b := &batch{id: hash(source.Key(), 0, 300), taken: 300}
	if err := w.begin(ctx, b); err != nil {
		t.Fatal(err)
	}
	days := map[int64][]*policies.Flow{}
	for i := range w.flows {
		day := dayIn(w.flows[i].First.UnixMicro())
		days[day] = append(days[day], &w.flows[i])
	}
	first := slices.MinFunc(w.flows, func(a, b policies.Flow) int { return cmp.Compare(a.First.Unix(), b.First.Unix()) })
	for day, some := range days {
		if day == dayIn(first.First.UnixMicro()) {
			continue // did not get that far
		}
		if _, err := s.send(ctx, w.block(some, hash(flowrow.SourceKey{}, b.id, uint64(day))), false); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range s.statements() {
		if err := s.conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	if problems := verify(t, s); len(problems) == 0 || !strings.Contains(problems[0].Error(), "has sums of 0 records where flows has") {
		t.Errorf("sums are missing, and the problems are %v", problems)
	}
	got, err := s.Import(ctx, "a", "as ever", file, read)
	if want := (flowrow.Imported{Added: 600}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	equalAll(t, s, &memory{all})
}
