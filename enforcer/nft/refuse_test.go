package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

func modelOf(t testing.TB, texts ...string) *policies.Model {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(strings.Join(texts, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	webPod = `{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}`
	dbPod  = `{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}}`
	// The first version of the policy opens two ports, the second asks for a method at
	// one of them, and opens a third.
	plain = `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {selector: app == 'db', ingress: [
  {action: Allow, protocol: TCP, destination: {ports: [80]}}, {action: Allow, protocol: TCP, destination: {ports: [5432]}}]}}`
	asking = `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {selector: app == 'db', ingress: [
  {action: Allow, protocol: TCP, destination: {ports: [80]}, http: {methods: [GET]}}, {action: Allow, protocol: TCP, destination: {ports: [9000]}}]}}`
	denying = `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {namespace: shop, name: early}, spec: {order: 1, selector: app == 'db', ingress: [
  {action: Deny, protocol: TCP, source: {ports: [7]}, destination: {ports: [5432]}}]}}`
)

// passing returns which ports of the database web gets through to.
func passing(m *policies.Model) []uint16 {
	r := Compile(Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{})}, nil)
	var open []uint16
	for _, port := range []uint16{80, 5432, 9000} {
		p := Packet{Protocol: netset.TCP, Port: port}
		for i := range m.Pods {
			if m.Pods[i].Ref.Name == "web" {
				p.Source = m.Pods[i].Addresses[0]
			} else {
				p.Destination = m.Pods[i].Addresses[0]
			}
		}
		if r.Fate(p).Passes {
			open = append(open, port)
		}
	}
	return open
}

// A policy that cannot be expressed is in force as a whole in its last version, or
// opens nothing at all and closes all it may close: never a part of it.
func TestAdmit(t *testing.T) {
	for _, row := range []struct {
		name   string
		before []string // policies
		now    []string
		want   []uint16
		kept   []bool // of each refusal
	}{
		{"what can be expressed is enforced", nil, []string{plain}, []uint16{80, 5432}, nil},
		{"what cannot opens nothing, not even what could be", nil, []string{asking}, nil, []bool{false}},
		{"its last version stays", []string{plain}, []string{asking}, []uint16{80, 5432}, []bool{true}},
		{"what it may close is closed", nil, []string{denying, plain}, []uint16{80}, []bool{false}},
		{"what is gone does not stay", []string{plain}, nil, []uint16{80, 5432, 9000}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, accepted, _ := Admit(modelOf(t, append(row.before, webPod, dbPod)...), nil)
			m, _, refusals := Admit(modelOf(t, append(row.now, webPod, dbPod)...), accepted)
			var kept []bool
			for _, r := range refusals {
				kept = append(kept, r.Kept)
			}
			if diff := cmp.Diff(row.want, passing(m)); diff != "" {
				t.Errorf("open ports (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(row.kept, kept); diff != "" {
				t.Errorf("kept (-want +got)\n%s\n%v", diff, refusals)
			}
		})
	}
}

func TestRefusalsSayWhatIsRefused(t *testing.T) {
	const (
		node  = `{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {role: worker}}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}`
		host  = `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1, labels: {app: host}}, spec: {node: n1, interfaceName: "*", expectedIPs: [192.168.0.1]}}`
		hosts = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: hosts}, spec: {selector: app == 'host', ingress: [{action: Allow}]}}`
		fence = `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: fence}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{name: none, action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 23}}}]}]}}`
		all   = `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: %s}, spec: {tier: Admin, priority: 7, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, ingress: [{action: %s, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 5432}}}]}]}}`
	)
	tie := strings.NewReplacer("%s}, spec", "one}, spec", "action: %s", "action: Accept").Replace(all) + "\n---\n" +
		strings.NewReplacer("%s}, spec", "two}, spec", "action: %s", "action: Deny").Replace(all)
	for _, row := range []struct {
		name  string
		texts []string
		want  string
	}{
		{"nothing", []string{webPod, dbPod, plain}, ""},
		{"policies of one priority that contradict each other", []string{webPod, dbPod, tie}, "ingress of shop/db"},
		{"host endpoints", []string{node, host, hosts}, "host endpoints"},
		{"an unclear rule", []string{webPod, dbPod, asking}, "HTTP"},
		{"a rule for pods only", []string{webPod, dbPod, fence}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, _, refusals := Admit(modelOf(t, row.texts...), nil)
			refusals = append(refusals, Doubts(Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{})})...)
			var lines []string
			for _, r := range refusals {
				lines = append(lines, r.String())
			}
			text := strings.Join(lines, "\n")
			if (row.want == "") != (text == "") || !strings.Contains(text, row.want) {
				t.Errorf("got %q, want something about %q", text, row.want)
			}
			t.Log(text)
		})
	}
}
