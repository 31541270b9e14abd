package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/weir-policy/weir/internal/controller"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/webhook"
)

// cluster is a real API server that asks replicas of the webhook, in turn.
type cluster struct {
	*testing.T
	*plane.Plane
	clients *kubernetes.Clientset
	config  *rest.Config // of the replicas

	next     atomic.Int64
	mutex    sync.Mutex
	replicas []*member
	lines    []net.Conn // of the replicas to the server
}

// member is a running replica.
type member struct {
	*replica
	metrics *prometheus.Registry
	address string
	health  string // the address of its health
	stop    func()
}

func newCluster(t *testing.T, replicas int, set ...func(*options)) *cluster {
	t.Helper()
	c := newPlane(t)
	for range replicas {
		c.start(set...)
	}
	c.register()
	return c
}

// definitions are those of Weir's own kinds.
const definitions = "../../policies/v1alpha1/crd"

// newPlane returns one without replicas.
func newPlane(t *testing.T) *cluster {
	t.Helper()
	return newBarePlane(t, &envtest.Environment{CRDDirectoryPaths: []string{definitions}, ErrorIfCRDPathMissing: true})
}

func newBarePlane(t *testing.T, e *envtest.Environment) *cluster {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	p := plane.Start(t, e)
	c := &cluster{T: t, Plane: p, config: rest.CopyConfig(p.Config)}
	c.config.QPS = -1
	c.clients = kubernetes.NewForConfigOrDie(c.config)
	c.config = rest.CopyConfig(c.config)
	c.config.Dial = c.dial
	_, err := c.clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "weir-system"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	line, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.lines = append(c.lines, line)
	}
	return line, err
}

// cut ends all watches, so that they have to be begun again.
func (c *cluster) cut() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, line := range c.lines {
		line.Close()
	}
	c.lines = nil
}

// start runs one more replica, and returns when it is ready.
func (c *cluster) start(set ...func(*options)) *member {
	c.Helper()
	o := defaults()
	o.address(c.T)
	for _, f := range set {
		f(o)
	}
	metrics := prometheus.NewRegistry()
	r, err := newReplica(c.config, o, metrics)
	if err != nil {
		c.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx) }()
	m := &member{replica: r, metrics: metrics, address: o.webhookAddr, health: o.healthAddr}
	m.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			c.Log(err)
		}
	})
	c.Cleanup(m.stop)
	testkit.Eventually(c, func() error { return ready("http://" + o.healthAddr + "/readyz?verbose") })
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.replicas = append(c.replicas, m)
	return m
}

// scrape returns the metrics of a replica.
func (m *member) scrape() string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.metrics, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// address gives a replica free ports, and what else a test wants.
func (o *options) address(t *testing.T) {
	t.Helper()
	f := newFlags(o)
	_ = f.Parse(nil)
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	o.webhookAddr, o.healthAddr, o.metricsAddr = free(), free(), "0"
	o.advertiseAddr, o.namespace, o.leader.Enable = o.webhookAddr, "weir-system", true
	o.leader.LeaseDuration, o.leader.RenewDeadline, o.leader.RetryPeriod = 3*time.Second, 2*time.Second, 200*time.Millisecond
	o.pending, o.settle = time.Second, 20*time.Millisecond
	if err := o.complete(func(string) string { return "" }, os.Hostname); err != nil {
		t.Fatal(err)
	}
}

func ready(url string) error {
	a, err := http.Get(url)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		var text bytes.Buffer
		_, _ = text.ReadFrom(a.Body)
		return fmt.Errorf("%s: %s", a.Status, text.String())
	}
	return nil
}

// register lets the API server ask the replicas, in turn.
func (c *cluster) register() {
	c.Helper()
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 100},
		Rewrite: func(q *httputil.ProxyRequest) {
			q.SetURL(&url.URL{Scheme: "https", Host: c.pick()})
		},
	})
	c.Cleanup(proxy.Close)
	hook := configuration(c)
	at := proxy.URL + webhook.ReviewPath
	for i := range hook.Webhooks {
		hook.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{
			URL: &at, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}),
		}
	}
	if _, err := c.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(c.Context(), hook, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	// The server begins to ask a little later.
	probe := "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: probe}\nspec: {cel: 'nonsense('}\n"
	testkit.Eventually(c, func() error {
		if out, err := c.try(probe, "create", "--dry-run=server", "-f", "-"); err == nil {
			return fmt.Errorf("not asked yet: %s", out)
		}
		return nil
	})
}

// configuration is what the chart has the API server ask about, and refuse when nobody
// answers.
func configuration(t testing.TB) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	out, err := testkit.Helm(t, "template", "weir", "../../charts/weir", "--namespace", "weir-system", "--show-only", "templates/webhook.yaml",
		"--set", "webhook.failurePolicy=Fail,webhook.world.failurePolicy=Fail,webhook.world.timeoutSeconds=10")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict([]byte(out), hook); err != nil {
		t.Fatal(err)
	}
	hook.Name = tested // the replicas look after the one of the chart's name
	return hook
}

// tested is the configuration that leads to the replicas.
const tested = "weir-tested"

func (c *cluster) pick() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.replicas[int(c.next.Add(1))%len(c.replicas)].address
}

// lose takes a replica out of the service.
func (c *cluster) lose(m *member) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for i := range c.replicas {
		if c.replicas[i] == m {
			c.replicas = append(c.replicas[:i:i], c.replicas[i+1:]...)
			return
		}
	}
}

// try runs kubectl and returns all that it printed.
func (c *cluster) try(stdin string, args ...string) (string, error) {
	command := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	return string(out), err
}

// apply applies manifests that are allowed.
func (c *cluster) apply(text string) string {
	c.Helper()
	out, err := c.try(text, "apply", "-f", "-")
	if err != nil {
		c.Fatalf("%v: %s", err, out)
	}
	return out
}

// says compares what kubectl prints.
func (c *cluster) says(want, stdin string, args ...string) {
	c.Helper()
	got, err := c.try(stdin, args...)
	if refused := strings.Contains(want, "denied the request"); refused != (err != nil) {
		c.Errorf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	if got != want {
		c.Errorf("kubectl %s:\n%s\nwant:\n%s", strings.Join(args, " "), got, want)
	}
}

// explains makes sure that the command in a denial says what the denial does.
func (c *cluster) explains(l *source.Loader, sources ...string) {
	c.Helper()
	l.Cluster.Kubeconfig = c.Kubeconfig
	m, err := l.Load(c.Context(), sources...)
	if err != nil {
		c.Fatal(err)
	}
	web, errWeb := m.Find("shop/deployment/web")
	db, errDB := m.Find("payments/deployment/db")
	port, errPort := policies.ParsePort("TCP/5432")
	if err := errors.Join(errWeb, errDB, errPort); err != nil {
		c.Fatal(err)
	}
	d, err := reach.New(m, reach.Options{}).Ask(reach.Question{From: web, To: db, Port: port})
	if err != nil || d.Verdict != policies.Allow {
		c.Errorf("%v: %+v", err, d)
	}
}

const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments, labels: {team: payments}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: payments}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: payments}
spec:
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: db, ports: [{containerPort: 5432}]}]}}
`

const closed = `
apiVersion: weir.dev/v1alpha1
kind: Invariant
metadata: {name: payments-db}
spec:
  description: the shop does not reach the payments database
  owner: team-payments
  never:
    from: [{namespaceSelector: {matchLabels: {team: shop}}}]
    to: [{namespaceSelector: {matchLabels: {team: payments}}}]
    ports: [5432]
`

const openDB = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: payments}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}}], ports: [{port: 5432}]}]
`

const openWeb = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{}]
`

const (
	because   = ` admission webhook "policies.weir.dev" denied the request: `
	notAsSaid = ` admission webhook "invariants.weir.dev" denied the request: `
)

const opensDB = `breaks invariant payments-db (deny): the shop does not reach the payments database (owner team-payments)
shop/web can open TCP/5432 to payments/db
by NetworkPolicy %s
weir explain -f cluster %s shop/deployment/web payments/deployment/db TCP/5432
`

func TestRealKubectlTellsWhy(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(shop)
	c.isSure()
	c.apply(closed)
	c.apply(openWeb)
	created := `Error from server (Forbidden): error when creating "STDIN":` + because
	c.says(created+fmt.Sprintf(opensDB, "payments/open, ingress rule 1", "-f YOUR-FILE -n payments"), openDB, "apply", "-f", "-")
	c.says(created+fmt.Sprintf(opensDB, "payments/open, ingress rule 1", "-f YOUR-FILE -n payments"), openDB, "apply", "--dry-run=server", "-f", "-")
	file := filepath.Join(t.TempDir(), "open.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(openDB, ", namespace: payments", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.explains(&source.Loader{Options: k8s.Options{Namespace: "payments"}}, source.Cluster, file)
	c.explains(&source.Loader{Without: []string{"networkpolicy/payments/deny"}}, source.Cluster)
	c.says("Error from server (Forbidden):"+because+fmt.Sprintf(opensDB, "shop/open, egress rule 1", "--without networkpolicy/payments/deny"), "", "delete", "networkpolicy", "-n", "payments", "deny")
	c.says("namespace \"payments\" deleted (server dry run)\n", "", "delete", "namespace", "payments", "--dry-run=server")

	// A label of a Namespace says who may.
	c.apply(strings.ReplaceAll(openDB, "team: shop", "partner: \"yes\""))
	labelled, err := c.try("", "label", "namespace", "shop", "partner=yes")
	if err == nil || !strings.Contains(labelled, `"namespaces.weir.dev" denied the request: breaks invariant payments-db`) {
		t.Errorf("%v: %s", err, labelled)
	}

	// Invariants themselves.
	c.says(`The request is invalid: error when creating "STDIN":`+notAsSaid+`invariant/x:8:12: cel: no field nam in Pod; did you mean name?
     p.nam == 'x')
       ^
`, invariantOf("cel: |\n    pods.all(p,\n     p.nam == 'x')"), "apply", "-f", "-")
	always := "%salways: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}], ports: [80]}"
	says := "\nshop/web cannot open TCP/80 to payments/db\nby NetworkPolicy payments/open\nweir explain -f cluster shop/deployment/web payments/deployment/db TCP/80\n"
	c.says(strings.ReplaceAll(created, because, notAsSaid)+"does not hold today: invariant x (deny)"+says+"spec.adopt: true accepts it as it is\n", invariantOf(fmt.Sprintf(always, "")), "apply", "-f", "-")
	c.says("Warning: invariant x does not hold today: shop/web cannot open TCP/80 to payments/db\ninvariant.weir.dev/x created\n", invariantOf(fmt.Sprintf(always, "adopt: true\n  ")), "apply", "-f", "-")
	c.says("Warning: invariant x is not checked any more\ninvariant.weir.dev \"x\" deleted\n", "", "delete", "invariant", "x")

	// What only warns.
	c.apply(strings.ReplaceAll(closed, "  owner:", "  severity: warn\n  owner:"))
	testkit.Eventually(c, func() error { // the change of severity is seen
		out, err := c.try(openDB, "apply", "--dry-run=server", "-f", "-")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.says("Warning: breaks invariant payments-db: shop/web can open TCP/5432 to payments/db, by NetworkPolicy payments/open, ingress rule 1\nnetworkpolicy.networking.k8s.io/open configured\n", openDB, "apply", "-f", "-")

	// The controller says so, too.
	testkit.Eventually(c, func() error {
		got, err := c.try("", "get", "invariant", "payments-db", "-o", `jsonpath={.status.state} {.status.counterexamples[0].policy} {.status.conditions[?(@.type=="Ready")].reason}`)
		if want := "broken NetworkPolicy payments/open InvariantViolated"; got != want {
			return fmt.Errorf("the status says %q, want %q: %w", got, want, err)
		}
		return nil
	})
}

// Statuses are as Flux's conventions want them, and as kstatus reads them: whoever
// waits for an Invariant need not know what it is.
func TestRealStatuses(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(shop)
	c.isSure()
	never := "adopt: true, never: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{outside: true}]}"
	always := strings.Replace(never, "never", "always", 1)
	waivers := ", waivers: [{reason: r, owner: o, until: %s}]"
	want := map[string]status.Status{}
	for name, row := range map[string]struct {
		spec string
		want status.Status
	}{
		"holds":   {never, status.CurrentStatus},
		"broken":  {always, status.FailedStatus},
		"waived":  {always + fmt.Sprintf(waivers, "2999-01-01"), status.CurrentStatus},
		"expired": {always + fmt.Sprintf(waivers, "2020-01-01"), status.FailedStatus},
		"invalid": {"adopt: true, rego: 'deny contains 7'", status.FailedStatus},
	} {
		c.apply("{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: " + name + "}, spec: {" + row.spec + "}}")
		want[name] = row.want
	}
	scheme := runtime.NewScheme()
	if err := controller.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	who, err := client.New(c.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	conventions := check.NewChecker(who, &check.Conditions{
		NegativePolarity: []string{meta.ReconcilingCondition, meta.StalledCondition, controller.ViolatedCondition},
	})
	for name, want := range want {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion("weir.dev/v1alpha1")
		o.SetKind("Invariant")
		testkit.Eventually(c, func() error {
			if err := who.Get(t.Context(), client.ObjectKey{Name: name}, o); err != nil {
				return err
			}
			if got, err := status.Compute(o); err != nil || got.Status != want {
				return fmt.Errorf("%s is %v to kstatus, want %s: %w", name, got, want, err)
			}
			return nil
		})
		if fail, warn := conventions.Check(t.Context(), &controller.Object{ObjectMeta: metav1.ObjectMeta{Name: name}}); fail != nil || warn != nil {
			t.Errorf("%s: %v; %v", name, fail, warn)
		}
	}
}

func invariantOf(spec string) string {
	return "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: x}\nspec:\n  " + spec + "\n"
}

// isSure waits until replicas do not warn any more that they are new.
func (c *cluster) isSure() {
	c.Helper()
	testkit.Eventually(c, func() error {
		out, err := c.try(strings.ReplaceAll(openWeb, "name: open", "name: probe"), "create", "--dry-run=server", "-f", "-")
		if err != nil || strings.Contains(out, "Warning") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Invariants of a pack are held without being stored, and metrics and events tell of
// them.
func TestRealPacks(t *testing.T) {
	c := newCluster(t, 1, func(o *options) { o.packs = []string{"baseline"} })
	c.apply(shop)
	opened := strings.ReplaceAll(openDB, "from: [{namespaceSelector: {matchLabels: {team: shop}}}], ", "")
	out, err := c.try(opened, "apply", "-f", "-")
	if err == nil || !strings.Contains(out, "breaks invariant baseline-no-world-open-databases (deny)") {
		t.Errorf("%v: %s", err, out)
	}
	testkit.Eventually(c, func() error {
		if want := `weir_pack_invariants{invariant="baseline-dns",pack="baseline",severity="warn",state="holds"} 1`; !strings.Contains(c.replicas[0].scrape(), want) {
			return fmt.Errorf("there is no metric %s", want)
		}
		return nil
	})
	testkit.Eventually(c, func() error {
		got, err := c.try("", "get", "events", "-n", "default", "--field-selector", "involvedObject.kind=Invariant,involvedObject.name=baseline-default-deny-ingress", "-o", "jsonpath={.items[*].message}")
		if !strings.HasPrefix(got, "invariant baseline-default-deny-ingress: shop/web: no policy isolates it at ingress") {
			return fmt.Errorf("the events are %q: %w", got, err)
		}
		return nil
	})
}

// What was stored while nobody asked the webhook is found.
func TestRealObjectsMadeMeanwhileAreFound(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(shop)
	c.isSure()
	c.apply(closed)
	hooks := c.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if err := hooks.Delete(t.Context(), tested, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(c, func() error { _, err := c.try(openWeb+"---"+openDB, "apply", "-f", "-"); return err })
	testkit.Eventually(c, func() error {
		got, err := c.try("", "get", "invariant", "payments-db", "-o", "jsonpath={.status.state}: {.status.message}")
		if want := "broken: shop/web can open TCP/5432 to payments/db"; got != want {
			return fmt.Errorf("the status says %q, want %q: %w", got, want, err)
		}
		return nil
	})
}

// Bad reviews get a status that says so, and leave the server well.
func TestRealBadReviews(t *testing.T) {
	c := newCluster(t, 1)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	review := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"%s",` +
		`"kind":{"group":"networking.k8s.io","version":"v1","kind":"NetworkPolicy"},"name":"a","namespace":"shop","%s":{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy",` +
		`"metadata":{"name":"a","namespace":"shop","uid":"1","annotations":{"a":"%s"}},"spec":{"podSelector":{}}}}}`
	big := strings.Repeat("a", 1<<20)
	for _, row := range []struct {
		name, path, body string
		want             int
	}{
		{"a review", webhook.ReviewPath, fmt.Sprintf(review, "CREATE", "object", ""), 200},
		{"a huge object that comes", webhook.ReviewPath, fmt.Sprintf(review, "CREATE", "object", big), 413},
		{"a huge object that goes", webhook.ReviewPath, fmt.Sprintf(review, "DELETE", "oldObject", big), 200},
		{"a huge review", webhook.ReviewPath, strings.Repeat(" ", 9<<20), 413},
		{"no JSON", webhook.ReviewPath, "{", 400},
		{"no review", webhook.ReviewPath, "{}", 400},
		{"no object", webhook.ReviewPath, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","namespace":"shop","kind":{"group":"networking.k8s.io","version":"v1","kind":"NetworkPolicy"}}}`, 400},
		{"what only replicas may ask", webhook.ForwardPath, fmt.Sprintf(review, "CREATE", "object", ""), 403},
	} {
		answer, err := client.Post("https://"+c.replicas[0].address+row.path, "application/json", strings.NewReader(row.body))
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		answer.Body.Close()
		if answer.StatusCode != row.want {
			t.Errorf("%s: status %d, want %d", row.name, answer.StatusCode, row.want)
		}
	}
}

// Two requests, each fine alone, that break an invariant together, at the same time
// and each to another replica.
func TestRealRace(t *testing.T) {
	c := newCluster(t, 2, func(o *options) { o.undecided.value = webhook.Deny })
	testkit.Eventually(c, func() error { _, err := c.try(shop, "apply", "-f", "-"); return err })
	testkit.Eventually(c, func() error { _, err := c.try(closed, "apply", "-f", "-"); return err })
	c.isSure()
	for round := range 20 {
		c.race(round, nil)
	}
	c.race(20, c.loseLeader)
	c.isSure()
	for round := range 5 {
		c.race(21+round, nil)
	}
}

// race lets two halves of a connection be opened at once, or one after the other
// with something in between.
func (c *cluster) race(round int, between func()) {
	c.Helper()
	var policies [2]*networkingv1.NetworkPolicy
	for i, text := range []string{openWeb, openDB} {
		if err := yaml.Unmarshal([]byte(text), &policies[i]); err != nil {
			c.Fatal(err)
		}
	}
	var made [2]error
	create := func(i int) {
		p := policies[i]
		_, made[i] = c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Create(c.Context(), p, metav1.CreateOptions{})
	}
	if between == nil {
		var both sync.WaitGroup
		both.Go(func() { create(0) })
		both.Go(func() { create(1) })
		both.Wait()
	} else {
		create(0)
		between()
		create(1)
	}
	if made[0] == nil && made[1] == nil {
		c.Errorf("round %d: both were admitted", round)
	}
	if made[0] != nil && made[1] != nil {
		c.Errorf("round %d: none was admitted: %v; %v", round, made[0], made[1])
	}
	for i, p := range policies {
		if made[i] == nil {
			testkit.Eventually(c, func() error {
				return c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Delete(c.Context(), p.Name, metav1.DeleteOptions{})
			})
		}
	}
}

// loseLeader stops the replica that leads, in the midst of things.
func (c *cluster) loseLeader() {
	for _, m := range append([]*member(nil), c.replicas...) {
		if m.leads() {
			c.lose(m)
			go m.stop()
		}
	}
}

// Many apply at once, for a while: WEIR_APPLIES says for how long, half a second
// unless it is set. Half of the changes would open the database. In the middle all
// watches are cut.
func TestRealManyAppliesAtOnce(t *testing.T) {
	long := 500 * time.Millisecond
	if text := os.Getenv("WEIR_APPLIES"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	c := newCluster(t, 2, func(o *options) {
		o.undecided.value = webhook.Deny
		// However busy the machine is, the one that leads goes on.
		o.leader.LeaseDuration, o.leader.RenewDeadline, o.leader.RetryPeriod = time.Minute, 50*time.Second, time.Second
	})
	testkit.Eventually(c, func() error { _, err := c.try(shop, "apply", "-f", "-"); return err })
	c.isSure()
	c.apply(closed)
	c.apply(openWeb)
	var wrong, admitted, refused atomic.Int64
	var mutex sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	end := time.Now().Add(long)
	for worker := range 200 {
		all.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				p := &networkingv1.NetworkPolicy{}
				opens := (worker+n)%2 == 0
				text := openDB
				if !opens {
					text = strings.ReplaceAll(openDB, "5432", "9000")
				}
				if err := yaml.Unmarshal([]byte(text), p); err != nil {
					t.Error(err)
				}
				p.Name = fmt.Sprintf("open-%d-%d", worker, n)
				begin := time.Now()
				_, err := c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
				mutex.Lock()
				took = append(took, time.Since(begin))
				mutex.Unlock()
				switch isRefused := err != nil && strings.Contains(err.Error(), "breaks invariant payments-db"); {
				case opens && isRefused:
					refused.Add(1)
				case !opens && err == nil:
					admitted.Add(1)
					_ = c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{})
				default:
					wrong.Add(1)
					t.Errorf("%s: opens the database: %v; error: %v", p.Name, opens, err)
				}
			}
		})
	}
	time.AfterFunc(long/2, c.cut)
	all.Wait()
	slices.Sort(took)
	t.Logf("%d admitted, %d refused, %d wrong; half took less than %s, 99 of 100 less than %s", admitted.Load(), refused.Load(), wrong.Load(),
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond))
}
