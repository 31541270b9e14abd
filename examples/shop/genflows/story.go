package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

var day = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// shopping is how busy the shop is in each hour of the day, of 10.
var shopping = [24]int{2, 1, 1, 1, 1, 2, 3, 4, 6, 7, 8, 8, 9, 8, 7, 7, 8, 9, 10, 10, 9, 7, 5, 3}

// writeFlows writes the day's records as JSON lines.
func writeFlows(w io.Writer) error {
	rng := rand.New(rand.NewPCG(2026, 310))
	r := &recorder{rng: rng}
	c := newCluster(rng)
	r.usual(c)
	r.refused(c)
	r.leftovers(c)
	r.otherLines(c)
	return r.write(w)
}

// usual adds what the shop does every day: all of it allowed by the policies.
func (r *recorder) usual(c cluster) {
	one := func(name string) peer {
		switch name {
		case "internet":
			return world(fmt.Sprintf("192.0.2.%d", 1+r.rng.IntN(200)))
		case "provider":
			return provider(10 + r.rng.IntN(4))
		case "resolver":
			return world("10.20.0.2")
		}
		return c[name][r.rng.IntN(len(c[name]))]
	}

	for _, e := range []struct {
		from, to string
		protocol string
		port     int
		times    int
	}{
		{"internet", "storefront/gateway", "TCP", 8443, 290},
		{"storefront/gateway", "storefront/web", "TCP", 8080, 150},
		{"storefront/gateway", "platform/grafana", "TCP", 3000, 12},
		{"storefront/web", "storefront/catalog", "TCP", 8080, 110},
		{"storefront/web", "storefront/cart", "TCP", 8080, 70},
		{"storefront/web", "payments/orders", "TCP", 8080, 40},
		{"storefront/catalog", "storefront/cache", "TCP", 6379, 100},
		{"storefront/cart", "storefront/cache", "TCP", 6379, 60},
		{"payments/orders", "storefront/cart", "TCP", 8080, 30},
		{"payments/orders", "payments/api", "TCP", 9090, 40},
		{"payments/orders", "payments/db", "TCP", 5432, 40},
		{"payments/api", "payments/db", "TCP", 5432, 40},
		{"payments/api", "provider", "TCP", 443, 40},
		{"platform/grafana", "platform/prometheus", "TCP", 9090, 24},
		{"storefront/gateway", "kube-system/coredns", "UDP", 53, 30},
		{"storefront/web", "kube-system/coredns", "UDP", 53, 45},
		{"storefront/catalog", "kube-system/coredns", "UDP", 53, 30},
		{"storefront/cart", "kube-system/coredns", "UDP", 53, 30},
		{"payments/orders", "kube-system/coredns", "UDP", 53, 25},
		{"payments/api", "kube-system/coredns", "UDP", 53, 25},
		{"payments/api", "kube-system/coredns", "TCP", 53, 2},
		{"platform/grafana", "kube-system/coredns", "UDP", 53, 10},
		{"platform/prometheus", "kube-system/coredns", "UDP", 53, 20},
		{"kube-system/coredns", "resolver", "UDP", 53, 40},
	} {
		for range e.times {
			from, to := one(e.from), one(e.to)
			p := r.connect(r.shoppingTime(), from, to, e.protocol, e.port)
			if e.to == "payments/db" {
				p.at = p.at.Add(50 * time.Microsecond)
				r.see(p, to.node, policyVerdict, allowedByDB)
			}
		}
	}

	standby, primary := c["payments/db"][1], c["payments/db"][0]
	for hour := range 24 {
		r.connect(r.in(hour), standby, primary, "TCP", 5432)
	}
	for _, scraped := range []struct {
		workload string
		port     int
	}{
		{"kube-system/coredns", 9153},
		{"storefront/gateway", 9110},
		{"storefront/web", 9102},
		{"storefront/catalog", 9102},
		{"storefront/cart", 9102},
		{"storefront/cache", 9121},
		{"payments/orders", 9102},
		{"payments/api", 9102},
		{"payments/db", 9187},
		{"platform/node-exporter", 9100},
	} {
		for _, pod := range c[scraped.workload] {
			for hour := 0; hour < 24; hour += 4 {
				r.connect(r.in(hour), c["platform/prometheus"][0], pod, "TCP", scraped.port)
			}
		}
	}
	for _, pod := range c["storefront/gateway"] {
		for hour := range 24 {
			r.connect(r.in(hour), host(pod.node), pod, "TCP", 8081)
		}
	}

	settlement, night := c["payments/settlement"][0], day.Add(2*time.Hour+30*time.Minute)
	r.connect(night.Add(3*time.Second), settlement, c["kube-system/coredns"][1], "UDP", 53)
	for range 4 {
		r.connect(night.Add(r.between(5*time.Second, 4*time.Minute)), settlement, primary, "TCP", 5432)
		r.connect(night.Add(r.between(5*time.Second, 4*time.Minute)), settlement, one("provider"), "TCP", 443)
	}
}

// refused adds what the policies keep from happening.
func (r *recorder) refused(c cluster) {
	// The scanner may leave; the doors it tries, on its own node, stay shut.
	scanner, night := c["platform/scanner"][0], day.Add(3*time.Hour+15*time.Minute)
	r.dropAtServer(night.Add(4*time.Second), scanner, c["payments/db"][0], 5432)
	r.dropAtServer(night.Add(9*time.Second), scanner, c["storefront/cache"][0], 6379)
	r.dropAtServer(night.Add(14*time.Second), scanner, c["payments/orders"][0], 8080)
	r.dropAtServer(night.Add(19*time.Second), scanner, c["payments/db"][0], 22)

	// Somebody with a shell in the web pod tried the database.
	web := c["storefront/web"][1]
	r.dropAtClient(day.Add(11*time.Hour+7*time.Minute), web, c["payments/db"][0], 5432)

	// Grafana would like to report how it is used.
	grafana := c["platform/grafana"][0]
	for hour := 1; hour < 24; hour += 6 {
		r.dropAtClient(r.in(hour), grafana, world("198.18.7.20"), 443)
	}
}

// leftovers adds what the policies and manifests of today do not explain.
func (r *recorder) leftovers(c cluster) {
	// Web used to call the payments API itself; this connection is older than
	// the policy that ended it.
	old := packet{
		at: day.Add(4 * time.Second), from: c["storefront/web"][0], to: c["payments/api"][0],
		protocol: "TCP", fromPort: 41722, toPort: 9090, flags: "PSH, ACK", traceReason: "ESTABLISHED",
	}
	r.pass(old)

	// A workload that has been deleted since, and a namespace that is not ours.
	for range 4 {
		r.connect(day.Add(r.between(0, 2*time.Hour)), c["storefront/recommendations"][0], c["storefront/catalog"][0], "TCP", 8080)
	}
	for hour := 0; hour < 24; hour += 6 {
		r.connect(r.in(hour), c["marketing/blog"][0], c["kube-system/coredns"][0], "UDP", 53)
	}

	// While Prometheus's endpoint was in audit mode, what would have been refused
	// there went through.
	scanner, prometheus := c["platform/scanner"][0], c["platform/prometheus"][0]
	audited := packet{
		at: day.Add(3*time.Hour + 15*time.Minute + 31*time.Second), from: scanner, to: prometheus,
		protocol: "TCP", fromPort: 50412, toPort: 9090, flags: "SYN",
	}
	for range 2 {
		r.see(audited, prometheus.node, policyVerdict, func(f *flow) { f.Verdict = "AUDIT" })
		audited.at, audited.fromPort = audited.at.Add(4*time.Second), audited.fromPort+2
	}
}

// otherLines adds what is not a forwarded or dropped packet.
func (r *recorder) otherLines(c cluster) {
	catalog, web, cart, dns := c["storefront/catalog"][0], c["storefront/web"][0], c["storefront/cart"][0], c["kube-system/coredns"][0]

	// A lookup as the DNS proxy logs it, and its answer.
	query := packet{at: day.Add(9*time.Hour + 2*time.Minute), from: catalog, to: dns, protocol: "UDP", fromPort: 52144, toPort: 53, atClient: true}
	name := "cache.storefront.svc.cluster.local."
	r.see(query, catalog.node, accessLog, l7("DNS Query "+name+" A", map[string]any{
		"type": "REQUEST",
		"dns":  map[string]any{"query": name, "observation_source": "proxy", "qtypes": []string{"A"}},
	}))
	r.see(replyTo(query, 900*time.Microsecond), catalog.node, accessLog, l7("DNS Answer \"10.96.41.7\" TTL: 30 (Query "+name+" A)", map[string]any{
		"type": "RESPONSE", "latency_ns": "812345",
		"dns": map[string]any{"query": name, "ips": []string{"10.96.41.7"}, "ttl": 30, "observation_source": "proxy", "qtypes": []string{"A"}, "rrtypes": []string{"A"}},
	}))

	// A request as the HTTP proxy logs it, and its answer.
	request := packet{at: day.Add(9*time.Hour + 3*time.Minute), from: web, to: cart, protocol: "TCP", fromPort: 39288, toPort: 8080}
	http := map[string]any{"method": "GET", "url": "http://cart.storefront/v1/carts/8417", "protocol": "HTTP/1.1"}
	r.see(request, cart.node, accessLog, l7("HTTP/1.1 GET http://cart.storefront/v1/carts/8417", map[string]any{"type": "REQUEST", "http": http}))
	r.see(replyTo(request, 4*time.Millisecond), cart.node, accessLog, l7("HTTP/1.1 200 4ms (GET http://cart.storefront/v1/carts/8417)", map[string]any{
		"type": "RESPONSE", "latency_ns": "4012400",
		"http": map[string]any{"code": 200, "method": "GET", "url": http["url"], "protocol": "HTTP/1.1"},
	}))

	// A Service's address, before and after it is turned into a pod's.
	virtual := peer{ip: "10.96.0.10", node: -1}
	for i := range 2 {
		before := packet{at: day.Add(time.Duration(10+i) * time.Hour), from: web, to: virtual, protocol: "UDP", toPort: 53, atClient: true}
		r.see(before, web.node, socket, func(f *flow) {
			f.Type, f.Verdict, f.IsReply = "SOCK", "TRACED", nil
			f.SocketPoint = "SOCK_XLATE_POINT_PRE_DIRECTION_FWD"
			f.DestinationService = &service{"kube-dns", "kube-system"}
		})
		after := before
		after.at, after.to = before.at.Add(3*time.Microsecond), dns
		r.see(after, web.node, socket, func(f *flow) {
			f.Type, f.Verdict, f.IsReply = "SOCK", "TRANSLATED", nil
			f.SocketPoint = "SOCK_XLATE_POINT_POST_DIRECTION_FWD"
		})
	}

	// News of the recorder itself.
	r.news(0, 0, line{NodeStatus: map[string]any{"state_change": "NODE_CONNECTED", "node_names": []string{
		clusterName + "/" + nodes[0], clusterName + "/" + nodes[1], clusterName + "/" + nodes[2],
	}}})
	r.news(time.Minute, 1, line{AgentEvent: map[string]any{
		"type":          "POLICY_UPDATED",
		"policy_update": map[string]any{"labels": derivedFrom("api", "payments"), "revision": "41", "rule_count": "1"},
	}})
	r.news(12*time.Hour+7*time.Minute, 0, line{LostEvents: map[string]any{"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": "128"}})
	r.news(18*time.Hour+31*time.Minute, 1, line{LostEvents: map[string]any{"source": "HUBBLE_RING_BUFFER", "num_events_lost": "17"}})
}

func (r *recorder) news(at time.Duration, node int, l line) {
	l.Time, l.NodeName = day.Add(at), clusterName+"/"+nodes[node]
	r.lines = append(r.lines, l)
}

func l7(summary string, message map[string]any) func(*flow) {
	return func(f *flow) { f.Type, f.L7, f.Summary = "L7", message, summary }
}

func allowedByDB(f *flow) {
	f.PolicyMatchType = 2
	f.IngressAllowedBy = []policy{{"db", "payments", derivedFrom("db", "payments"), "41", "NetworkPolicy"}}
}

func derivedFrom(name, namespace string) []string {
	return []string{
		"k8s:io.cilium.k8s.policy.derived-from=NetworkPolicy",
		"k8s:io.cilium.k8s.policy.name=" + name,
		"k8s:io.cilium.k8s.policy.namespace=" + namespace,
	}
}

// in returns a moment of the hour.
func (r *recorder) in(hour int) time.Time {
	return day.Add(time.Duration(hour)*time.Hour + r.between(0, 59*time.Minute))
}

// shoppingTime returns a moment of the day, likelier when the shop is busy.
func (r *recorder) shoppingTime() time.Time {
	for {
		if hour := r.rng.IntN(24); r.rng.IntN(10) < shopping[hour] {
			return r.in(hour)
		}
	}
}
