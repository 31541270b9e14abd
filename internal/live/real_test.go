package live_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// same compares models but for where their objects stand.
var same = gocmp.Options{
	cmpopts.IgnoreTypes(policies.Place{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(policies.Model{}, "Warnings"),
	cmpopts.IgnoreFields(policies.Policy{}, "Priority"),
	gocmp.Comparer(func(a, b netset.Ports) bool { return a.Equal(b) }),
	gocmp.Comparer(func(a, b selector.Selector) bool { return a.Key() == b.Key() }),
}

// witness watches a real API server, changes what it holds, and knows what the
// world must have heard.
type witness struct {
	*testing.T
	*plane.Plane
	client client.Client
	world  *live.World
	told   chan struct{} // holds one when there is a new model
	latest map[k8s.Key]string
	lines  *lines
}

// lines are the connections to the server, so that they can be cut.
type lines struct {
	mutex sync.Mutex
	all   []net.Conn
}

func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.all = append(l.all, conn)
	}
	return conn, err
}

func (l *lines) cut() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, conn := range l.all {
		conn.Close()
	}
	l.all = nil
}

func newWitness(t *testing.T, set ...func(*live.Options)) *witness {
	t.Helper()
	p := plane.Start(t, &envtest.Environment{CRDDirectoryPaths: []string{"../cluster/testdata/definitions.yaml"}, ErrorIfCRDPathMissing: true})
	config := rest.CopyConfig(p.Config)
	config.QPS = -1
	w := &witness{T: t, Plane: p, told: make(chan struct{}, 1), latest: map[k8s.Key]string{}, lines: &lines{}}
	var err error
	if w.client, err = client.New(config, client.Options{}); err != nil {
		t.Fatal(err)
	}
	watching := rest.CopyConfig(p.Config)
	watching.Dial = w.lines.dial
	o := live.Options{Poll: 1e8, Settle: 1e6}
	for _, f := range set {
		f(&o)
	}
	if w.world, err = live.New(watching, o); err != nil {
		t.Fatal(err)
	}
	w.world.Subscribe(func(*policies.Model, k8s.Change) {
		select {
		case w.told <- struct{}{}:
		default:
		}
	})
	return w
}

// start lets the world watch until the test ends.
func (w *witness) start() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.world.Start(ctx) }()
	w.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	})
	<-w.world.Ready()
}

// do makes sure that a request succeeded, and takes note of what it made.
func (w *witness) do(o client.Object, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	gvk, err := w.client.GroupVersionKindFor(o)
	if err != nil {
		w.Fatal(err)
	}
	w.latest[k8s.KeyOf(gvk.GroupVersion().String(), gvk.Kind, o.GetNamespace(), o.GetName())] = o.GetResourceVersion()
}

func (w *witness) create(o client.Object) {
	w.Helper()
	w.do(o, w.client.Create(w.Context(), o))
}

func (w *witness) delete(o client.Object) {
	w.Helper()
	o.SetResourceVersion("")
	err := w.client.Delete(w.Context(), o, client.GracePeriodSeconds(0))
	if apierrors.IsNotFound(err) {
		return
	}
	w.do(o, err)
}

// caughtUp waits until the world has heard of all that was done.
func (w *witness) caughtUp() *policies.Model {
	w.Helper()
	for key, version := range w.latest {
		err := w.world.Wait(w.Context(), key, func(v live.Version, held bool) bool {
			return held == (version != "") && (!held || v.ResourceVersion == version)
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	clear(w.latest)
	return w.world.Flush()
}

// until waits for a model of which something holds.
func (w *witness) until(what func(m *policies.Model) bool) {
	w.Helper()
	for !what(w.world.Model()) {
		select {
		case <-w.told:
		case <-w.Context().Done():
			w.Fatal(w.Context().Err())
		}
	}
}

// checkSnapshot compares the live model with that of the cluster read as a whole.
func (w *witness) checkSnapshot(got *policies.Model) {
	w.Helper()
	want, err := (&source.Loader{Cluster: cluster.Options{Kubeconfig: w.Kubeconfig}}).Load(context.Background(), source.Cluster)
	if err != nil {
		w.Fatal(err)
	}
	if diff := gocmp.Diff(inOrder(want), inOrder(got), same); diff != "" {
		w.Errorf("the world is not as a snapshot has it: %s", diff)
	}
}

// inOrder returns the model with the policies of each tier in their order, whatever
// numbers these priorities have.
func inOrder(m *policies.Model) *policies.Model {
	ordered := *m
	ordered.Policies = slices.Clone(m.Policies)
	slices.SortFunc(ordered.Policies, func(a, b policies.Policy) int {
		return cmp.Or(strings.Compare(a.Tier, b.Tier), a.Compare(b))
	})
	return &ordered
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": name}}}
}

func pod(namespace, name string) *corev1.Pod {
	isController := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{"app": "web", "pod-template-hash": "h1"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-h1", UID: "1", Controller: &isController}},
		},
		Spec: corev1.PodSpec{ServiceAccountName: "guest", NodeName: "n1", Containers: []corev1.Container{{Name: "web", Image: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
	}
}

func policy(namespace, name string, port int32) *networkingv1.NetworkPolicy {
	number := intstr.FromInt32(port)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{"Ingress"},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &number}},
			}},
		},
	}
}

func custom(version, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// setStatus gives a pod an address and a phase.
func (w *witness) setStatus(p *corev1.Pod, i int, phase corev1.PodPhase) {
	w.Helper()
	p.Status.Phase = phase
	p.Status.PodIP = fmt.Sprintf("10.244.%d.%d", i/250, 1+i%250)
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	w.do(p, w.client.Status().Update(w.Context(), p))
}

func TestRealWorldIsAsSnapshotsHaveIt(t *testing.T) {
	w := newWitness(t)
	for _, name := range []string{"a", "b", "c"} {
		w.create(namespace(name))
		w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "guest"}})
		w.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "web"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	const crowd = 1500
	var pods []*corev1.Pod
	for i := range crowd {
		p := pod("a", fmt.Sprintf("web-h1-%04d", i))
		w.create(p)
		if i%3 == 0 {
			w.setStatus(p, i, corev1.PodRunning)
		}
		pods = append(pods, p)
	}
	w.start()
	w.checkSnapshot(w.caughtUp())

	random := rand.New(rand.NewPCG(1, 2))
	held := map[string]client.Object{}
	for round := range 6 {
		for range 60 {
			ns, name := string("abc"[random.IntN(3)]), string("xyz"[random.IntN(3)])
			i := random.IntN(crowd)
			switch random.IntN(9) {
			case 0, 1: // a policy comes, or goes
				if o := held["policy/"+ns+name]; o != nil {
					w.delete(o)
					w.latest[k8s.Key{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: ns, Name: name}] = ""
					delete(held, "policy/"+ns+name)
					continue
				}
				p := policy(ns, name, int32(80+i))
				w.create(p)
				held["policy/"+ns+name] = p
			case 2:
				if o := held["policy/"+ns+name]; o != nil {
					o.(*networkingv1.NetworkPolicy).Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
					w.do(o, w.client.Update(w.Context(), o))
				}
			case 3: // a pod is done, or goes at once
				if pods[i] == nil {
					continue
				}
				if random.IntN(2) == 0 && pods[i].Status.Phase == corev1.PodRunning {
					w.setStatus(pods[i], i, corev1.PodSucceeded)
					continue
				}
				w.delete(pods[i])
				w.latest[k8s.Key{Kind: "Pod", Namespace: "a", Name: pods[i].Name}] = ""
				pods[i] = nil
			case 4:
				if pods[i] != nil && pods[i].Status.Phase != corev1.PodSucceeded {
					w.setStatus(pods[i], i, corev1.PodRunning)
				}
			case 5: // a pod that is being deleted counts until it is gone
				p := pod(ns, fmt.Sprintf("leaving-%d-%d", round, i))
				p.Finalizers = []string{"weir.dev/test"}
				if w.client.Get(w.Context(), client.ObjectKeyFromObject(p), &corev1.Pod{}) == nil {
					continue
				}
				w.create(p)
				w.setStatus(p, i, corev1.PodRunning)
				if err := w.client.Delete(w.Context(), p); err != nil {
					t.Fatal(err)
				}
				w.do(p, w.client.Get(w.Context(), client.ObjectKeyFromObject(p), p))
			case 6:
				o := &corev1.Namespace{}
				if err := w.client.Get(w.Context(), client.ObjectKey{Name: ns}, o); err != nil {
					t.Fatal(err)
				}
				o.Labels["stage"] = name
				w.do(o, w.client.Update(w.Context(), o))
			case 7:
				o := custom("projectcalico.org/v3", "GlobalNetworkSet", "", name, map[string]any{"nets": []any{fmt.Sprintf("10.%d.0.0/16", i%250)}})
				if old := held["set/"+name]; old != nil {
					w.delete(old)
					w.latest[k8s.Key{Group: "projectcalico.org", Kind: "GlobalNetworkSet", Name: name}] = ""
					delete(held, "set/"+name)
					continue
				}
				w.create(o)
				held["set/"+name] = o
			case 8:
				if held["l7/"+ns+name] == nil {
					o := custom("cilium.io/v2", "CiliumNetworkPolicy", ns, name, map[string]any{"endpointSelector": map[string]any{}})
					w.create(o)
					held["l7/"+ns+name] = o
				}
			}
		}
		if round%2 == 1 {
			w.lines.cut()
		}
		w.checkSnapshot(w.caughtUp())
	}
	if m := w.world.Model(); len(m.Pods) < crowd/4 || len(m.Policies) < 3 {
		t.Errorf("only %d pods and %d policies", len(m.Pods), len(m.Policies))
	}
	for _, k := range w.world.Kinds() {
		if !k.Listed || k.Err != nil && !strings.Contains(k.Err.Error(), "refused") || k.ResourceVersion == "" || k.Heard.IsZero() {
			t.Errorf("%s: %+v", k, k)
		}
	}
}

func TestRealWorldLearnsOfKinds(t *testing.T) {
	w := newWitness(t)
	w.start()
	watched := func(name string) bool {
		return slices.ContainsFunc(w.world.Kinds(), func(k live.Kind) bool { return k.String() == name })
	}
	if watched("tiers.projectcalico.org") || watched("secrets") || !watched("pods") {
		t.Fatalf("it watches %v", w.world.Kinds())
	}
	definition := custom("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "tiers.projectcalico.org", map[string]any{
		"group": "projectcalico.org", "scope": "Cluster",
		"names": map[string]any{"kind": "Tier", "plural": "tiers", "singular": "tier"},
		"versions": []any{map[string]any{"name": "v3", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{
			"type": "object", "properties": map[string]any{"spec": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		}}}},
	})
	if err := w.client.Create(w.Context(), definition); err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "wait", "--for=condition=Established", "crd/tiers.projectcalico.org")
	apply := custom("projectcalico.org/v3", "Tier", "", "security", map[string]any{"order": int64(10)})
	// The client learns of the kind in its own time.
	testkit.Eventually(t, func() error { return w.client.Create(w.Context(), apply) })
	hasTier := func(m *policies.Model) bool {
		return slices.ContainsFunc(m.Tiers, func(t policies.Tier) bool { return t.Name == "security" })
	}
	w.until(hasTier)
	if err := w.client.Delete(w.Context(), definition); err != nil {
		t.Fatal(err)
	}
	w.until(func(m *policies.Model) bool { return !hasTier(m) })

	t.Run("an object that cannot be read is not ignored", func(t *testing.T) {
		w.create(custom("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", "odd", map[string]any{"tier": "Nobody"}))
		m := w.caughtUp()
		if len(m.Policies) != 1 || !strings.HasPrefix(m.Policies[0].Opaque, "it cannot be read: ") || len(m.Warnings) == 0 {
			t.Errorf("%+v, %v", m.Policies, m.Warnings)
		}
	})

	t.Run("a trial leaves the world as it was", func(t *testing.T) {
		candidate, err := w.world.Entry(map[string]any{
			"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": map[string]any{"name": "new", "namespace": "default"},
			"spec": map[string]any{"podSelector": map[string]any{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		before := w.world.Flush()
		err = w.world.Look(func(m live.Moment) {
			if _, is := m.Held(candidate.Key()); is {
				t.Error("the candidate is held")
			}
			m.Try([]*k8s.Entry{candidate}, nil, func(c k8s.Change, model func() *policies.Model) {
				if len(c.Policies) != 1 || c.Whole || m.Base() != before || len(model().Policies) != len(before.Policies)+1 {
					t.Errorf("%+v", c)
				}
			})
		})
		if err != nil || w.world.Flush() != before {
			t.Errorf("the model is another one (%v)", err)
		}
	})
}

// A group whose own server is away keeps nobody waiting for ever, is told of, and is
// watched once it is there.
func TestRealWorldGoesOnWithoutAGroup(t *testing.T) {
	var told []string
	w := newWitness(t, func(o *live.Options) {
		o.Patience = 1e9
		o.Told = func(what string) { told = append(told, what) }
	})
	group := custom("apiregistration.k8s.io/v1", "APIService", "", "v1.policy.example.com", nil)
	group.Object["spec"] = map[string]any{
		"group": "policy.example.com", "version": "v1", "groupPriorityMinimum": int64(1500), "versionPriority": int64(20), "insecureSkipTLSVerify": true,
		"service": map[string]any{"name": "policies", "namespace": "default", "port": int64(443)},
	}
	if err := w.client.Create(w.Context(), group); err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "wait", "--for=condition=Available=false", "apiservice/v1.policy.example.com")
	w.start()
	if diff := gocmp.Diff([]string{"policy.example.com/v1"}, w.world.Missing()); diff != "" {
		t.Error(diff)
	}
	if err := w.client.Delete(w.Context(), group); err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "wait", "--for=delete", "apiservice/v1.policy.example.com")
	testkit.Eventually(t, func() error {
		if missing := w.world.Missing(); len(missing) > 0 {
			return fmt.Errorf("still missing: %v", missing)
		}
		return nil
	})
	if want := "group policy.example.com/v1 cannot be served at the moment; what is in it is not known"; len(told) < 2 || told[0] != want {
		t.Errorf("it is told %q", told)
	}
}
