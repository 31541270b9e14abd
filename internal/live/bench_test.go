package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/internal/live"
)

// bigCluster answers as an API server with very many pods, as large as real ones
// are. Nothing ever changes.
type bigCluster struct{ pods int }

func (c bigCluster) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // a client that went away
	}
	query := q.URL.Query()
	switch {
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
		answer(map[string]any{"kind": "APIGroupList", "groups": []any{}})
	case q.URL.Path == "/api/v1":
		answer(map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": []any{
			map[string]any{"name": "pods", "kind": "Pod", "namespaced": true, "verbs": []string{"list", "watch"}},
		}})
	default:
		start, _ := strconv.Atoi(query.Get("continue"))
		limit, err := strconv.Atoi(query.Get("limit"))
		if err != nil {
			limit = c.pods
		}
		end, next := min(start+limit, c.pods), ""
		if end < c.pods {
			next = strconv.Itoa(end)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":%q},"items":[`, next)
		for i := start; i < end; i++ {
			if i > start {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, bigPod, i, i/100, i, 1000+i, i/10, i/10, filler, i%5000, i>>16&255, i>>8&255, i&255, filler)
		}
		fmt.Fprint(w, "]}")
	}
}

// filler is what nobody asks for: environments, managed fields, conditions.
var filler = strings.Repeat(`{"name":"SOME_VARIABLE","value":"some value or other","f:k":{"f:a":{},"f:b":{}}},`, 45) + "{}"

const bigPod = `{"metadata":{"name":"web-6d4cf56db6-%06d","namespace":"ns-%04d","uid":"0a1b2c3d-0000-4000-8000-%012d","resourceVersion":"%d",
"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app":"app-%d","pod-template-hash":"6d4cf56db6","tier":"backend","team":"payments"},
"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-%d-6d4cf56db6","uid":"x","controller":true}],"managedFields":[%s]},
"spec":{"nodeName":"node-%d","serviceAccountName":"web","containers":[{"name":"web","image":"web","ports":[{"name":"http","containerPort":8080},{"name":"metrics","containerPort":9090}]}]},
"status":{"phase":"Running","podIP":"10.%d.%d.%d","hostIP":"192.168.0.1","conditions":[%s]}}`

// BenchmarkStart lists 100,000 pods of 8 KB each, and says how much memory they
// take once they are held and, of the whole process, at most.
func BenchmarkStart(b *testing.B) {
	server := httptest.NewServer(bigCluster{100_000})
	defer server.Close()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w, err := live.New(&rest.Config{Host: server.URL}, live.Options{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.Start(ctx) }()
		<-w.Ready()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := len(w.Model().Pods); n != 100_000 {
			b.Fatalf("%d pods", n)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-held")
		stop()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(status)) {
		if kilobytes, is := strings.CutPrefix(line, "VmHWM:"); is {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kilobytes), " kB"))
			b.ReportMetric(float64(n)/1024, "MiB-peak")
		}
	}
}
