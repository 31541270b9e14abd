package flowstore

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// lookedAt returns flows of all kinds of ends, and filters that look for some.
func lookedAt(t *testing.T) ([]policies.Flow, map[string]*simulator.Filter) {
	t.Helper()
	few := small(13)
	few.Rate, few.Edges = 0.15, 60
	made := generate(few, 2_000)
	for i := range made {
		f := &made[i]
		f.ReplyBytes, f.ReplyPackets = uint64(i)*7%1001, uint64(i)%5
		switch i % 40 {
		case 1: // known by its address alone
			f.From = policies.FlowPeer{Address: netip.AddrFrom4([4]byte{10, 9, 0, byte(i / 40 % 5)})}
		case 2: // no workload, and a pod that a Deployment or a CronJob named
			f.To = policies.FlowPeer{Namespace: "shop", Pod: fmt.Sprintf("web-7c9f8d5b6-2x4z%d", 2+i/40%3)}
		case 3:
			f.To = policies.FlowPeer{Namespace: "shop", Pod: fmt.Sprintf("report-29457762-2x4z%d", 2+i/40%3)}
		case 4: // no time
			f.First, f.Last = time.Time{}, time.Time{}
		case 5: // a static pod is not called as its owner is
			f.To = policies.FlowPeer{Namespace: "shop", Pod: "proxy-node-1", Workloads: []policies.Ref{{Kind: "Node", Name: "node-1"}}}
		case 6:
			f.From = policies.FlowPeer{}
		}
	}
	one := made[640]
	end := func(text string) []simulator.End {
		e, err := simulator.ParseEnd(text)
		if err != nil {
			t.Fatal(err)
		}
		return []simulator.End{e}
	}
	owner := simulator.Owner(&one.To)
	filters := map[string]*simulator.Filter{
		"all":            {},
		"namespace":      {From: end(one.From.Namespace + "/*")},
		"workload":       {To: end(owner.Namespace + "/" + owner.Name)},
		"of a kind":      {To: end(owner.Namespace + "/" + owner.Kind + "/" + owner.Name)},
		"pod":            {To: end(one.To.Namespace + "/pod/" + one.To.Pod)},
		"pod by name":    {To: end(one.To.Namespace + "/" + one.To.Pod)},
		"static pod":     {Either: end("shop/proxy-node-1")},
		"generated":      {Either: end("shop/web")},
		"CronJob's":      {Either: end("shop/CronJob/report")},
		"address":        {From: end("10.9.0.2")},
		"CIDR":           {Either: end("10.64.0.0/24")},
		"world":          {Either: end("world")},
		"labels":         {From: end("app!=web")},
		"port":           {Ports: netset.PortSpan(netset.UDP, 53, 53)},
		"verdict":        {Verdicts: []policies.Verdict{policies.Deny}},
		"side":           {Reporters: []policies.Reporter{policies.DestinationSide}},
		"nobody":         {From: end("nobody/nobody")},
		"hours":          {Since: made[0].First.Truncate(time.Hour).Add(time.Hour), Until: made[0].First.Truncate(time.Hour).Add(3 * time.Hour)},
		"parts of hours": {Since: made[450].First, Until: made[1501].First, Verdicts: []policies.Verdict{policies.Allow}},
		"until":          {Until: made[1000].First, To: end(one.To.Namespace + "/*")},
	}
	return made, filters
}

// stages calls each with a store of flows that is not compacted yet, in part, and
// in full.
func stages(t *testing.T, made []policies.Flow, each func(t *testing.T, s *Store)) {
	s := openStore(t, t.TempDir(), Options{})
	add(t, s, made[:len(made)*3/4]...)
	t.Run("raw", func(t *testing.T) { each(t, s) })
	compact(t, s, made[750].First)
	add(t, s, made[len(made)*3/4:]...)
	t.Run("half compacted", func(t *testing.T) { each(t, s) })
	compact(t, s, long)
	t.Run("compacted", func(t *testing.T) { each(t, s) })
}

// chosen are the flows that a filter chooses, and how many records do not say
// enough: of a scan of the store, and of all that it has.
func chosen(t *testing.T, s *Store, scanned, f *simulator.Filter) (flows []policies.Flow, notSaying uint64) {
	for _, flow := range all(t, s, *scanned) {
		switch f.Match(&flow) {
		case simulator.Yes:
			flows = append(flows, flow)
		case simulator.NotSay:
			notSaying++
		}
	}
	return flows, notSaying
}

func TestScanFor(t *testing.T) {
	made, filters := lookedAt(t)
	stages(t, made, func(t *testing.T, s *Store) {
		for name, f := range filters {
			found, notSaying := chosen(t, s, f, f)
			want, wantNot := chosen(t, s, &simulator.Filter{}, f)
			if diff := gocmp.Diff(want, found, equal); diff != "" || notSaying != wantNot {
				t.Errorf("%s: %d do not say, want %d: %s", name, notSaying, wantNot, diff)
			}
			if len(want) == 0 && name != "nobody" {
				t.Errorf("%s chooses nothing", name)
			}
		}
	})
}

// What sums come to is what records come to.
func TestSumsAreRecordsAddedUp(t *testing.T) {
	made, filters := lookedAt(t)
	var keys [][]simulator.Key
	for _, by := range []string{"from.workload,to.workload,port", "namespace", "verdict,reporter", "protocol,hour", "to.namespace,day"} {
		parsed, err := simulator.ParseKeys(by)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, parsed)
	}
	type counted struct {
		rankings  []*simulator.Ranking
		graphs    []*simulator.Graph
		notSaying uint64
	}
	count := func(feed func(add func(*policies.Flow, uint64) error) (uint64, error)) (c counted) {
		var tops []*simulator.Top
		for _, k := range keys {
			tops = append(tops, simulator.NewTop(k, simulator.MaxConnections))
		}
		talks := []*simulator.Talk{simulator.NewTalk(false, simulator.MaxConnections), simulator.NewTalk(true, simulator.MaxConnections)}
		var err error
		c.notSaying, err = feed(func(f *policies.Flow, records uint64) error {
			for _, top := range tops {
				if err := top.AddSum(f, records); err != nil {
					return err
				}
			}
			for _, talk := range talks {
				if err := talk.AddSum(f, records); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, top := range tops {
			c.rankings = append(c.rankings, top.Ranking("flows", 1<<30))
		}
		for _, talk := range talks {
			c.graphs = append(c.graphs, talk.Graph())
		}
		return c
	}
	stages(t, made, func(t *testing.T, s *Store) {
		for name, f := range filters {
			want := count(func(add func(*policies.Flow, uint64) error) (uint64, error) {
				flows, notSaying := chosen(t, s, &simulator.Filter{}, f)
				for i := range flows {
					if err := add(&flows[i], 1); err != nil {
						return 0, err
					}
				}
				return notSaying, nil
			})
			sums := 0
			got := count(func(add func(*policies.Flow, uint64) error) (uint64, error) {
				r, err := s.Summed(t.Context(), f)
				if err != nil {
					return 0, err
				}
				_, notSaying, err := simulator.Sum(t.Context(), r, f, func(f *policies.Flow, records uint64) error {
					sums++
					return add(f, records)
				})
				return notSaying, err
			})
			if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(counted{}), equal, gocmp.Comparer(func(a, b netset.Ports) bool { return a.String() == b.String() })); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if records := got.rankings[0].Records; slices.Contains([]string{"all", "port", "hours"}, name) && uint64(sums)*5 > records*4 {
				t.Errorf("%s: %d records are %d sums", name, records, sums)
			}
		}
	})
}
