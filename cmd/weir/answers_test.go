package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/internal/testkit"
)

// weir runs a verb that must end with status 0 or 1, and returns what it prints.
func weir(t *testing.T, in string, args ...string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	status := run(t.Context(), append([]string{"weir"}, args...), streams{strings.NewReader(in), &out, &stderr})
	if status > 1 || stderr.Len() > 0 {
		t.Fatalf("weir %s: exit status %d\n%s", strings.Join(args, " "), status, stderr.String())
	}
	return out.Bytes()
}

// TestAnswersAreAsDocumented holds every JSON answer about the shop against the
// schemas of docs/schemas.
func TestAnswersAreAsDocumented(t *testing.T) {
	shop := filepath.Join(testkit.Root(t), "examples", "shop")
	repo := filepath.Join(t.TempDir(), "shop")
	if out, err := exec.Command(filepath.Join(shop, "make-repo.sh"), repo).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	flows, deploy := filepath.Join(shop, "flows.jsonl.gz"), filepath.Join(shop, "deploy")
	questions := `{"from":"storefront/web","to":"payments/db","port":5432}
{"from":"payments/api","to":"payments/db","protocol":"TCP","port":5432}
{"from":"world","to":"storefront/gateway","port":"any"}`
	store := filepath.Join(t.TempDir(), "store")
	for _, row := range []struct {
		schema string
		args   string
	}{
		{"reachability", "reach -o json DEPLOY"},
		{"reachability", "reach -o json DEPLOY --by pod"},
		{"reachability", "reach -o json DEPLOY --by namespace"},
		{"reachability", "reach -o json DEPLOY --from storefront/catalog --to world"},
		{"decision", "explain -o json -f DEPLOY storefront/web payments/db 5432"},
		{"decision", "explain -o json -f DEPLOY payments/api payments/svc/db any"},
		{"decision", "explain -o json -f DEPLOY world storefront/gateway any"},
		{"decision", "explain -f DEPLOY --batch -"},
		{"answer", "query policies -o json -f DEPLOY --of payments/db"},
		{"answer", "query policies -o json -f DEPLOY --of world"},
		{"answer", "query peers -o json -f DEPLOY --of kube-system/kube-dns"},
		{"answer", "query selector -o json -f DEPLOY app=db"},
		{"answer", "query exposure -o json -f DEPLOY"},
		{"answer", "query unused -o json -f DEPLOY --flows FLOWS --days 1"},
		{"answer", "query shadowed -o json -f DEPLOY"},
		{"answer", "query redundant -o json -f DEPLOY"},
		{"answer", "query coverage -o json -f DEPLOY"},
		{"answer", "query path -o json -f DEPLOY payments/api payments/svc/db"},
		{"answer", "query policies -o json -f CALICO --of 203.0.113.7"},
		{"answer", "query policies -o json -f CALICO --of node/n1"},
		{"answer", "query peers -o json -f CALICO --of CalicoNetworkPolicy/shop/db"},
		{"answer", "query peers -o json -f CALICO --of StagedNetworkPolicy/shop/db"},
		{"answer", "query selector -o json -f CALICO has(role)"},
		{"answer", "query exposure -o json -f CALICO"},
		{"answer", "query unused -o json -f CALICO"},
		{"answer", "query shadowed -o json -f CALICO"},
		{"answer", "query redundant -o json -f CALICO"},
		{"answer", "query coverage -o json -f CALICO"},
		{"answer", "query path -o json -f CALICO shop/web shop/svc/db"},
		{"change", "diff -o json --repo REPO git:main git:pr"},
		{"change", "diff -o json DEPLOY DEPLOY"},
		{"change", "diff -o json --staged STAGED --each"},
		{"change", "diff -o json --staged DEPLOY --each"},
		{"replay", "replay -o json --flows FLOWS DEPLOY"},
		{"replay", "replay -o json --flows FLOWS --repo REPO git:main git:pr"},
		{"preview", "preview -o json --repo REPO --flows FLOWS --fail-on breaks,opens,adds,removes,unknown,drift"},
		{"preview", "preview -o json --repo REPO"},
		{"preview", "preview -o json --staged -f STAGED --flows STAGED/flows.jsonl --each --fail-on opens"},
		{"checkrun", "check -o json DEPLOY"},
		{"checkrun", "check -o json DEPLOY --pod-cidr 10.244.0.0/16 --show-waived"},
		{"checkrun", "check -o json DEPLOY --invariants INVARIANTS --pack cis,nsa --show-waived"},
		{"preview", "preview -o json --repo REPO --pack baseline,cis,nsa"},
		{"packlist", "packs -o json"},
		{"testrun", "test -o json --pack baseline,cis,nsa"},
		{"testrun", "test -o json TESTS -f DEPLOY"},
		{"testrun", "test -o json TESTS --repo REPO -f git:pr"},
		{"conversion", "convert -o json --to calico -f DEPLOY"},
		{"conversion", "convert -o json --to networkpolicy -f CONVERT"},
		{"flowimport", "flows import -o json --to IMPORTED FLOWS"},
		{"flowimport", "flows import -o json --store STORE FLOWS"},
		{"flowstore", "flows compact -o json --store STORE"},
		{"flowstore", "flows verify -o json --store STORE"},
		{"flowstore", "flows stats -o json --store STORE"},
	} {
		t.Run(row.args, func(t *testing.T) {
			imported := filepath.Join(t.TempDir(), "flows.jsonl")
			args := strings.Fields(strings.NewReplacer("DEPLOY", deploy, "TESTS", filepath.Join(shop, "tests"), "INVARIANTS", filepath.Join(shop, "invariants.yaml"), "REPO", repo, "STAGED", filepath.Join(shop, "..", "staged"), "CONVERT", filepath.Join(shop, "..", "convert", "calico.yaml"), "CALICO", filepath.Join(shop, "..", "calico"), "FLOWS", flows, "IMPORTED", imported, "STORE", store).Replace(row.args))
			printed := weir(t, questions, args...)
			schema := testkit.Schema(t, row.schema)
			answers := json.NewDecoder(bytes.NewReader(printed))
			n := 0
			for ; answers.More(); n++ {
				var text json.RawMessage
				if err := answers.Decode(&text); err != nil {
					t.Fatal(err)
				}
				answer, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				if err := schema.Validate(answer); err != nil {
					t.Error(err)
				}
			}
			if n == 0 {
				t.Error("no answer")
			}
		})
	}
}

// TestSuiteByBatch asks explain --batch for every verdict of the truth tables.
func TestSuiteByBatch(t *testing.T) {
	for suite, verdicts := range map[string]int{"networkpolicy": 109956, "clusternetworkpolicy": 301} {
		t.Run(suite, func(t *testing.T) { checkSuite(t, suite, verdicts) })
	}
}

func checkSuite(t *testing.T, suite string, verdicts int) {
	file, err := os.Open(testkit.Shared(t, "suites", suite, "cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	world := filepath.Join(t.TempDir(), "world.json")
	right, wrong := 0, 0
	for cases := json.NewDecoder(unzipped); cases.More(); {
		var c struct {
			Case   string
			World  json.RawMessage
			Expect [][]any
		}
		if err := cases.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(world, c.World, 0o600); err != nil {
			t.Fatal(err)
		}
		var questions strings.Builder
		for _, e := range c.Expect {
			fmt.Fprintf(&questions, `{"from":%q,"to":%q,"protocol":%q,"port":%v}`+"\n", e[:4]...)
		}
		answers := bufio.NewScanner(bytes.NewReader(weir(t, questions.String(), "explain", "-f", world, "--batch", "-")))
		answers.Buffer(nil, 1<<20)
		for _, e := range c.Expect {
			type side struct{ Verdict string }
			var d struct {
				Ingress, Egress side
				Verdict         string
			}
			if !answers.Scan() {
				t.Fatalf("%s: fewer answers than questions", c.Case)
			}
			if err := json.Unmarshal(answers.Bytes(), &d); err != nil {
				t.Fatal(err)
			}
			if got := []any{d.Ingress.Verdict, d.Egress.Verdict, d.Verdict}; slices.Equal(got[7-len(e):], e[4:]) {
				right++
			} else if wrong++; wrong <= 10 {
				t.Errorf("%s: %v: got %v, want %v", c.Case, e[:4], got, e[4:])
			}
		}
	}
	if right != verdicts || wrong != 0 {
		t.Errorf("%d verdicts right and %d wrong, want %d right", right, wrong, verdicts)
	}
}

// TestOnlineBoutique holds the answer about a real application against its call
// graph: what its services are configured to call, at the ports of their pods.
func TestOnlineBoutique(t *testing.T) {
	dir := testkit.Shared(t, "real", "online-boutique")
	calls := map[string]string{
		"cartservice redis-cart":                      "TCP [[6379 6379]]",
		"checkoutservice cartservice":                 "TCP [[7070 7070]]",
		"checkoutservice currencyservice":             "TCP [[7000 7000]]",
		"checkoutservice emailservice":                "TCP [[8080 8080]]", // its Service's 5000
		"checkoutservice paymentservice":              "TCP [[50051 50051]]",
		"checkoutservice productcatalogservice":       "TCP [[3550 3550]]",
		"checkoutservice shippingservice":             "TCP [[50051 50051]]",
		"frontend adservice":                          "TCP [[9555 9555]]",
		"frontend cartservice":                        "TCP [[7070 7070]]",
		"frontend checkoutservice":                    "TCP [[5050 5050]]",
		"frontend currencyservice":                    "TCP [[7000 7000]]",
		"frontend productcatalogservice":              "TCP [[3550 3550]]",
		"frontend recommendationservice":              "TCP [[8080 8080]]",
		"frontend shippingservice":                    "TCP [[50051 50051]]",
		"recommendationservice productcatalogservice": "TCP [[3550 3550]]",
	}
	// The frontend lets in everybody, and everybody may go out.
	const everything = "TCP [[1 65535]] UDP [[1 65535]] SCTP [[1 65535]]"
	for _, name := range []string{
		"adservice", "cartservice", "checkoutservice", "currencyservice", "emailservice", "frontend", "loadgenerator",
		"paymentservice", "productcatalogservice", "recommendationservice", "redis-cart", "shippingservice",
	} {
		if name != "frontend" {
			calls[name+" frontend"] = everything
		}
		calls[name+" 0.0.0.0/0"], calls[name+" ::/0"] = everything, everything
	}
	calls["0.0.0.0/0 frontend"], calls["::/0 frontend"] = everything, everything

	type peer struct{ Name, CIDR string }
	type grant struct {
		Protocol string
		Ports    [][2]int
	}
	var answer struct {
		Connections []struct {
			From, To       peer
			Allow, Unknown []grant
		}
		Warnings []any
	}
	if err := json.Unmarshal(weir(t, "", "reach", dir, "-o", "json"), &answer); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range answer.Connections {
		var ports []string
		for _, g := range c.Allow {
			ports = append(ports, fmt.Sprint(g.Protocol, " ", g.Ports))
		}
		if len(c.Unknown) > 0 {
			ports = append(ports, fmt.Sprint("unknown ", c.Unknown))
		}
		got[c.From.Name+c.From.CIDR+" "+c.To.Name+c.To.CIDR] = strings.Join(ports, " ")
	}
	if diff := cmp.Diff(calls, got); diff != "" {
		t.Errorf("(-calls +answer):\n%s", diff)
	}
	if len(answer.Warnings) > 0 {
		t.Errorf("warnings: %v", answer.Warnings)
	}
}
