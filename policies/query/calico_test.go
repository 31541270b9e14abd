package query_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
)

// TestAnswersInMixedWorld asks about a world with policies of Calico and of
// Kubernetes in several tiers, network sets, and host endpoints on two of three
// nodes.
func TestAnswersInMixedWorld(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "examples", "calico", "calico.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	j := judge(t, string(text))
	policiesOf := func(name string) query.Answer { return query.PoliciesOf(reach.NewAudit(j), target(t, j, name)) }
	peersOf := func(name string) query.Answer {
		found := query.Find(j.Model(), name)
		if len(found) != 1 {
			t.Fatalf("%s is %v", name, found)
		}
		return query.PeersOf(j, found[0])
	}
	path := func(from, to string, port uint16) query.Answer {
		a, _, err := query.PathOf(j, reach.Question{From: target(t, j, from), To: target(t, j, to), Port: policies.PortQuery{Ports: netset.PortSpan(netset.TCP, port, port)}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	used := func(r reach.RuleID) (uint64, time.Time) { return uint64(1 - min(1, r.Rule)), time.Unix(100, 0) }
	for _, row := range []struct {
		name string
		got  query.Answer
		want string
	}{
		{"policies of a pod, its node's among them", policiesOf("shop/db"), `
selects block-feed egress rule 0 because endpoints feed == "bad" on any port
selects its node host-dnat ingress rule 0 because 203.0.113.0/24 on TCP/30000-32767
selects its node host-forward ingress rule 0 because 10.0.0.0/8 on any port
selects block-feed ingress rule 0 because endpoints feed == "bad" on any port
selects block-feed ingress rule 1 because endpoints feed == "bad" on any port
selects block-feed ingress rule 2 because endpoints feed == "bad" on any port
selects block-feed ingress rule 3 because anyone on any port
selects shop/db ingress rule 0 because endpoints app == "web" || kind == "partner" in shop on TCP/pg
selects shop/db ingress rule 1 because endpoints !has(old) && (app == "bot" || app starts with "cron-") in namespaces team in {"data", "ops"} on TCP/9187
selects shop/db ingress rule 2 because endpoints pcsa.role == "scraper" in all namespaces on TCP/9187
selects shop/db ingress rule 3 because endpoints kind == "future" in shop on any port
may match host-dns egress rule 0 perhaps on UDP because anyone on UDP; it asks for source port 53
matches host-dns ingress rule 0 on UDP/53 because anyone on UDP/53
matches block-feed ingress rule 3 on any because anyone on any port
matches shop/web ingress rule 0 on TCP/8080 because anyone on TCP/8080
matches host-forward ingress rule 0 on any because 10.0.0.0/8 on any port
`},
		{"policies of a node with a host endpoint", policiesOf("hostendpoint/n1-eth0"), `
selects n1-eth0 egress rule 0 because failsafe ports: anyone on TCP/179,2379-2380,5473,6443,6666-6667 UDP/53,67
selects host-dns egress rule 0 because anyone on UDP; it asks for source port 53
selects block-feed egress rule 0 because endpoints feed == "bad" on any port
selects n1-eth0 egress rule 0 because projectcalico-default-allow: anyone on any port
selects n1-eth0 ingress rule 0 because failsafe ports: anyone on TCP/22,179,2379-2380,5473,6443,6666-6667 UDP/68
selects host-dns ingress rule 0 because anyone on UDP/53
selects host-dnat ingress rule 0 because 203.0.113.0/24 on TCP/30000-32767
selects block-feed ingress rule 0 because endpoints feed == "bad" on any port
selects block-feed ingress rule 1 because endpoints feed == "bad" on any port
selects block-feed ingress rule 2 because endpoints feed == "bad" on any port
selects block-feed ingress rule 3 because anyone on any port
selects n1-eth0 ingress rule 0 because projectcalico-default-allow: anyone on any port
may match host-dns egress rule 0 perhaps on UDP because anyone on UDP; it asks for source port 53
matches host-dns ingress rule 0 on UDP/53 because anyone on UDP/53
matches block-feed ingress rule 3 on any because anyone on any port
matches shop/web ingress rule 0 on TCP/8080 because anyone on TCP/8080
matches n2-all ingress rule 0 on TCP/10250 because strict: 172.18.0.0/16 on TCP/10250
`},
		{"policies of a network set", policiesOf("shop/networkset/partners"), `
may match host-dns egress rule 0 perhaps on UDP because anyone on UDP; it asks for source port 53
matches host-dns ingress rule 0 on UDP/53 because anyone on UDP/53
matches block-feed ingress rule 3 on any because anyone on any port
matches shop/web ingress rule 0 on TCP/8080 because anyone on TCP/8080
matches shop/db ingress rule 0 on TCP/5432 because endpoints app == "web" || kind == "partner" in shop on TCP/pg
`},
		{"peers of a policy with sets and selectors of any form", peersOf("CalicoNetworkPolicy/shop/db"), `
applies to shop/db [shop/db]
matches shop/db ingress rule 0 [shop/web] on TCP/5432
matches shop/db ingress rule 0 [192.0.2.0/28] on TCP/5432 because of NetworkSet shop/partners
matches shop/db ingress rule 1 [ops/bot] on TCP/9187
matches shop/db ingress rule 2 [ops/bot] on TCP/9187
matches nothing shop/db ingress rule 3 because it is for endpoints kind == "future" in shop on any port; NetworkSet shop/empty has no addresses
`},
		{"peers of a policy of tier security", peersOf("block-feed"), `
applies to block-feed [ops/bot]
applies to block-feed [shop/db]
applies to block-feed [shop/web]
applies to block-feed [n1-eth0] because on node n1
applies to block-feed [n2-all] because on node n2
applies to block-feed [ops/agent] because on the network of their node, which has host endpoints
matches block-feed egress rule 0 [203.0.113.0/24] on any because of GlobalNetworkSet feed
matches block-feed ingress rule 0 [203.0.113.0/24] on any because of GlobalNetworkSet feed
matches block-feed ingress rule 1 [203.0.113.0/24] on any because of GlobalNetworkSet feed
matches block-feed ingress rule 2 [203.0.113.0/24] on any because of GlobalNetworkSet feed
matches anyone block-feed ingress rule 3 on any because anyone on any port
`},
		{"peers of a policy before the addresses of Services are resolved", peersOf("host-dnat"), `
applies to host-dnat [n1-eth0] because on node n1, with what it forwards, before the addresses of Services are resolved
applies to host-dnat [n2-all] because on node n2, with what it forwards, before the addresses of Services are resolved
applies to host-dnat [ops/agent] because on the network of their node, which has host endpoints
matches host-dnat ingress rule 0 [203.0.113.0/24] on TCP/30000-32767
`},
		{"peers of a policy before connections are tracked", peersOf("GlobalNetworkPolicy/host-dns"), `
applies to host-dns [n1-eth0] because on node n1, with what it forwards, before connections are tracked
applies to host-dns [ops/agent] because on the network of their node, which has host endpoints
may match anyone host-dns egress rule 0 perhaps on UDP because anyone on UDP; it asks for source port 53
matches anyone host-dns ingress rule 0 on UDP/53 because anyone on UDP/53
`},
		{"peers of a staged policy that is new", peersOf("shop/lock"), `
is staged shop/lock because it would be new
applies to shop/lock [shop/web]
matches shop/lock egress rule 0 [shop/db] on TCP/5432
`},
		{"peers of a staged policy in the place of another", peersOf("StagedKubernetesNetworkPolicy/shop/web"), `
is staged shop/web because it would take the place of NetworkPolicy shop/web
applies to shop/web [shop/web]
has no rule shop/web ingress because tier default denies what no rule of it matches
`},
		{"peers of a staged deletion", peersOf("StagedNetworkPolicy/shop/db"), `
is staged shop/db because it would remove Calico NetworkPolicy shop/db
applies to shop/db [shop/db]
matches shop/db ingress rule 0 [shop/web] on TCP/5432
matches shop/db ingress rule 0 [192.0.2.0/28] on TCP/5432 because of NetworkSet shop/partners
matches shop/db ingress rule 1 [ops/bot] on TCP/9187
matches shop/db ingress rule 2 [ops/bot] on TCP/9187
matches nothing shop/db ingress rule 3 because it is for endpoints kind == "future" in shop on any port; NetworkSet shop/empty has no addresses
`},
		{"peers of a profile", peersOf("Profile/strict"), `
applies to n2-all [n2-all] because on node n2
matches anyone n2-all egress rule 0 on any because strict: anyone on any port
matches n2-all ingress rule 0 [ops/agent] on TCP/10250
matches n2-all ingress rule 0 [node n1] on TCP/10250
matches n2-all ingress rule 0 [node n2] on TCP/10250
matches n2-all ingress rule 0 [node n3] on TCP/10250
matches n2-all ingress rule 0 [172.18.0.0/16] on TCP/10250
`},
		{"peers of what a host endpoint does by itself", peersOf("hostendpoint/n2-all"), `
applies to n2-all [n2-all] because on node n2
matches anyone n2-all egress rule 0 on TCP/179,2379-2380,5473,6443,6666-6667 UDP/53,67 because failsafe ports: anyone on TCP/179,2379-2380,5473,6443,6666-6667 UDP/53,67
matches anyone n2-all ingress rule 0 on TCP/22,179,2379-2380,5473,6443,6666-6667 UDP/68 because failsafe ports: anyone on TCP/22,179,2379-2380,5473,6443,6666-6667 UDP/68
matches anyone n2-all egress rule 0 on any because strict: anyone on any port
matches n2-all ingress rule 0 [ops/agent] on TCP/10250
matches n2-all ingress rule 0 [node n1] on TCP/10250
matches n2-all ingress rule 0 [node n2] on TCP/10250
matches n2-all ingress rule 0 [node n3] on TCP/10250
matches n2-all ingress rule 0 [172.18.0.0/16] on TCP/10250
`},
		{"unused", query.UnusedRules(reach.NewAudit(j), nil, time.Time{}), `
selects nothing sets-only because it is for endpoints kind == "partner" in all namespaces; it finds NetworkSet shop/partners, but policies apply to no sets
matches nothing shop/db ingress rule 3 because it is for endpoints kind == "future" in shop on any port; NetworkSet shop/empty has no addresses
in no rule [ops/old] because no selector of a rule finds it
`},
		{"unused by flows", query.UnusedRules(reach.NewAudit(j), used, time.Unix(200, 0)), `
selects nothing sets-only because it is for endpoints kind == "partner" in all namespaces; it finds NetworkSet shop/partners, but policies apply to no sets
matches nothing shop/db ingress rule 3 because it is for endpoints kind == "future" in shop on any port; NetworkSet shop/empty has no addresses
in no rule [ops/old] because no selector of a rule finds it
never used block-feed ingress rule 1
never used block-feed ingress rule 3
never used shop/db ingress rule 1
never used shop/db ingress rule 2
not used since host-dns egress rule 0
not used since host-dns ingress rule 0
not used since host-dnat ingress rule 0
not used since block-feed egress rule 0
not used since shop/web ingress rule 0
not used since shop/db ingress rule 0
not used since host-forward ingress rule 0
`},
		{"shadowed", query.ShadowedRules(reach.NewAudit(j)), `
never decides shop/db ingress rule 2 because ingress rule 2 of the same policy allows all that it matches
`},
		{"redundant", query.RedundantRules(reach.NewAudit(j)), `
changes nothing block-feed ingress rule 3 because other rules, or the end of its tier, do the same without it
changes nothing shop/db ingress rule 1 because other rules decide the same without it
changes nothing shop/db ingress rule 2 because other rules decide the same without it
`},
		{"coverage", query.Uncovered(j), `
not isolated ingress [ops/bot] because no policy that selects it denies what no rule is for
not isolated ingress [ops/agent] because it is on its node's network, and the host endpoints there deny nothing that no rule is for
not isolated ingress [node n1] because its host endpoints deny nothing that no rule is for
not isolated ingress [node n3] because it has no host endpoint
not isolated egress [ops/bot] because no policy that selects it denies what no rule is for
not isolated egress [shop/db] because no policy that selects it denies what no rule is for
not isolated egress [shop/web] because no policy that selects it denies what no rule is for
not isolated egress [ops/agent] because it is on its node's network, and the host endpoints there deny nothing that no rule is for
not isolated egress [node n1] because its host endpoints deny nothing that no rule is for
not isolated egress [node n2] because its host endpoints deny nothing that no rule is for
not isolated egress [node n3] because it has no host endpoint
`},
		{"exposure", query.ExposureOf(j), `
is reached by [ops/agent] {0.0.0.0/0 except 203.0.113.0/24} on any
is reached by [shop/web] {0.0.0.0/0 except 203.0.113.0/24} on TCP/8080
is reached by [ops/bot] {10.0.0.0/8} on any
is reached by [ops/agent] {203.0.113.0/24} on TCP/22,179,2379-2380,5473,6443,6666-6667 UDP/53,68
reaches [ops/agent] {0.0.0.0/0 except 203.0.113.0/24} on any
reaches [ops/agent] {203.0.113.0/24} on TCP/179,2379-2380,5473,6443,6666-6667 UDP/53,67 perhaps on UDP/1-52,54-66,68-65535
reaches [ops/bot] {0.0.0.0/0 except 203.0.113.0/24} on any
reaches [shop/db] {0.0.0.0/0 except 203.0.113.0/24} on any
reaches [shop/web] {0.0.0.0/0 except 203.0.113.0/24} on any
could be reached by [ops/agent] {any pod of a new namespace} on any
could be reached by [ops/bot] {any pod of a new namespace} on any
could be reached by [shop/web] {any pod of a new namespace} on TCP/8080
could reach [ops/agent] {any pod of a new namespace} perhaps on any
could reach [ops/bot] {any pod of a new namespace} on any
could reach [shop/db] {any pod of a new namespace} on any
could reach [shop/web] {any pod of a new namespace} on any
could be reached by [shop/db] {endpoints kind == "partner" in shop} on TCP/5432
could be reached by [shop/db] {endpoints app == "bot" && !has(old) in namespaces team in {"data", "ops"}} on TCP/9187
could be reached by [shop/db] {endpoints app starts with "cron-" && !has(old) in namespaces team in {"data", "ops"}} on TCP/9187
could be reached by [shop/db] {endpoints pcsa.role == "scraper" in all namespaces} on TCP/9187
could be reached by [shop/db] {endpoints kind == "future" in shop} on any
`},
		{"a path through a Service and two nodes", path("shop/web", "shop/svc/db", 5432), `
from [shop/web] on TCP/5432
service [shop/db] on TCP/5432 because it leads to shop/db on TCP/5432
egress egress [shop/web] allow because no tier that concerns it decides, so it is allowed
forwarded by egress [node n1] allow because no tier that concerns it decides, so it is allowed
leaves node [node n1]
comes to node [node n2]
forwarded by host-forward ingress rule 0 [node n2] allow because it allows 10.0.0.0/8 on any port
ingress shop/db ingress rule 0 [shop/db] allow because it allows endpoints app == "web" || kind == "partner" in shop on TCP/pg
to [shop/db] on TCP/5432 allow because both sides allow it; service shop/db leads to 1 pod at TCP/5432
`},
		{"a path from outside to a Service", path("192.0.2.1", "shop/svc/db", 5432), `
from [192.0.2.1/32] on TCP/5432
service [shop/db] on TCP/5432 because it leads to shop/db on TCP/5432; what preDNAT policies of the node it arrives at say of the Service's own address and port is not asked
comes to node [node n2]
forwarded by host-forward ingress [node n2] deny because no ingress rule of GlobalNetworkPolicy host-forward allows TCP/5432 from 192.0.2.1/32
ingress shop/db ingress rule 0 [shop/db] allow because it allows endpoints app == "web" || kind == "partner" in shop on TCP/pg
to [shop/db] on TCP/5432 deny because ingress: no ingress rule of GlobalNetworkPolicy host-forward allows TCP/5432 from 192.0.2.1/32; service shop/db leads to 1 pod at TCP/5432
`},
		{"a path on one node", path("ops/bot", "shop/db", 9187), `
from [ops/bot] on TCP/9187
egress egress [ops/bot] allow because no tier that concerns it decides, so it is allowed
leaves node [node n2]
comes to node [node n2] because the same node
ingress shop/db ingress rule 1 [shop/db] allow because it allows endpoints !has(old) && (app == "bot" || app starts with "cron-") in namespaces team in {"data", "ops"} on TCP/9187
to [shop/db] on TCP/9187 allow because both sides allow it
`},
		{"a path to a node", path("10.0.0.1", "node/n2", 10250), `
from [shop/web] on TCP/10250
egress egress [shop/web] allow because no tier that concerns it decides, so it is allowed
forwarded by egress [node n1] allow because no tier that concerns it decides, so it is allowed
leaves node [node n1]
ingress host-forward ingress rule 0 [node n2] allow because it allows 10.0.0.0/8 on any port
to [node n2] on TCP/10250 allow because both sides allow it
`},
		{"a path from anywhere outside", path("world", "shop/web", 8080), `
from [0.0.0.0/0 except 203.0.113.0/24] on TCP/8080
comes to node [node n1]
forwarded by ingress [node n1] allow because no tier that concerns it decides, so it is allowed
ingress shop/web ingress rule 0 [shop/web] allow because it allows anyone on TCP/8080
to [shop/web] on TCP/8080 allow because ingress: it allows anyone on TCP/8080
from [203.0.113.0/24] on TCP/8080
comes to node [node n1]
forwarded by ingress [node n1] allow because no tier that concerns it decides, so it is allowed
ingress block-feed ingress rule 1 [shop/web] deny because it denies endpoints feed == "bad" on any port
to [shop/web] on TCP/8080 deny because ingress: it denies endpoints feed == "bad" on any port
from [::/0] on TCP/8080
comes to node [node n1]
to [shop/web] on TCP/8080 deny because the two have no address family in common
`},
	} {
		if diff := cmp.Diff(strings.Split(strings.TrimSpace(row.want), "\n"), said(row.got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// A profile that is missing denies both ways wherever it is named.
func TestPeersOfMissingProfile(t *testing.T) {
	const host = "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: %[1]s}, spec: {node: n1, interfaceName: %[1]s, profiles: [gone]}}"
	j := judge(t, fmt.Sprintf(host+"\n---\n", "eth0")+fmt.Sprintf(host, "eth1"))
	want := []string{
		"applies to eth0 [eth0] because on node n1",
		"applies to eth0 [eth1] because on node n1",
		"matches anyone eth0 egress rule 0 on any because gone (missing): anyone on any port",
		"matches anyone eth0 ingress rule 0 on any because gone (missing): anyone on any port",
		"matches anyone eth1 egress rule 0 on any because gone (missing): anyone on any port",
		"matches anyone eth1 ingress rule 0 on any because gone (missing): anyone on any port",
	}
	found := query.Find(j.Model(), "profile/gone")
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	if diff := cmp.Diff(want, said(query.PeersOf(j, found[0]))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
