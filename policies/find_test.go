package policies

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"5432", "TCP/5432"},
		{"1", "TCP/1"},
		{"65535", "TCP/65535"},
		{"8000-8100", "TCP/8000-8100"},
		{"80-80", "TCP/80"},
		{"UDP/53", "UDP/53"},
		{"udp/53", "UDP/53"},
		{"SCTP/9003", "SCTP/9003"},
		{"TCP/8000-8100", "TCP/8000-8100"},
		{"any", "any"},
		{"TCP", "TCP"},
		{"sctp", "SCTP"},
		{"ICMP", "ICMP"},
		{"icmp/8", "ICMP/8"},
		{"ICMP/0", "ICMP/0"},
		{"ICMPv6/128/0", "ICMPv6/128/0"},
		{"ICMP/772", "ICMP/3/4"},
		{"http", "name http"},
		{"web-2", "name web-2"},
		{"8080-tcp", "name 8080-tcp"},

		{"", "the port is empty"},
		{"0", "0 is not between 1 and 65535"},
		{"65536", "65536 is not between 1 and 65535"},
		{"99999999999", `"99999999999" is not a number`},
		{"81-80", "the range ends before it begins"},
		{"80-", `"" is not a number`},
		{"-80", `"" is not a number`},
		{"-1", `"" is not a number`},
		{"UDP/", `"" is not a number`},
		{"UDP/dns", `"dns" is not a number`},
		{"QUIC/443", `protocol "QUIC" is none of`},
		{"Http", "none of 5432, UDP/53, TCP/8000-8100"},
		{"80,443", "none of 5432, UDP/53, TCP/8000-8100"},
	} {
		q, err := ParsePort(row.text)
		got := q.Ports.String()
		switch {
		case err != nil:
			got = err.Error()
		case q.Name != "":
			got = "name " + q.Name
		}
		if got != row.want && (err == nil || !strings.Contains(got, row.want)) {
			t.Errorf("%q: got %q, want %q", row.text, got, row.want)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, seed := range []string{"5432", "UDP/53", "8000-8100", "any", "http", "ICMP", "TCP/0", "1-", "", "TCP/1-65536"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParsePort(text)
		if err == nil && q.Name == "" && q.Ports.IsEmpty() || q.Name != "" && !q.Ports.IsEmpty() {
			t.Errorf("%q is neither ports nor a name: %v", text, q)
		}
		if err != nil && (q.Name != "" || !q.Ports.IsEmpty()) {
			t.Errorf("%q: %v, and yet %v", text, err, q)
		}
	})
}

func TestFind(t *testing.T) {
	ref := func(kind, namespace, name string) Ref { return Ref{Kind: kind, Namespace: namespace, Name: name} }
	web, cache := ref("Deployment", "shop", "web"), ref("StatefulSet", "shop", "cache")
	w := &World{
		Namespaces: []Namespace{{Name: "shop"}, {Name: "ship"}, {Name: "data"}},
		Pods: []Pod{
			0: {Ref: ref("Pod", "shop", "web-1"), Workload: web, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
			1: {Ref: ref("Pod", "shop", "web-2"), Workload: web},
			2: {Ref: ref("Pod", "shop", "cache"), Workload: ref("Pod", "shop", "cache")},
			3: {Ref: cache, Workload: cache},
			4: {Ref: ref("Pod", "data", "db"), Workload: ref("Pod", "data", "db"), Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::5")}},
		},
		Services: []Service{
			{Ref: ref("Service", "shop", "web"), Pods: []int{0, 1}, ClusterIP: []netip.Addr{netip.MustParseAddr("10.96.0.7")}},
			{Ref: ref("Service", "shop", "nobody"), Place: Place{File: "svc.yaml", Line: 3}},
			{Ref: ref("Service", "shop", "far"), External: "it is an alias of example.org"},
		},
		Nodes: []Node{{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.1")}}},
		Hosts: []HostEndpoint{{Ref: ref("HostEndpoint", "", "n1-eth0"), Node: "n1"}, {Ref: ref("HostEndpoint", "", "lost"), Node: "n9"}},
		Sets: []NetworkSet{
			{Ref: Ref{CalicoGroup, "NetworkSet", "shop", "office"}, Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			{Ref: Ref{CalicoGroup, "GlobalNetworkSet", "", "feed"}, Nets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
			{Ref: Ref{CalicoGroup, "GlobalNetworkSet", "", "empty"}},
		},
	}
	for _, row := range []struct{ text, want string }{
		{"shop/web", "pods [0 1]"},
		{"shop/web-2", "pods [1]"},
		{"shop/deployment/web", "pods [0 1]"},
		{"shop/Deploy/web", "pods [0 1]"},
		{"shop/pod/cache", "pods [2]"},
		{"shop/sts/cache", "pods [3]"},
		{"shop/svc/web", "service shop/web pods [0 1]"},
		{"data/db", "pods [4]"},
		{"10.0.0.1", "pods [0]"},
		{"::ffff:10.0.0.1", "pods [0]"},
		{"2001:db8::5", "pods [4]"},
		{"172.18.0.1", "nodes [0]"},
		{"10.96.0.7", "service shop/web pods [0 1]"},
		{"203.0.113.9", "203.0.113.9/32"},
		{"10.0.0.1/8", "10.0.0.0/8"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"world", "0.0.0.0/0 ::/0"},
		{"node/n1", "nodes [0]"},
		{"HostEndpoint/n1-eth0", "nodes [0]"},
		{"shop/networkset/office", "192.0.2.0/24"},
		{"globalnetworkset/feed", "198.51.100.0/24 2001:db8::/32"},

		{"web", `"web" is none of namespace/name, namespace/kind/name, an address, a CIDR or world`},
		{"", `"" is none of namespace/name`},
		{"shop/", `"shop/" is none of`},
		{"a/b/c/d", `"a/b/c/d" is none of`},
		{"10.0.0.1/33", "is not a CIDR"},
		{"shp/web", `there is no namespace shp; near it are ship, shop, data`},
		{"shop/wbe", `namespace shop has no pod or workload wbe; near it are web, cache`},
		{"shop/sts/web", `namespace shop has no StatefulSet web`},
		{"shop/ingress/web", "kind ingress is none of pod, deployment"},
		{"shop/cache", "ambiguous: say shop/pod/cache or shop/statefulset/cache"},
		{"shop/svc/wbe", "namespace shop has no Service wbe; near it are web"},
		{"shop/svc/nobody", "the selector of the Service at svc.yaml:3 matches no pod"},
		{"node/n2", `there is no Node n2; near it is n1`},
		{"hep/n1", `there is no HostEndpoint n1; near it are lost, n1-eth0`},
		{"hep/lost", `there is no Node n9; near it is n1`},
		{"shop/networkset/feed", `there is no NetworkSet shop/feed; near it is office`},
		{"globalnetworkset/feeds", `there is no GlobalNetworkSet feeds; near it are feed, empty`},
		{"globalnetworkset/empty", "has no addresses"},
		{"shop/svc/far", "it is an alias of example.org, so it cannot be resolved to pods"},
	} {
		target, err := w.Find(row.text)
		got := targetText(target)
		if err != nil {
			got = err.Error()
		}
		if got != row.want && (err == nil || !strings.Contains(got, row.want)) {
			t.Errorf("%q: got %q, want %q", row.text, got, row.want)
		}
	}
}

func targetText(t Target) string {
	var parts []string
	if t.Service != nil {
		parts = append(parts, "service "+t.Service.Ref.String())
	}
	if len(t.Pods) > 0 {
		parts = append(parts, fmt.Sprint("pods ", t.Pods))
	}
	if len(t.Nodes) > 0 {
		parts = append(parts, fmt.Sprint("nodes ", t.Nodes))
	}
	for _, p := range t.Addresses.CIDRs() {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, " ")
}
