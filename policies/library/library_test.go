package library_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/regotest"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/library"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// What worlds are made of.
const (
	dns = `
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: Pod, metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {containers: [{name: c}]}}
`
	system = `
{apiVersion: v1, kind: Namespace, metadata: {name: infra, labels: {weir.dev/system: "true"}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: infra}, spec: {containers: [{name: c}]}}
`
	web = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weir.dev/tenant: shop}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c}]}}
`
	db = `
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app.kubernetes.io/name: postgresql}}, spec: {containers: [{name: c}]}}
`
	bot = `
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {weir.dev/tenant: ops}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops}, spec: {containers: [{name: c}]}}
`
	etcd = `
{apiVersion: v1, kind: Pod, metadata: {name: etcd, namespace: kube-system, labels: {component: etcd}}, spec: {containers: [{name: c}]}}
`
	node = `
{apiVersion: v1, kind: Node, metadata: {name: control-1, labels: {node-role.kubernetes.io/control-plane: ""}}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
`
	closed = `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: %s}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
`
	closedIn = `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed-in, namespace: %s}, spec: {podSelector: {}, policyTypes: [Ingress]}}
`
	namesOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names, namespace: %s}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]
`
)

func in(namespace string, texts ...string) string {
	for i := range texts {
		texts[i] = fmt.Sprintf(texts[i], namespace)
	}
	return strings.Join(texts, "---")
}

func world(t *testing.T, parts []string) *policies.Model {
	t.Helper()
	docs, err := k8s.Parse("world.yaml", []byte(strings.Join(parts, "---")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func all(t *testing.T) []invariant.Invariant {
	t.Helper()
	var names []string
	for _, p := range library.Packs {
		names = append(names, p.Name)
	}
	packs, err := source.ReadPacks(context.Background(), nil, names...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := source.WithPacks(nil, packs...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func check(t *testing.T, i invariant.Invariant, parts ...string) invariant.Result {
	t.Helper()
	one := []invariant.Invariant{i}
	set, err := invariant.Prepare(reach.New(world(t, parts), invariant.Apart(reach.Options{}, one...)), one)
	if err != nil {
		t.Fatal(err)
	}
	results, err := set.Check(context.Background(), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// Each item of each pack holds in one small world, and not in another.
func TestItems(t *testing.T) {
	rows := map[string]struct {
		holds, broken []string
		want          string
	}{
		"baseline-default-deny-ingress": {
			[]string{dns, system, web, in("shop", closedIn)},
			[]string{dns, system, web, in("shop", namesOnly)},
			"shop/web: no policy isolates it at ingress",
		},
		"baseline-default-deny-egress": {
			[]string{dns, system, web, in("shop", namesOnly)},
			[]string{dns, system, web, in("shop", closedIn)},
			"shop/web: no policy isolates it at egress",
		},
		"baseline-dns": {
			[]string{dns, system, web, in("shop", closed, namesOnly)},
			[]string{dns, system, web, in("shop", closed)},
			"shop/web cannot open TCP/53 to kube-system/dns",
		},
		"baseline-no-world-open-databases": {
			[]string{dns, web, db, in("shop", closed)},
			[]string{dns, web, db, in("shop", namesOnly)},
			"address 0.0.0.0 can open TCP/1 to shop/db",
		},
		"baseline-metadata-blocked": {
			[]string{dns, system, web, in("shop", namesOnly)},
			[]string{dns, system, web, in("shop", closedIn)},
			"shop/web can open TCP/80 to address 169.254.169.254",
		},
		"baseline-control-plane-protected": {
			[]string{dns, node, system, web, in("shop", namesOnly)},
			[]string{dns, node, system, web, in("shop", closedIn)},
			"shop/web can open TCP/2379 to node control-1",
		},
		"baseline-tenant-isolation": {
			[]string{dns, web, bot, in("shop", closed), in("ops", closedIn)},
			[]string{dns, web, bot, in("shop", closedIn)},
			"shop/web can open TCP/1 to ops/bot",
		},
		"cis-pods-isolated": {
			[]string{dns, system, web, in("shop", closedIn)},
			[]string{dns, system, web, in("shop", namesOnly)},
			"shop/web: no policy isolates it at ingress",
		},
		"cis-namespaces-have-policies": {
			[]string{dns, system, web, in("shop", namesOnly)},
			[]string{dns, system, web},
			"namespace shop has pods and no network policy",
		},
		"nsa-default-deny": {
			[]string{dns, system, web, in("shop", closed)},
			[]string{dns, system, web, in("shop", closedIn)},
			"shop/web: no policy isolates it at egress",
		},
		"nsa-metadata-blocked": {
			[]string{dns, system, web, in("shop", namesOnly)},
			[]string{dns, system, web, in("shop", closedIn)},
			"shop/web can open TCP/1 to address 169.254.169.254",
		},
		"nsa-etcd-separated": {
			[]string{dns, etcd, web, in("kube-system", closed)},
			[]string{dns, etcd, web},
			"shop/web can open TCP/2379 to kube-system/etcd; 1 other pair breaks it too",
		},
		"nsa-kubelet-protected": {
			[]string{dns, node, system, web, in("shop", namesOnly)},
			[]string{dns, node, system, web, in("shop", closedIn)},
			"shop/web can open TCP/10250 to node control-1",
		},
		"nsa-egress-named": {
			[]string{dns, system, web, in("shop", namesOnly)},
			[]string{dns, system, web, in("shop", closedIn)},
			"shop/web can open TCP/1 to address 0.0.0.0; 1 other item breaks it too",
		},
		"nsa-namespaces-apart": {
			[]string{dns, system, web, bot, in("shop", closedIn), in("ops", closed)},
			[]string{dns, system, web, bot, in("ops", closedIn)},
			"shop/web is open to ops/bot on every port",
		},
	}
	for _, i := range all(t) {
		t.Run(i.Ref.Name, func(t *testing.T) {
			row, ok := rows[i.Ref.Name]
			if !ok {
				t.Fatal("it has no test")
			}
			if i.Description == "" || len(i.Links) == 0 {
				t.Error("it needs a description and a link")
			}
			if r := check(t, i, row.holds...); r.State != invariant.Holds || r.Vacuous != "" {
				t.Errorf("where it holds it is %s: %s", r.State, r.Say())
			}
			r := check(t, i, row.broken...)
			if diff := cmp.Diff(row.want, r.Say()); diff != "" || r.State != invariant.Broken {
				t.Errorf("where it is broken it is %s: %s", r.State, diff)
			}
			delete(rows, i.Ref.Name)
		})
	}
	for name := range rows {
		t.Errorf("there is no %s", name)
	}
}

// Namespaces with the label and pods that are exempt are left alone.
func TestExemptions(t *testing.T) {
	for name, pod := range map[string]string{
		"baseline-metadata-blocked": "weir.dev/metadata-access: needs-it", "nsa-metadata-blocked": "weir.dev/metadata-access: needs-it", "baseline-dns": "weir.dev/no-dns: yes-please",
	} {
		exempt := strings.Replace(web, "{app: web}", "{"+pod+"}", 1)
		parts := []string{dns, exempt}
		if strings.HasSuffix(name, "dns") {
			parts = append(parts, in("shop", closed))
		}
		if r := check(t, *invariant.Named(all(t), name), parts...); r.State != invariant.Holds {
			t.Errorf("%s is %s: %s", name, r.State, r.Say())
		}
	}
}

// Editors are told what an InvariantTest is.
func TestTestsAreAsDocumented(t *testing.T) {
	schema, checked := testkit.Schema(t, "invarianttest"), 0
	files, err := fs.Glob(library.Files, "*/*_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := library.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var document map[string]any
			if err := documents.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if document["kind"] != v1alpha1.KindInvariantTest {
				continue
			}
			if checked++; schema.Validate(document) != nil {
				t.Errorf("%s: %v", file, schema.Validate(document))
			}
		}
	}
	if checked == 0 {
		t.Error("there are no tests")
	}
}

func TestRegoTests(t *testing.T) {
	for _, p := range library.Packs {
		pack, err := source.ReadPack(context.Background(), nil, p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if len(pack.Tests)+len(pack.Worlds) == 0 {
			t.Errorf("%s has no tests", p.Name)
		}
		declared, err := pack.RunTests(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range declared {
			if !r.Passed {
				t.Errorf("%s: %s: %s", r.Package, r.Name, r.Because)
			}
		}
		w := rego.NewWorld(reach.New(&policies.Model{}, reach.Options{}), expression.Recorded{})
		results, err := regotest.Run(context.Background(), w, append(pack.Modules, pack.Tests...), pack.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if !r.Passed {
				t.Errorf("%s: %s: %s", r.Place, r.Name, r.Because)
			}
		}
	}
}
