//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/testkit/netns"
	made "github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
)

// bigCluster answers as an API server with a world of many pods, as large as real ones
// are, a hundred to a node. Nothing ever changes.
type bigCluster struct {
	pods    []policies.Pod
	others  map[string][]any // by path
	streams bool             // pods, rather than answer with pages of them
}

func newBigCluster(b *testing.B, m *policies.Model) *bigCluster {
	c := &bigCluster{pods: m.Pods, others: map[string][]any{"/api/v1/nodes": nil}}
	bare := *m
	bare.Pods = nil
	for _, file := range made.Files(&bare) {
		for _, text := range strings.Split(string(file.Data), "\n---\n") {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(text), &o); err != nil {
				b.Fatal(err)
			}
			path := "/api/v1/namespaces"
			if o["kind"] == "NetworkPolicy" {
				path = "/apis/networking.k8s.io/v1/networkpolicies"
			}
			c.others[path] = append(c.others[path], o)
		}
	}
	for i := range len(m.Pods) / 100 {
		c.others["/api/v1/nodes"] = append(c.others["/api/v1/nodes"], map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("node-%d", i), "labels": map[string]any{"kubernetes.io/os": "linux"}},
			"status":   map[string]any{"addresses": []any{map[string]any{"type": "InternalIP", "address": fmt.Sprintf("192.168.%d.%d", i>>8, i&255)}}},
		})
	}
	return c
}

// filler is what nobody asks for: environments, managed fields, conditions.
var filler = strings.Repeat(`{"name":"SOME_VARIABLE","value":"some value or other","f:k":{"f:a":{},"f:b":{}}},`, 20) + "{}"

func (c *bigCluster) pod(i int) string {
	p := &c.pods[i]
	labels, _ := json.Marshal(p.Labels)
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q,"uid":"0a1b2c3d-0000-4000-8000-%012d","resourceVersion":"%d","labels":%s,`+
		`"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":%q,"uid":"x","controller":true}],"managedFields":[%s]},`+
		`"spec":{"nodeName":"node-%d","serviceAccountName":"default","containers":[{"name":"main","env":[%s],"ports":[{"name":"http","containerPort":8080}]}]},`+
		`"status":{"phase":"Running","podIP":"%s","podIPs":[{"ip":"%[10]s"}]}}`,
		p.Ref.Name, p.Ref.Namespace, i, i, labels, p.Workload.Name+"-"+p.Labels["pod-template-hash"], filler, i%max(1, len(c.pods)/100), filler, p.Addresses[0])
}

func (c *bigCluster) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // a client that went away
	}
	resource := func(name, kind string, namespaced bool) any {
		return map[string]any{"name": name, "kind": kind, "namespaced": namespaced, "verbs": []string{"list", "watch"}}
	}
	query := q.URL.Query()
	switch {
	case query.Get("sendInitialEvents") == "true" && c.streams && q.URL.Path == "/api/v1/pods":
		for i := range c.pods {
			fmt.Fprintf(w, `{"type":"ADDED","object":%s}`+"\n", c.pod(i))
		}
		fmt.Fprintln(w, `{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	case query.Get("sendInitialEvents") == "true":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`))
	case query.Get("watch") == "true":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	case q.URL.Path == "/api":
		answer(map[string]any{"kind": "APIVersions", "versions": []string{"v1"}})
	case q.URL.Path == "/apis":
		version := map[string]any{"groupVersion": "networking.k8s.io/v1", "version": "v1"}
		answer(map[string]any{"kind": "APIGroupList", "groups": []any{map[string]any{"name": "networking.k8s.io", "versions": []any{version}, "preferredVersion": version}}})
	case q.URL.Path == "/api/v1":
		answer(map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": []any{
			resource("pods", "Pod", true), resource("namespaces", "Namespace", false), resource("nodes", "Node", false),
		}})
	case q.URL.Path == "/apis/networking.k8s.io/v1":
		answer(map[string]any{"kind": "APIResourceList", "groupVersion": "networking.k8s.io/v1", "resources": []any{resource("networkpolicies", "NetworkPolicy", true)}})
	case q.URL.Path != "/api/v1/pods":
		answer(map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}, "items": c.others[q.URL.Path]})
	default:
		start, _ := strconv.Atoi(query.Get("continue"))
		limit, err := strconv.Atoi(query.Get("limit"))
		if err != nil {
			limit = len(c.pods)
		}
		end, next := min(start+limit, len(c.pods)), ""
		if end < len(c.pods) {
			next = strconv.Itoa(end)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":%q},"items":[`, next)
		for i := start; i < end; i++ {
			if i > start {
				fmt.Fprint(w, ",")
			}
			fmt.Fprint(w, c.pod(i))
		}
		fmt.Fprint(w, "]}")
	}
}

// BenchmarkRealMemory is the memory of an agent in a cluster, as a process of its own:
// what is resident a while after all is in force, and what was at most. Pages of the
// program's file that were looked at are part of both, and told of besides.
func BenchmarkRealMemory(b *testing.B) {
	netns.Want(b)
	few := made.Cluster100k
	few.Policies = 1_000
	for _, shape := range []made.Shape{made.Cluster5k, few, made.Cluster100k} {
		answers := newBigCluster(b, shape.Model(1))
		for _, how := range []string{"in pages", "streamed"} {
			b.Run(shape.String()+", "+how, func(b *testing.B) {
				answers.streams = how == "streamed"
				for b.Loop() {
					measureMemory(b, answers)
				}
			})
		}
	}
}

func measureMemory(b *testing.B, answers http.Handler) {
	a := newAgent(b)
	server := httptest.NewUnstartedServer(answers)
	a.Inside(func() { server.Listener, _ = net.Listen("tcp", "127.0.0.1:0") })
	server.Start()
	defer server.Close()
	config := filepath.Join(b.TempDir(), "config")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	a.launch("--kubeconfig", config, "--node", "node-0")
	defer a.kill()
	for { // for longer than a test may take
		_, err := a.get("9441/readyz")
		if err == nil {
			break
		}
		if time.Since(begin) > 10*time.Minute {
			b.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.ReportMetric(time.Since(begin).Seconds(), "s-to-ready")
	time.Sleep(20 * time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		for name, unit := range map[string]string{"VmRSS:": "MiB-resident", "VmHWM:": "MiB-at-most", "RssFile:": "MiB-of-its-file"} {
			if kilobytes, is := strings.CutPrefix(line, name); is {
				n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kilobytes), " kB"))
				b.ReportMetric(float64(n)/1024, unit)
			}
		}
	}
}
