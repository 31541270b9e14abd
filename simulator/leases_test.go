package simulator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
)

func minute(n int) time.Time { return noon.Add(time.Duration(n) * time.Minute) }

// seen is a flow from an end to nowhere, from one minute to another.
func seen(first, last int, from string) policies.Flow {
	return policies.Flow{First: minute(first), Last: minute(last), From: end(from)}
}

func TestAnAddressIsOfThePodThatHadIt(t *testing.T) {
	pod := func(name string, since int, host bool, addresses ...string) policies.Pod {
		p := of("Deployment", "web", policies.Pod{Ref: policies.Ref{Kind: "Pod", Namespace: "shop", Name: name}, HostNetwork: host, Labels: labels{"app": "web"}})
		if since >= 0 {
			p.Since = minute(since)
		}
		for _, a := range addresses {
			p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
		}
		return p
	}
	var l Leases
	for _, f := range []policies.Flow{
		seen(10, 20, "shop/a 10.1.0.1 partial app=web"),
		seen(5, 8, "shop/a 10.1.0.1"),
		seen(30, 40, "ops/b 10.1.0.1 app=ops owner:Deployment=b"),
		seen(10, 30, "shop/x 10.1.0.2"), seen(20, 40, "shop/y 10.1.0.2"),
		seen(10, 30, "shop/agent 10.0.0.1"),
		seen(10, 30, "outside 192.0.2.1"), seen(10, 30, "shop/ 10.1.0.9"),
		{From: end("shop/timeless 10.1.0.9")},
		seen(10, 20, "shop/mapped ::ffff:10.1.0.3"),
	} {
		l.LearnFlow(&f)
	}
	l.LearnWorld(&policies.World{
		Pods:  []policies.Pod{pod("old", 3, false, "10.1.0.7", "fd00::7"), pod("timed", -1, false, "10.1.0.8"), pod("agent", 3, true, "10.0.0.1"), deployed("shop", "Deployment", "web", 1, nil)},
		Nodes: []policies.Node{{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	}, minute(50))
	const (
		nobody = "nobody is known to have had an address"
		then   = nobody + " at that time"
	)
	for _, row := range []struct {
		first, last int
		from, want  string
	}{
		{12, 12, "10.1.0.1", "shop/a app=web"},
		{9, 9, "10.1.0.1", "shop/a app=web"}, // between two moments in which it had it
		{20, 20, "10.1.0.1", "shop/a app=web"},
		{30, 31, "10.1.0.1", "ops/b app=ops of b"},
		{25, 25, "10.1.0.1", then},
		{1, 1, "10.1.0.1", then},
		{15, 25, "10.1.0.1", "a pod is known to have had an address for part of a record's time only"},
		{15, 35, "10.1.0.1", "several pods had an address in the time of a record"},
		{15, 15, "10.1.0.2", "shop/x"},
		{25, 25, "10.1.0.2", "several pods had an address in the time of a record"},
		{35, 35, "10.1.0.2", "shop/y"},
		{15, 15, "10.1.0.3", "shop/mapped"},
		{15, 15, "::ffff:10.1.0.3", "shop/mapped"},
		{3, 50, "10.1.0.7", "shop/old app=web of web"},
		{3, 50, "fd00::7", "shop/old app=web of web"},
		{2, 2, "10.1.0.7", then},
		{50, 50, "10.1.0.8", "shop/timed app=web of web"},
		{49, 49, "10.1.0.8", then},
		{12, 50, "10.0.0.1", "node of n1"},
		{9, 9, "10.0.0.1", then},
		{10, 10, "10.1.0.9", nobody},
		{10, 10, "192.0.2.1", nobody},
		{10, 10, "outside 10.1.0.1", ""}, // the recorder knows better
		{10, 10, "shop/c 10.1.0.1", "shop/c"},
		{10, 10, "host 10.1.0.1", "node"},
	} {
		f := seen(row.first, row.last, row.from)
		_, causes := l.Resolve(&f)
		got := strings.Join(causes, "; ")
		if p := f.From; got == "" {
			switch {
			case p.Host:
				got = "node"
			case p.Namespace != "":
				got = p.Namespace + "/" + p.Pod
			}
			for key, value := range p.Labels {
				got += " " + key + "=" + value
			}
			for _, w := range p.Workloads {
				got += " of " + w.Name
			}
		}
		if got != row.want {
			t.Errorf("%s from %d to %d: got %q, want %q", row.from, row.first, row.last, got, row.want)
		}
	}
	timeless := policies.Flow{To: end("10.1.0.1")}
	if _, got := l.Resolve(&timeless); !slices.Equal(got, []string{"a record says no time, so nobody knows who had its address then"}) {
		t.Error(got)
	}
}

// TestNoAddressIsGivenToAnother draws the life of an address, lets some moments of
// it be learned in any order, and asks about others.
func TestNoAddressIsGivenToAnother(t *testing.T) {
	const length = 60
	rapid.Check(t, func(t *rapid.T) {
		var owner [length]string // by minute
		for i := 0; i < length; {
			pod := fmt.Sprintf("web-%d", i)
			if rapid.Bool().Draw(t, "nobody") {
				pod = ""
			}
			for end := i + rapid.IntRange(1, 20).Draw(t, "minutes"); i < end && i < length; i++ {
				owner[i] = pod
			}
		}
		span := func(what string) (first, last int) {
			first = rapid.IntRange(0, length-1).Draw(t, what)
			return first, min(length-1, first+rapid.IntRange(0, 9).Draw(t, what+" for"))
		}
		holds := func(pod string, first, last int) bool {
			return !slices.ContainsFunc(owner[first:last+1], func(o string) bool { return o != pod })
		}
		var flows []policies.Flow
		for range rapid.IntRange(0, 12).Draw(t, "flows") {
			if first, last := span("seen"); owner[first] != "" && holds(owner[first], first, last) {
				flows = append(flows, seen(first, last, fmt.Sprintf("shop/%s 10.1.0.1 partial at=%d", owner[first], first)))
			}
		}
		var forward, shuffled Leases
		for i := range flows {
			forward.LearnFlow(&flows[i])
		}
		for _, f := range rapid.Permutation(flows).Draw(t, "shuffled") {
			shuffled.LearnFlow(&f)
		}
		for range 10 {
			first, last := span("asked")
			one, other := seen(first, last, "10.1.0.1"), seen(first, last, "10.1.0.1")
			_, causes := forward.Resolve(&one)
			if _, again := shuffled.Resolve(&other); !cmp.Equal(one, other, exact) || !slices.Equal(causes, again) {
				t.Fatalf("in order: %v %v, shuffled: %v %v", one.From, causes, other.From, again)
			}
			wrong := one.From.Pod != "" && (owner[first] != one.From.Pod || owner[last] != one.From.Pod)
			if wrong || (len(causes) == 0) == (one.From.Pod == "") {
				t.Fatalf("%v is %q (%v), in truth %v", one.From.Address, one.From.Pod, causes, owner[first:last+1])
			}
		}
	})
}
