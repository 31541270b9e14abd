package live

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

var podKind = k8s.Served{Version: "v1", Name: "pods", Kind: "Pod", Namespaced: true}

// farWorld is a still world as an agent on the node n1 has it.
func farWorld(t *testing.T, host string) (*World, *[]k8s.Change) {
	t.Helper()
	w, err := New(&rest.Config{Host: host}, Options{Read: k8s.Options{Node: "n1"}, Unversioned: true, Settle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.watched[idOf(podKind)] = newKind(podKind)
	w.began = time.Now()
	var told []k8s.Change
	w.Subscribe(func(_ *policies.Model, c k8s.Change) { told = append(told, c) })
	return w, &told
}

func farPod(name, address, phase string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"shop","uid":"u","resourceVersion":"1","labels":{"app":"a"},"ownerReferences":[{"kind":"ReplicaSet","name":"a","controller":true}]},
"spec":{"nodeName":"n2","containers":[{"name":"main"}]},"status":{"phase":%q,"podIPs":[{"ip":%q}]}}`, name, phase, address)
}

// members are the pods of the crowd, by their addresses.
func members(m *policies.Model) (all []string) {
	if m == nil || m.Crowd == nil {
		return nil
	}
	for a, one := range m.Crowd.Members.All() {
		all = append(all, a.String()+" "+one.Name)
	}
	return all
}

// pages answers with a list, two pods to a page; a page that is nil fails.
type pages [][]string

func (p pages) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	at := 0
	_, _ = fmt.Sscanf(q.URL.Query().Get("continue"), "page-%d", &at)
	if p[at] == nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	next := ""
	if at+1 < len(p) {
		next = fmt.Sprintf("page-%d", at+1)
	}
	fmt.Fprintf(w, `{"kind":"PodList","items":[%s],"metadata":{"resourceVersion":"10","continue":%q}}`, strings.Join(p[at], ","), next)
}

// list asks for all pages of a list, as a reflector does; it is whole unless one fails.
func list(t *testing.T, w *World, p pages) {
	t.Helper()
	server := httptest.NewServer(p)
	defer server.Close()
	from, err := New(&rest.Config{Host: server.URL}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.client = from.client
	k := w.watched[idOf(podKind)]
	into := w.beginList(k)
	o := metav1.ListOptions{}
	for {
		page, err := w.list(context.Background(), k, into, o)
		if err != nil {
			return
		}
		if len(page.Items) != 0 || page.ResourceVersion != "10" {
			t.Errorf("a page holds %d items, of %q", len(page.Items), page.ResourceVersion)
		}
		if o.Continue = page.Continue; o.Continue == "" {
			break
		}
	}
	if err := (&sink{w, k}).Replace(nil, "10"); err != nil {
		t.Fatal(err)
	}
}

// Pages are put as they come while nobody has seen a model, and together afterwards.
func TestPages(t *testing.T) {
	w, told := farWorld(t, "localhost")
	a, b, c := farPod("a", "10.0.0.1", "Running"), farPod("b", "10.0.0.2", "Running"), farPod("c", "10.0.0.3", "Running")
	for i, step := range []struct {
		pages   pages
		members []string
		told    int
	}{
		{pages{{a, b}, nil}, nil, 0}, // the last page is lost
		{pages{{b}, {c}}, []string{"10.0.0.2 b", "10.0.0.3 c"}, 1},
		{pages{{b}, {c}}, []string{"10.0.0.2 b", "10.0.0.3 c"}, 1},
		{pages{{a, farPod("b", "10.0.0.4", "Running")}, nil}, []string{"10.0.0.2 b", "10.0.0.3 c"}, 1}, // nothing counts
		{pages{{a}, {farPod("b", "10.0.0.4", "Running"), farPod("c", "10.0.0.3", "Succeeded")}}, []string{"10.0.0.1 a", "10.0.0.4 b"}, 2},
		{pages{{}}, nil, 3},
	} {
		list(t, w, step.pages)
		if diff := cmp.Diff(step.members, members(w.Flush())); diff != "" || len(*told) != step.told {
			t.Errorf("step %d, told %d times: %s", i, len(*told), diff)
		}
	}
	if k := w.watched[idOf(podKind)]; len(k.held) != 0 {
		t.Errorf("versions of %d objects are held", len(k.held))
	}
}

// A list that is streamed is followed to its end, with what happens meanwhile.
func TestStreamedLists(t *testing.T) {
	first := []string{
		`{"type":"ADDED","object":` + farPod("a", "10.0.0.1", "Running") + `}`,
		`{"type":"ADDED","object":` + farPod("b", "10.0.0.2", "Running") + `}`,
		`{"type":"DELETED","object":` + farPod("a", "10.0.0.1", "Running") + `}`,
		`{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}`,
		`{"type":"ADDED","object":` + farPod("c", "10.0.0.3", "Running") + `}`,
		`{"type":"MODIFIED","object":` + farPod("b", "10.0.0.2", "Failed") + `}`,
	}
	anew := []string{
		`{"type":"ADDED","object":` + farPod("c", "10.0.0.3", "Running") + `}`,
		`{"type":"ADDED","object":` + farPod("d", "10.0.0.4", "Running") + `}`,
		`{"type":"ADDED","object":` + farPod("e", "10.0.0.5", "Running") + `}`,
		`{"type":"DELETED","object":` + farPod("c", "10.0.0.3", "Running") + `}`,
		`{"type":"DELETED","object":` + farPod("d", "10.0.0.4", "Running") + `}`,
		`{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`,
	}
	expires, streams := make(chan struct{}), atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Query().Get("sendInitialEvents") != "true":
			w.WriteHeader(http.StatusGone) // so that all is listed anew
		case streams.Add(1) == 1:
			fmt.Fprintln(w, strings.Join(first, "\n"))
			w.(http.Flusher).Flush()
			select {
			case <-expires:
			case <-q.Context().Done():
			}
			fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"too old"}}`)
		default:
			fmt.Fprintln(w, strings.Join(anew, "\n"))
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		}
	}))
	defer server.Close()
	w, _ := farWorld(t, server.URL)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	k := w.watched[idOf(podKind)]
	go func() { defer close(ended); w.watch(ctx, k) }()
	defer func() { stop(); <-ended }()
	shows := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			if got := members(w.Flush()); !slices.Equal(got, want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	shows("10.0.0.3 c")
	close(expires)
	shows("10.0.0.5 e")
}
