package query_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
)

// mixed has policies of Calico and of Kubernetes in several tiers, network sets,
// and host endpoints on two of three nodes.
const mixed = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: ops}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.0.0/16}, status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDR: 10.1.0.0/16}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n3}, spec: {podCIDR: 10.2.0.0/16}, status: {addresses: [{type: InternalIP, address: 172.18.0.3}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: ops, labels: {role: scraper}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: n1, serviceAccountName: default, containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {nodeName: n2, serviceAccountName: default, containers: [{name: c, ports: [{name: pg, containerPort: 5432}]}]}, status: {podIPs: [{ip: 10.1.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops, labels: {app: bot}}, spec: {nodeName: n2, serviceAccountName: robot, containers: [{name: c}]}, status: {podIPs: [{ip: 10.1.0.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: ops}, spec: {nodeName: n1, hostNetwork: true, containers: [{name: c}]}, status: {podIPs: [{ip: 172.18.0.1}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 5432}]}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 100, defaultAction: Pass}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: feed, labels: {feed: bad}}, spec: {nets: [203.0.113.0/24]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: partners, namespace: shop, labels: {kind: partner}}, spec: {nets: [192.0.2.0/28]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: empty, namespace: shop, labels: {kind: future}}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: old, namespace: ops, labels: {kind: old}}, spec: {nets: [198.51.100.0/28]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: block-feed}
spec:
  tier: security
  types: [Ingress, Egress]
  ingress:
  - {action: Log, source: {selector: feed == 'bad'}}
  - {action: Deny, source: {selector: feed == 'bad'}}
  - {action: Log, source: {selector: feed == 'bad'}}
  - {action: Pass}
  egress: [{action: Deny, destination: {selector: feed == 'bad'}}]
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: sets-only}, spec: {selector: kind == 'partner', namespaceSelector: all()}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: "app == 'web' || kind == 'partner'"}, destination: {ports: [pg]}}
  - {action: Allow, protocol: TCP, source: {namespaceSelector: "team in {'ops', 'data'}", selector: "!has(old) && (app == 'bot' || app starts with 'cron-')"}, destination: {ports: [9187]}}
  - {action: Allow, protocol: TCP, source: {serviceAccounts: {selector: role == 'scraper'}, namespaceSelector: all()}, destination: {ports: [9187]}}
  - {action: Allow, source: {selector: kind == 'future'}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080}]}]}}
---
{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: lock, namespace: shop}, spec: {selector: app == 'web', types: [Egress], egress: [{action: Allow, destination: {services: {name: db}}}]}}
---
{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, ingress: []}}
---
{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: db, namespace: shop}, spec: {stagedAction: Delete}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1-eth0, labels: {role: worker}}, spec: {node: n1, interfaceName: "*", profiles: [projectcalico-default-allow]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n2-all, labels: {role: master}}, spec: {node: n2, interfaceName: "*", profiles: [strict]}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: strict}
spec:
  ingress: [{action: Allow, protocol: TCP, source: {nets: [172.18.0.0/16]}, destination: {ports: [10250]}}]
  egress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host-dnat}
spec: {selector: has(role), preDNAT: true, applyOnForward: true, types: [Ingress], ingress: [{action: Deny, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: ["30000:32767"]}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host-dns}
spec:
  selector: role == 'worker'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]
  egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host-forward}
spec: {selector: role == 'master', applyOnForward: true, types: [Ingress], ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}}]}
`

func TestAnswersInMixedWorld(t *testing.T) {
	j := judge(t, mixed)
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
