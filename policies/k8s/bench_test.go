package k8s_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

var repositories = []worlds.Shape{worlds.OpenRepository, worlds.PolicyRepository}

// BenchmarkParse turns manifests into documents: the work of the YAML library.
func BenchmarkParse(b *testing.B) {
	for _, shape := range repositories {
		b.Run(shape.String(), func(b *testing.B) {
			files := worlds.Files(shape.Model(1))
			size := 0
			for _, file := range files {
				size += len(file.Data)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for name, file := range files {
					if _, err := k8s.Parse(name, file.Data); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkReadDocuments makes a model of documents that are parsed already.
func BenchmarkReadDocuments(b *testing.B) {
	for _, shape := range repositories {
		b.Run(shape.String(), func(b *testing.B) {
			var docs []k8s.Document
			for name, file := range worlds.Files(shape.Model(1)) {
				parsed, err := k8s.Parse(name, file.Data)
				if err != nil {
					b.Fatal(err)
				}
				docs = append(docs, parsed...)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k8s.Read(docs, k8s.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// crowd is a store of 100,000 pods in 1,000 namespaces, each with ten workloads,
// ten Services and ten policies.
func crowd(b *testing.B, calico bool) *k8s.Store {
	b.Helper()
	o := k8s.Options{Calico: calico}
	s := k8s.NewStore(o)
	put := func(o k8s.Options, object map[string]any) {
		s.Put(entry(b, k8s.Object("live", object), o))
	}
	for n := range 1000 {
		namespace := fmt.Sprintf("ns-%04d", n)
		put(o, m{"apiVersion": "v1", "kind": "Namespace", "metadata": m{"name": namespace, "labels": m{"team": fmt.Sprint("team-", n%50)}}})
		for w := range 10 {
			app := fmt.Sprint("app-", w)
			put(o, m{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": m{"name": app, "namespace": namespace}, "spec": m{"template": m{}}})
			put(o, m{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": m{"name": app + "-6d4cf56db6", "namespace": namespace, "ownerReferences": []any{m{"kind": "Deployment", "name": app, "controller": true}}}, "spec": m{"template": m{}}})
			put(o, m{"apiVersion": "v1", "kind": "Service", "metadata": m{"name": app, "namespace": namespace}, "spec": m{"selector": m{"app": app}, "ports": []any{m{"port": int64(80)}}}})
			put(o, benchPolicy(namespace, app, 5432))
			for i := range 10 {
				put(o, benchPod(namespace, app, n, 10*w+i))
			}
		}
	}
	return s
}

func benchPod(namespace, app string, n, i int) m {
	return m{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": m{
			"name": fmt.Sprintf("%s-6d4cf56db6-%05d", app, i), "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z",
			"labels":          m{"app": app, "pod-template-hash": "6d4cf56db6"},
			"ownerReferences": []any{m{"kind": "ReplicaSet", "name": app + "-6d4cf56db6", "controller": true}},
		},
		"spec":   m{"nodeName": fmt.Sprint("node-", i), "serviceAccountName": "web", "containers": []any{m{"ports": []any{m{"name": "http", "containerPort": int64(8080)}}}}},
		"status": m{"phase": "Running", "podIP": fmt.Sprintf("10.%d.%d.%d", n/250, n%250, i)},
	}
}

func benchPolicy(namespace, app string, port int64) m {
	return m{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": m{"name": app, "namespace": namespace},
		"spec": m{"podSelector": m{"matchLabels": m{"app": app}}, "ingress": []any{m{
			"from": []any{m{"namespaceSelector": m{"matchLabels": m{"team": "team-1"}}}}, "ports": []any{m{"port": port}},
		}}},
	}
}

// BenchmarkStore changes one object among 100,000 pods and 10,000 policies.
func BenchmarkStore(b *testing.B) {
	for _, calico := range []bool{false, true} {
		name := "Kubernetes"
		if calico {
			name = "Calico"
		}
		o := k8s.Options{Calico: calico}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := crowd(b, calico)
		_, _ = s.Model()
		runtime.GC()
		runtime.ReadMemStats(&after)
		mebibytes := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
		entries := [2]*k8s.Entry{}
		for i := range entries {
			entries[i] = entry(b, k8s.Object("live", benchPolicy("ns-0500", "app-new", int64(100+i))), o)
		}
		b.Run(name+"/a policy is tried", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Try(entries[i%2:i%2+1], nil, func(c k8s.Change, _ func() *policies.Model) {
					if len(c.Policies) != 1 || len(c.Pods) != 0 {
						b.Fatal(c)
					}
				})
			}
			b.ReportMetric(mebibytes, "MiB-held")
		})
		b.Run(name+"/a policy, and the model", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Put(entries[i%2])
				_, _ = s.Model()
			}
		})
		b.Run(name+"/a pod, and the model", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := entry(b, k8s.Object("live", benchPod("ns-0500", "app-5", i%500, 250)), o)
				s.Put(e)
				if _, c := s.Model(); len(c.Pods) != 1 {
					b.Fatal(c)
				}
			}
		})
	}
}
