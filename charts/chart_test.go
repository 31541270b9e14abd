// Package charts holds the tests of the chart. Those that render it want helm, which
// make chart builds.
package charts

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/library"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// objects are what the chart consists of, as it is rendered.
type objects []*unstructured.Unstructured

// render renders a chart with values such as "webhook.failurePolicy=Fail".
func render(t testing.TB, chart string, values ...string) objects {
	t.Helper()
	args := []string{"template", "weir", chart, "--namespace", "weir-system"}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	out, err := testkit.Helm(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var all objects
	for documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(out), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := documents.Decode(&o.Object); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if o.Object != nil {
			all = append(all, o)
		}
	}
}

// of returns the object of a kind and name.
func (all objects) of(t testing.TB, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range all {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// list returns the maps of a list in an object.
func list(o map[string]any, fields ...string) []map[string]any {
	found, _, _ := unstructured.NestedSlice(o, fields...)
	var maps []map[string]any
	for _, each := range found {
		if m, ok := each.(map[string]any); ok {
			maps = append(maps, m)
		}
	}
	return maps
}

func texts(o map[string]any, field string) []string {
	found, _, _ := unstructured.NestedStringSlice(o, field)
	return found
}

func TestDefinitionsAreThoseOfTheTypes(t *testing.T) {
	testkit.Golden(t, "weir/files/weir.dev_invariants.yaml", v1alpha1.InvariantCRD)
	testkit.Golden(t, "weir/files/weir.dev_packetcaptures.yaml", v1alpha1.PacketCaptureCRD)
}

// What may be done is listed in the documentation, with its reason.
func TestRules(t *testing.T) {
	all := render(t, "weir")
	var want []string
	for _, o := range all {
		if kind := o.GetKind(); kind != "Role" && kind != "ClusterRole" {
			continue
		}
		for _, rule := range list(o.Object, "rules") {
			names := strings.Join(texts(rule, "resourceNames"), ", ")
			for _, group := range texts(rule, "apiGroups") {
				want = append(want, fmt.Sprintf("%s | %s | %s | %s | %s", cmp.Or(o.GetNamespace(), "everywhere"),
					cmp.Or(group, "core"), strings.Join(texts(rule, "resources"), ", "), names, strings.Join(texts(rule, "verbs"), ", ")))
			}
		}
	}
	text, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| ((?:everywhere|weir-system|default) \|.*) \| ([^|]+) \|$`)
	var got []string
	for _, found := range row.FindAllStringSubmatch(string(text), -1) {
		got = append(got, strings.Join(strings.Fields(strings.ReplaceAll(found[1], "`", "")), " "))
	}
	for i := range want {
		want[i] = strings.Join(strings.Fields(want[i]), " ")
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("the chart (-) and docs/install.md (+) list other rules:\n%s", diff)
	}
}

// A parent chart shares values, switches the chart on and off, and names it.
func TestAsSubchart(t *testing.T) {
	parent := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(parent, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	here, err := filepath.Abs("weir")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(parent, "charts", "weir"), os.DirFS(here)); err != nil {
		t.Fatal(err)
	}
	write("Chart.yaml", "{apiVersion: v2, name: platform, version: 1.0.0, dependencies: [{name: weir, version: 0.x, condition: weir.enabled}]}")
	write("values.yaml", "{global: {imageRegistry: images.example.com, of: {others: too}}, weir: {enabled: true, replicas: 3}}")
	all := render(t, parent)
	deployment := all.of(t, "Deployment", "weir")
	if n, _, _ := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "replicas"); fmt.Sprint(n) != "3" {
		t.Errorf("there are %v replicas", n)
	}
	if image := list(deployment.Object, "spec", "template", "spec", "containers")[0]["image"]; !strings.HasPrefix(image.(string), "images.example.com/") {
		t.Errorf("the image is %v", image)
	}
	if all := render(t, parent, "weir.enabled=false"); len(all) > 0 {
		t.Errorf("switched off, it renders %v", all)
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	for _, row := range []struct{ value, says string }{
		{"webhook.failurePolicy=Maybe", "webhook/failurePolicy"},
		{"webhook.timeoutSeconds=31", "webhook/timeoutSeconds"},
		{"webhook.undecided=allow", "webhook/undecided"},
		{"certificates.source=vault", "certificates/source"},
		{"replicas=0", "replicas"},
		{"replicaCount=2", "replicaCount"},
		{"image.digest=latest", "image/digest"},
		{"podDisruptionBudget.maxUnavailable=0", "podDisruptionBudget/maxUnavailable"},
		{"controller.logLevel=loud", "controller/logLevel"},
		{"webhook.excludeNamespaces={A_b}", "webhook/excludeNamespaces"},
		{"webhook.matchConditions[0].name=x,webhook.matchConditions[0].expression=)(", "webhook/matchConditions"},
		{"webhook.matchConditions[0].name=a b,webhook.matchConditions[0].expression=true", "webhook/matchConditions"},
		{"webhook=null", "webhook"},
		{"image.tag=a b", "image/tag"},
		{"networkPolicy.apiServerCIDRs={banana}", "networkPolicy/apiServerCIDRs"},
		{"networkPolicy.apiServerCIDRs={10.0.0.1/40}", "networkPolicy/apiServerCIDRs"},
		{"networkPolicy.apiServerCIDRs={10.0.0.256/8}", "networkPolicy/apiServerCIDRs"},
		{"networkPolicy.apiServerCIDRs={fd00::/129}", "networkPolicy/apiServerCIDRs"},
		{"calico.version=9.9", "calico/version"},
		{"packs={baselin}", "packs/0"},
		{"fullnameOverride=UPPER_case", "fullnameOverride"},
		{"nameOverride=a.b", "nameOverride"},
		{"certificates.duration=1h,certificates.renewBefore=61m", "certificates/renewBefore: 61m is not less than"},
		{"podDisruptionBudget.maxUnavailable=5", "podDisruptionBudget/maxUnavailable: 5 is more than replicas, 2"},
		{"podDisruptionBudget.maxUnavailable=101%", "podDisruptionBudget/maxUnavailable"},
		{"resources.limits.memory=lots", "resources/limits/memory"},
		{"agent.mode=look", "agent/mode"},
		{"agent.unknownPods=maybe", "agent/unknownPods"},
		{"agent.flows.path=here", "agent/flows/path"},
		{"webhook.clientCA.name=kube-apiserver", "webhook/clientCA"},
		{"webhook.clientCA.configMap=A_b", "webhook/clientCA/configMap"},
	} {
		out, err := testkit.Helm(t, "template", "weir", "weir", "--set", row.value)
		if err == nil || !strings.Contains(strings.ReplaceAll(out, ".", "/"), row.says) {
			t.Errorf("%s: %v\n%s", row.value, err, out)
		}
	}
}

// Every choice renders to something that is not empty and parses.
func TestChoices(t *testing.T) {
	least := render(t, "weir", "rbac.create=false", "serviceAccount.create=false", "podDisruptionBudget.enabled=false",
		"networkPolicy.enabled=false", "crds.install=false", "webhook.world.enabled=false", "tests.enabled=false")
	var kinds []string
	for _, o := range least {
		kinds = append(kinds, o.GetKind())
	}
	slices.Sort(kinds)
	if diff := gocmp.Diff([]string{"Deployment", "Secret", "Service", "ValidatingWebhookConfiguration"}, kinds); diff != "" {
		t.Error(diff)
	}
	most := render(t, "weir", "certificates.source=cert-manager", "metrics.serviceMonitor.enabled=true",
		"controller.eventsAddr=http://notification-controller.flux-system.svc", "hostNetwork=true", "calico.decides=true", "calico.version=3.30",
		"networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring", "priorityClassName=", "webhook.foreign=null")
	for _, kind := range []string{"Certificate", "Issuer", "ServiceMonitor"} {
		most.of(t, kind, "weir")
	}
	for _, values := range []string{
		"packs={baseline,/packs/own}", "webhook.excludeNamespaces=null", "webhook.annotations=null", "replicas=1", "podDisruptionBudget.maxUnavailable=50%",
		"networkPolicy.apiServerCIDRs={10.0.0.0/8,fd00::1/128,::/0}", "resources.limits.memory=1.5Gi,resources.requests.cpu=1", "image.tag=v1.2.3-rc_1",
		"webhook.clientCA.configMap=issuer,webhook.clientCA.name=kube-apiserver,certificates.source=cert-manager",
		`webhook.matchConditions[0].name=example.com/x,webhook.matchConditions[0].expression=!("a" in [request.name])`,
	} {
		render(t, "weir", values)
	}
}

// With an agent on every node there is all that it needs, and its dashboard asks for no
// metrics but those that there are.
func TestAgent(t *testing.T) {
	all := render(t, "weir", "agent.enabled=true", "agent.dashboard.enabled=true", "metrics.serviceMonitor.enabled=true", "agent.guards[0].kind=ClusterNetworkPolicy")
	for _, kind := range []string{"DaemonSet", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "PodMonitor"} {
		all.of(t, kind, "weir-agent")
	}
	all.of(t, "ConfigMap", "weir-agent-guards")
	text, _, _ := unstructured.NestedString(all.of(t, "ConfigMap", "weir-agent-dashboard").Object, "data", "weir-agents.json")
	if !json.Valid([]byte(text)) {
		t.Error("the dashboard is no JSON")
	}
	source, err := os.ReadFile("../enforcer/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`weir_agent_[a-z_]+`).FindAllString(text, -1) {
		name = strings.TrimPrefix(strings.TrimSuffix(name, "_bucket"), "weir_agent_")
		if !bytes.Contains(source, []byte(`"`+name+`"`)) && !bytes.Contains(source, []byte(`"weir_agent_`+name+`"`)) {
			t.Errorf("the dashboard asks for weir_agent_%s, which there is not", name)
		}
	}
}

// The versions of Calico, and the policy packs, are those that the program knows.
func TestVersionsAndPacks(t *testing.T) {
	text, err := os.ReadFile("weir/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var packs []string
	for _, p := range library.Packs {
		packs = append(packs, p.Name)
	}
	for _, want := range []string{
		`"version": {"enum": ["", "` + strings.Join(k8s.CalicoVersions[:], `", "`) + `"]}`,
		`{"enum": ["` + strings.Join(packs, `", "`) + `"]}`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("values.schema.json does not say %s", want)
		}
	}
}

// The emergency exit stands where people look for it.
func TestEmergencyExit(t *testing.T) {
	for _, name := range []string{"weir/templates/NOTES.txt", "../docs/install.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("kubectl delete validatingwebhookconfiguration")) {
			t.Errorf("%s does not tell it", name)
		}
	}
}
