package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/webhook"
)

// BenchmarkRealAdmission runs weir-controller, a process of its own, beside a real API
// server that holds a world of package worlds, of as many pods as WEIR_PODS says
// (100,000), with a tenth as many policies, and 1,001 invariants. It reports how long
// the server takes to store a policy and to delete it, one after the other and from
// several clients, with the webhook and without it; and how much memory the controller
// has resident, once it is ready and at its peak.
//
// The server's store is filled without the server's help: so many pods would take it
// minutes.
func BenchmarkRealAdmission(b *testing.B) {
	pods := 100_000
	if text := os.Getenv("WEIR_PODS"); text != "" {
		var err error
		if pods, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	shape := worlds.Sized(pods, true)
	m := shape.Model(1)
	p := plane.Start(b, &envtest.Environment{CRDDirectoryPaths: []string{"../../policies/v1alpha1/crd"}, ErrorIfCRDPathMissing: true})
	s := &store{B: b, url: p.ControlPlane.Etcd.URL.String() + "/v3/kv/txn"}
	s.fill(m)
	config := rest.CopyConfig(p.Config)
	config.QPS = -1
	clients := kubernetes.NewForConfigOrDie(config)
	c := runController(b, p)
	resident := c.megabytes("VmRSS")
	report := func(name string, took []time.Duration) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50-"+name)
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99-"+name)
	}
	without := changes(b, clients, m, 1, 400)
	c.register(b, clients)
	time.Sleep(2 * c.pending) // until it is sure, and nobody is warned
	settled(b, clients, 1001)
	for b.Loop() {
		report("one", changes(b, clients, m, 1, 600))
		report("four", changes(b, clients, m, 4, 1200))
	}
	report("without", without)
	b.ReportMetric(c.ready.Seconds(), "s-ready")
	b.ReportMetric(resident, "MB-ready")
	b.ReportMetric(c.megabytes("VmRSS"), "MB")
	b.ReportMetric(c.megabytes("VmHWM"), "MB-peak")
	b.ReportMetric(0, "ns/op")
}

// settled returns once as many invariants have a status as there are.
func settled(b *testing.B, clients *kubernetes.Clientset, invariants int) {
	begin := time.Now()
	for {
		all, err := clients.RESTClient().Get().AbsPath("/apis/weir.dev/v1alpha1/invariants").DoRaw(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		written := bytes.Count(all, []byte(`"lastEvaluated":`))
		if written == invariants {
			return
		}
		if time.Since(begin) > 10*time.Minute {
			b.Fatalf("%d of %d invariants have a status", written, invariants)
		}
		time.Sleep(time.Second)
	}
}

// changes creates and deletes policies like those of a model, and returns how long each
// took. Refused ones count, too.
func changes(b *testing.B, clients *kubernetes.Clientset, m *policies.Model, workers, count int) []time.Duration {
	var took []time.Duration
	var mutex sync.Mutex
	var all sync.WaitGroup
	refused := 0
	for worker := range workers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 5))
			for n := range count / workers / 2 {
				p := networkPolicy(&m.Policies[random.IntN(len(m.Policies))])
				p.Name, p.UID, p.CreationTimestamp = fmt.Sprintf("new-%d-%d", worker, n), "", metav1.Time{}
				in := clients.NetworkingV1().NetworkPolicies(p.Namespace)
				begin := time.Now()
				_, err := in.Create(b.Context(), p, metav1.CreateOptions{})
				created := time.Since(begin)
				begin = time.Now()
				isRefused := err != nil && strings.Contains(err.Error(), "breaks invariant")
				if err == nil {
					err = in.Delete(b.Context(), p.Name, metav1.DeleteOptions{})
					isRefused = err != nil && strings.Contains(err.Error(), "breaks invariant")
				}
				if err != nil && !isRefused {
					b.Error(err)
				}
				mutex.Lock()
				took = append(took, created, time.Since(begin))
				if isRefused {
					refused++
				}
				mutex.Unlock()
			}
		})
	}
	all.Wait()
	b.Logf("%d of %d were refused", refused, count)
	return took
}

// controllerProcess is a running weir-controller.
type controllerProcess struct {
	*exec.Cmd
	address string
	ready   time.Duration
	pending time.Duration
}

func runController(b *testing.B, p *plane.Plane) *controllerProcess {
	program := filepath.Join(b.TempDir(), "weir-controller")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	if _, err := kubernetes.NewForConfigOrDie(p.Config).CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "weir-system"}}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	c := &controllerProcess{address: free(), pending: time.Second}
	health := free()
	c.Cmd = exec.Command(program, "--webhook-addr", c.address, "--advertise-addr", c.address, "--health-addr", health, "--metrics-addr", cmp.Or(os.Getenv("WEIR_METRICS"), "0"),
		"--runtime-namespace", "weir-system", "--pending", c.pending.String())
	c.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig)
	var errs bytes.Buffer
	c.Stderr = &errs
	begin := time.Now()
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if b.Failed() {
			b.Log(errs.String())
		}
	})
	for err := ready("http://" + health + "/readyz?verbose"); err != nil; err = ready("http://" + health + "/readyz?verbose") {
		if time.Since(begin) > 10*time.Minute {
			b.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	c.ready = time.Since(begin)
	return c
}

// megabytes returns a line of what the system says of the process.
func (c *controllerProcess) megabytes(line string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	_, text, _ = bytes.Cut(text, []byte(line+":"))
	n, _ := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	return n * 1024 / 1e6
}

// register lets the API server ask the controller.
func (c *controllerProcess) register(b *testing.B, clients *kubernetes.Clientset) {
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 100},
		Rewrite:   func(q *httputil.ProxyRequest) { q.SetURL(&url.URL{Scheme: "https", Host: c.address}) },
	})
	b.Cleanup(proxy.Close)
	hook := configuration(b)
	at := proxy.URL + webhook.ReviewPath
	for i := range hook.Webhooks {
		hook.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{
			URL: &at, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}),
		}
	}
	if _, err := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(b.Context(), hook, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// store puts objects into the store of an API server.
type store struct {
	*testing.B
	url  string
	puts []map[string]any
}

// mostPuts is how many the store takes at once.
const mostPuts = 100

func (s *store) put(key string, object any) {
	text, err := json.Marshal(object)
	if err != nil {
		s.Fatal(err)
	}
	s.puts = append(s.puts, map[string]any{"requestPut": map[string]any{"key": []byte("/registry/" + key), "value": text}})
	if len(s.puts) == mostPuts {
		s.flush()
	}
}

func (s *store) flush() {
	text, err := json.Marshal(map[string]any{"success": s.puts})
	if err != nil {
		s.Fatal(err)
	}
	a, err := http.Post(s.url, "application/json", bytes.NewReader(text))
	if err != nil {
		s.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		var said bytes.Buffer
		_, _ = said.ReadFrom(a.Body)
		s.Fatalf("%s: %s", a.Status, said.String())
	}
	s.puts = s.puts[:0]
}

// fill stores a model, and 1,001 invariants about it.
func (s *store) fill(m *policies.Model) {
	for i := range m.Namespaces {
		n := &m.Namespaces[i]
		if n.Name == "kube-system" {
			continue // it is there
		}
		s.put("namespaces/"+n.Name, &corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metadata("", n.Name, n.Labels),
			Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
		})
	}
	for i := range m.Pods {
		s.put("pods/"+m.Pods[i].Ref.Namespace+"/"+m.Pods[i].Ref.Name, pod(&m.Pods[i]))
	}
	for i := range m.Policies {
		s.put("networkpolicies/"+m.Policies[i].Ref.Namespace+"/"+m.Policies[i].Ref.Name, networkPolicy(&m.Policies[i]))
	}
	for i, text := range sentences(m) {
		var spec map[string]any
		if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
			s.Fatal(err)
		}
		name := fmt.Sprintf("invariant-%04d", i)
		s.put("weir.dev/invariants/"+name, map[string]any{
			"apiVersion": "weir.dev/v1alpha1", "kind": "Invariant", "metadata": metadata("", name, nil), "spec": spec,
		})
	}
	s.flush()
}

func metadata(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, UID: uuid.NewUUID(), CreationTimestamp: metav1.Unix(1_700_000_000, 0), Generation: 1}
}

// pod returns a pod with about as much in it as is usual.
func pod(p *policies.Pod) *corev1.Pod {
	o := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metadata(p.Ref.Namespace, p.Ref.Name, p.Labels)}
	o.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.Workload.Name + "-" + p.Labels["pod-template-hash"], UID: types.UID("6b1f1d2e-0000-4000-8000-" + fmt.Sprintf("%012x", len(p.Workload.Name))), Controller: new(bool),
	}}
	*o.OwnerReferences[0].Controller = true
	o.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:layer":{},"f:pod-template-hash":{},"f:version":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"x\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"LOG_LEVEL\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}}}},"f:dnsPolicy":{},"f:restartPolicy":{}}}`),
	}}
	main := corev1.Container{
		Name: "main", Image: "registry.example/team/service:1.2.3", ImagePullPolicy: corev1.PullIfNotPresent,
		Env: []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "POD_NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}, Limits: corev1.ResourceList{"memory": resource.MustParse("256Mi")},
		},
		VolumeMounts:           []corev1.VolumeMount{{Name: "token", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
		TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	for _, port := range p.Ports {
		main.Ports = append(main.Ports, corev1.ContainerPort{Name: port.Name, ContainerPort: int32(port.Number), Protocol: corev1.Protocol(port.Protocol.String())})
	}
	node := fmt.Sprintf("node-%d", len(p.Ref.Name)%50)
	o.Spec = corev1.PodSpec{
		Containers: []corev1.Container{main}, NodeName: node, ServiceAccountName: p.ServiceAccount, RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
		Volumes: []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}, SchedulerName: "default-scheduler",
	}
	o.Status = corev1.PodStatus{Phase: corev1.PodRunning, HostIP: "192.168.0.1"}
	for _, a := range p.Addresses {
		o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: a.String()})
		o.Status.PodIP = o.Status.PodIPs[0].IP
	}
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady} {
		o.Status.Conditions = append(o.Status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: o.CreationTimestamp})
	}
	return o
}

// networkPolicy returns a policy of package worlds as it is stored.
func networkPolicy(p *policies.Policy) *networkingv1.NetworkPolicy {
	o := &networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}, ObjectMeta: metadata(p.Ref.Namespace, p.Ref.Name, nil)}
	o.Spec.PodSelector = *labelSelector(p.Subject.Pods.Requirements())
	for _, d := range policies.Directions {
		if p.Governs[d] {
			o.Spec.PolicyTypes = append(o.Spec.PolicyTypes, [...]networkingv1.PolicyType{"Egress", "Ingress"}[d])
		}
		for _, r := range p.Rules[d] {
			var peers []networkingv1.NetworkPolicyPeer
			for _, m := range r.Peers {
				if m.Block.CIDR.IsValid() {
					block := &networkingv1.IPBlock{CIDR: m.Block.CIDR.String()}
					for _, e := range m.Block.Except {
						block.Except = append(block.Except, e.String())
					}
					peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: block})
					continue
				}
				peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: labelSelector(m.Namespaces.Requirements()), PodSelector: labelSelector(m.Pods.Requirements())})
			}
			var ports []networkingv1.NetworkPolicyPort
			for q := range r.Ports.Ranges() {
				protocol, first, last := corev1.Protocol(q.Protocol.String()), intstr.FromInt(int(q.First)), int32(q.Last)
				one := networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &first}
				if q.Last > q.First {
					one.EndPort = &last
				}
				ports = append(ports, one)
			}
			for _, n := range r.Named {
				protocol, name := corev1.Protocol(n.Protocol.String()), intstr.FromString(n.Name)
				ports = append(ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &name})
			}
			if d == policies.Egress {
				o.Spec.Egress = append(o.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports})
			} else {
				o.Spec.Ingress = append(o.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports})
			}
		}
	}
	return o
}

func labelSelector(all []selector.Requirement) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	for _, r := range all {
		operator := metav1.LabelSelectorOpIn
		if r.Operator == selector.NotIn {
			operator = metav1.LabelSelectorOpNotIn
		}
		s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: r.Key, Operator: operator, Values: r.Values})
	}
	return s
}

// sentences are 1,001 invariants of the kinds that package invariant measures with.
func sentences(m *policies.Model) []string {
	random := rand.New(rand.NewPCG(7, 7))
	team := func() string {
		return fmt.Sprintf("namespaceSelector: {matchLabels: {team: team-%d}}", random.IntN(50))
	}
	in := func(pods string) (namespace, peer string) {
		namespace = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: " + m.Namespaces[1+random.IntN(len(m.Namespaces)-1)].Name + "}}"
		return namespace, namespace + pods
	}
	layer := func(name string) string { return ", podSelector: {matchLabels: {layer: " + name + "}}" }
	all := []string{"never: {from: [{outside: true}], to: [{namespaceSelector: {}}], ports: [22]}"}
	for i := range 1000 {
		switch i % 5 {
		case 0:
			_, to := in(layer("db"))
			all = append(all, fmt.Sprintf("never: {from: [{%s}], to: [{%s}], ports: [5432]}", team(), to))
		case 1:
			namespace, to := in(layer("db"))
			all = append(all, fmt.Sprintf("never: {from: [{namespaceSelector: {}, not: {%s}}], to: [{%s}], ports: [5432]}", namespace, to))
		case 2:
			_, to := in("")
			all = append(all, fmt.Sprintf("never: {from: [{outside: true}], to: [{%s}]}", to))
		case 3:
			namespace, from := in(layer("web"))
			all = append(all, fmt.Sprintf("always: {from: [{%s}], to: [{%s}], ports: [8080]}", from, namespace+layer("api")))
		case 4:
			all = append(all, fmt.Sprintf("never: {from: [{%s}], to: [{%s}], ports: [5432]}", team(), team()))
		}
	}
	return all
}
