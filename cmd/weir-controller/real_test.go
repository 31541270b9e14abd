package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/webhook"
)

// cluster is a real API server that asks replicas of the webhook, in turn.
type cluster struct {
	*testing.T
	*plane.Plane
	clients *kubernetes.Clientset
	config  *rest.Config

	mutex    sync.Mutex
	replicas []*member
	next     atomic.Int64
}

// member is a running replica.
type member struct {
	*replica
	address string
	stop    func()
}

func newCluster(t *testing.T, replicas int, set ...func(*options)) *cluster {
	t.Helper()
	p := plane.Start(t, &envtest.Environment{CRDDirectoryPaths: []string{"../../policies/v1alpha1/crd"}, ErrorIfCRDPathMissing: true})
	c := &cluster{T: t, Plane: p, config: rest.CopyConfig(p.Config)}
	c.config.QPS = -1
	c.clients = kubernetes.NewForConfigOrDie(c.config)
	_, err := c.clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "weir-system"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range replicas {
		c.start(set...)
	}
	c.register()
	return c
}

// start runs one more replica, and returns when it is ready.
func (c *cluster) start(set ...func(*options)) *member {
	c.Helper()
	o := defaults()
	o.address(c.T)
	for _, f := range set {
		f(o)
	}
	r, err := newReplica(c.config, o, prometheus.NewRegistry())
	if err != nil {
		c.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx) }()
	m := &member{replica: r, address: o.webhookAddr}
	m.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			c.Log(err)
		}
	})
	c.Cleanup(m.stop)
	c.until(func() error { return ready("http://" + o.healthAddr + "/readyz?verbose") })
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.replicas = append(c.replicas, m)
	return m
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

// until waits for something to be so.
func (c *cluster) until(what func() error) {
	c.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for err := what(); err != nil; err = what() {
		if time.Now().After(deadline) {
			c.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
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
	text, err := os.ReadFile("testdata/webhook.yaml")
	if err != nil {
		c.Fatal(err)
	}
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict(text, hook); err != nil {
		c.Fatal(err)
	}
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
	c.until(func() error {
		if out, err := c.try(probe, "create", "--dry-run=server", "-f", "-"); err == nil {
			return fmt.Errorf("not asked yet: %s", out)
		}
		return nil
	})
}

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

const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments, labels: {team: payments}}
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

func TestRealKubectlTellsWhy(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(shop)
	time.Sleep(1200 * time.Millisecond)
	c.apply(closed)
	c.apply(openWeb)
	c.says(`x`, openDB, "apply", "-f", "-")
	c.says(`x`, openDB, "apply", "--dry-run=server", "-f", "-")
	c.says(`x`, "", "delete", "networkpolicy", "-n", "payments", "deny")
	c.says(`x`, "", "delete", "namespace", "payments", "--dry-run=server")
	c.says(`x`, "", "label", "namespace", "payments", "team-")
	c.says(`x`, "", "label", "namespace", "shop", "team-")
	c.says(`x`, strings.ReplaceAll(closed, "  never:", "  severity: denny\n  never:"), "apply", "--validate=false", "-f", "-")
	c.says(`x`, strings.ReplaceAll(closed, "ports: [5432]", "ports: [54320000]"), "apply", "-f", "-")
	c.says(`x`, "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: x}\nspec:\n  cel: |\n    pods.all(p,\n     p.nam == 'x')\n", "apply", "-f", "-")
	c.says(`x`, "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: x}\nspec: {always: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}\n", "apply", "-f", "-")
	c.says(`x`, "", "delete", "invariant", "payments-db")
	c.says(`x`, "", "get", "invariants", "-o", "yaml")
}

// Two requests, each fine alone, that break an invariant together, at the same time
// and each to another replica.
func TestRealRace(t *testing.T) {
	c := newCluster(t, 2)
	c.apply(shop)
	time.Sleep(1200 * time.Millisecond)
	c.apply(closed)
	for round := range 20 {
		if round == 10 {
			c.loseLeader()
		}
		c.race(round)
	}
}

// race lets two halves of a connection be opened at once.
func (c *cluster) race(round int) {
	c.Helper()
	var policies [2]*networkingv1.NetworkPolicy
	for i, text := range []string{openWeb, openDB} {
		if err := yaml.Unmarshal([]byte(text), &policies[i]); err != nil {
			c.Fatal(err)
		}
	}
	var made [2]error
	var both sync.WaitGroup
	for i, p := range policies {
		both.Go(func() {
			_, made[i] = c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Create(c.Context(), p, metav1.CreateOptions{})
		})
	}
	both.Wait()
	if made[0] == nil && made[1] == nil {
		c.Errorf("round %d: both were admitted", round)
	}
	if made[0] != nil && made[1] != nil {
		c.Logf("round %d: none was admitted: %v; %v", round, made[0], made[1])
	}
	for i, p := range policies {
		if made[i] == nil {
			if err := c.clients.NetworkingV1().NetworkPolicies(p.Namespace).Delete(c.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
				c.Error(err)
			}
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
