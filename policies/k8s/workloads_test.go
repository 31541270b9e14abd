package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
)

// manifest writes an object of namespace shop; owner is "Kind/name" or "".
func manifest(apiVersion, kind, name, owner, rest string) string {
	owners := ""
	if k, n, ok := strings.Cut(owner, "/"); ok {
		owners = fmt.Sprintf(", ownerReferences: [{kind: Other, name: x}, {kind: %s, name: %s, controller: true}]", k, n)
	}
	labels := ""
	if kind == "Pod" {
		labels = ", labels: {app: web, pod-template-hash: 5d4f}"
	}
	return fmt.Sprintf("---\n{apiVersion: %s, kind: %s, metadata: {name: %s, namespace: shop%s%s}, %s}\n", apiVersion, kind, name, labels, owners, rest)
}

func TestPodsAndTheirWorkloads(t *testing.T) {
	const (
		template = "template: {metadata: {labels: {app: web}}}"
		spec     = "spec: {" + template + "}"
		cronSpec = "spec: {jobTemplate: {spec: {parallelism: 4, " + template + "}}}"
		other    = "spec: {template: {metadata: {labels: {app: web, friend: is}}}}"
		none     = "spec: {template: {metadata: {}}}"
		running  = "status: {phase: Running, podIP: 10.0.0.1}"
		waiting  = "status: {phase: Pending}"
	)
	for _, row := range []struct{ what, text, want string }{
		{"a bare pod", manifest("v1", "Pod", "a", "", running), "Pod a of Pod a x1"},
		{"a manifest", manifest("v1", "Pod", "a", "", "spec: {}"), "Pod a of Pod a x1"},
		{"a Deployment", manifest("apps/v1", "Deployment", "web", "", spec), "Deployment web of Deployment web x1"},
		{"its replicas", manifest("apps/v1", "Deployment", "web", "", "spec: {replicas: 5, "+template+"}"), "Deployment web of Deployment web x5"},
		{"no replicas", manifest("apps/v1", "Deployment", "web", "", "spec: {replicas: 0, "+template+"}"), "Deployment web of Deployment web x0"},
		{"a StatefulSet", manifest("apps/v1", "StatefulSet", "web", "", spec), "StatefulSet web of StatefulSet web x1"},
		{"a DaemonSet", manifest("apps/v1", "DaemonSet", "web", "", spec), "DaemonSet web of DaemonSet web x2"},
		{"a ReplicationController", manifest("v1", "ReplicationController", "web", "", spec), "ReplicationController web of ReplicationController web x1"},
		{"a Job", manifest("batch/v1", "Job", "web", "", "spec: {parallelism: 3, "+template+"}"), "Job web of Job web x3"},
		{"a CronJob", manifest("batch/v1", "CronJob", "web", "", cronSpec), "CronJob web of CronJob web x4"},
		{
			"a Job that is done", manifest("batch/v1", "Job", "web", "", spec+", status: {conditions: [{type: Complete, status: \"True\"}]}"), "",
		},
		{
			"a chain", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", spec) +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a chain without ReplicaSet", manifest("apps/v1", "Deployment", "web", "", spec) +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a ReplicaSet by itself", manifest("apps/v1", "ReplicaSet", "web", "", spec) + manifest("v1", "Pod", "web-x", "ReplicaSet/web", running),
			"Pod web-x of ReplicaSet web x1",
		},
		{
			"a chain without pods", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", spec),
			"Deployment web of Deployment web x1",
		},
		{
			"ReplicaSets without their Deployment", manifest("apps/v1", "ReplicaSet", "web-1", "Deployment/web", spec) +
				manifest("apps/v1", "ReplicaSet", "web-0", "Deployment/web", "spec: {replicas: 0, "+template+"}"),
			"ReplicaSet web-1 of Deployment web x1",
		},
		{
			"a CronJob's pod", manifest("batch/v1", "CronJob", "web", "", cronSpec) + manifest("batch/v1", "Job", "web-1", "CronJob/web", spec) +
				manifest("v1", "Pod", "web-1-x", "Job/web-1", running),
			"Pod web-1-x of CronJob web x1",
		},
		{
			"a Job that is done, and its pod", manifest("batch/v1", "Job", "web", "", spec+", status: {conditions: [{type: Complete, status: \"True\"}]}") +
				manifest("v1", "Pod", "web-x", "Job/web", "status: {phase: Succeeded, podIP: 10.0.0.1}"), "",
		},
		{
			"between the runs of a CronJob", manifest("batch/v1", "CronJob", "web", "", cronSpec) +
				manifest("batch/v1", "Job", "web-1", "CronJob/web", spec+", status: {conditions: [{type: Complete, status: \"True\"}]}") +
				manifest("v1", "Pod", "web-1-x", "Job/web-1", "status: {phase: Succeeded, podIP: 10.0.0.1}"),
			"CronJob web of CronJob web x4",
		},
		{"a failed pod", manifest("v1", "Pod", "a", "", "status: {phase: Failed}"), ""},
		{
			"pods that all failed", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", "status: {phase: Failed}"),
			"Deployment web of Deployment web x1",
		},
		{"a pod without address yet", manifest("v1", "Pod", "a", "", waiting), ""},
		{
			"pods without address yet", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", spec) +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", waiting),
			"Deployment web of Deployment web x1",
		},
		{
			"one pod with an address", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", waiting) +
				manifest("v1", "Pod", "web-5d4f-y", "ReplicaSet/web-5d4f", running),
			"Pod web-5d4f-y of Deployment web x1",
		},
		{
			"a template that says something else", manifest("apps/v1", "Deployment", "web", "", other) + manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Deployment web of Deployment web x1, Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a template with another account", manifest("apps/v1", "Deployment", "web", "", "spec: {template: {metadata: {labels: {app: web}}, spec: {serviceAccountName: robot}}}") +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Deployment web of Deployment web x1, Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a template with one more port", manifest("apps/v1", "Deployment", "web", "", "spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{ports: [{containerPort: 80}]}]}}}") +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Deployment web of Deployment web x1, Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a pod into which others put labels", manifest("apps/v1", "Deployment", "web", "", none) +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Pod web-5d4f-x of Deployment web x1",
		},
		{
			"a template without a label of the last revision", manifest("apps/v1", "Deployment", "web", "", none) +
				manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", "spec: {template: {metadata: {labels: {app: web, pod-template-hash: 5d4f}}}}") +
				manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Deployment web of Deployment web x1, Pod web-5d4f-x of Deployment web x1",
		},
		{
			"two revisions without pods", manifest("apps/v1", "Deployment", "web", "", spec) + manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", spec) +
				manifest("apps/v1", "ReplicaSet", "web-0", "Deployment/web", other),
			"Deployment web of Deployment web x1, ReplicaSet web-0 of Deployment web x1",
		},
		{
			"the pods of the new revision are there", manifest("apps/v1", "Deployment", "web", "", none) +
				manifest("apps/v1", "ReplicaSet", "web-0", "Deployment/web", spec) + manifest("v1", "Pod", "web-0-x", "ReplicaSet/web-0", running) +
				manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", none) + manifest("v1", "Pod", "web-5d4f-x", "ReplicaSet/web-5d4f", running),
			"Pod web-0-x of Deployment web x1, Pod web-5d4f-x of Deployment web x1",
		},
		{"a pod on the host without address", manifest("v1", "Pod", "a", "", "spec: {hostNetwork: true}, status: {phase: Running}"), "Pod a of Pod a x1"},
		{"a pod of a custom kind", manifest("v1", "Pod", "a", "Rollout/r", running), "Pod a of Rollout r x1"},
		{"a static pod", manifest("v1", "Pod", "a", "Node/n1", running), "Pod a of Pod a x1"},
		{
			"owners in a circle", manifest("apps/v1", "ReplicaSet", "a", "ReplicaSet/b", spec) + manifest("apps/v1", "ReplicaSet", "b", "ReplicaSet/a", spec) +
				manifest("v1", "Pod", "p", "ReplicaSet/a", running),
			"Pod p of ReplicaSet b x1",
		},
		{"a name to come", "{apiVersion: v1, kind: Pod, metadata: {generateName: a-, namespace: shop}}", "Pod a- of Pod a- x1"},
	} {
		var got []string
		for _, p := range read(t, row.text).Pods {
			if p.Ref.Namespace != "shop" || p.Workload.Namespace != "shop" {
				t.Errorf("%s: %v of %v is not in shop", row.what, p.Ref, p.Workload)
			}
			got = append(got, fmt.Sprintf("%s %s of %s %s x%d", p.Ref.Kind, p.Ref.Name, p.Workload.Kind, p.Workload.Name, p.Replicas))
		}
		if text := strings.Join(got, ", "); text != row.want {
			t.Errorf("%s: got %q, want %q", row.what, text, row.want)
		}
	}
}

func TestPodDetails(t *testing.T) {
	m := read(t, `
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec:
  nodeName: n1
  serviceAccountName: robot
  initContainers:
  - ports: [{name: setup, containerPort: 1}]
  - restartPolicy: Always
    ports: [{name: proxy, containerPort: 15001}]
  containers:
  - ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]
  - ports: [{name: sctp, containerPort: 9000, protocol: SCTP}]
status:
  phase: Running
  hostIP: 192.0.2.1
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {hostNetwork: true, nodeName: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: c}
spec: {hostNetwork: true}
status: {phase: Pending, hostIP: 192.0.2.3}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, labels: {app: not-the-pods}}
spec: {template: {metadata: {labels: {app: d}}, spec: {serviceAccount: old}}}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
`)
	var got []string
	for _, p := range m.Pods {
		got = append(got, fmt.Sprintf("%v %v %s %v %v %t %q %v", p.Ref, p.Labels, p.ServiceAccount, p.Ports, p.Addresses, p.HostNetwork, p.Node, p.Place))
	}
	want := []string{
		`default/a map[app:web] robot [{http TCP 8080} { UDP 53} {sctp SCTP 9000} {proxy TCP 15001}] [10.0.0.1 fd00::1] false "n1" a.yaml:2:1`,
		`default/b map[] default [] [192.0.2.1] true "n1" a.yaml:21:1`,
		`default/c map[] default [] [192.0.2.3] true "" a.yaml:26:1`,
		`default/d map[app:d] old [] [] false "" a.yaml:32:1`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPodsKnowWhenTheyWereMade(t *testing.T) {
	for text, want := range map[string]time.Time{
		"{name: a, creationTimestamp: 2026-03-01T12:00:00Z}":   time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		"{name: a, creationTimestamp: '2026-03-01T12:00:00Z'}": time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		"{name: a, creationTimestamp: null}":                   {},
		"{name: a}":                                            {},
	} {
		docs, err := Parse("pod.yaml", []byte("{apiVersion: v1, kind: Pod, metadata: "+text+", spec: {containers: [{name: c}]}}"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Read(docs, Options{})
		if err != nil || len(m.Warnings) > 0 || !m.Pods[0].Since.Equal(want) {
			t.Errorf("%s: since %v, want %v (%v, %v)", text, m.Pods[0].Since, want, err, m.Warnings)
		}
	}
}

// Once a template that says something else has had its effect, the pods do, too, but
// for what others put in.
func TestPodsOfANewTemplate(t *testing.T) {
	entry := func(text string) *Entry {
		t.Helper()
		docs, err := Parse("a.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		e, err := ReadEntry(docs[0], Options{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	of := func(labels, port string) string {
		return "spec: {template: {metadata: {labels: {" + labels + "}}, spec: {serviceAccountName: robot, containers: [{ports: [{containerPort: " + port + "}]}]}}}"
	}
	before := entry(manifest("apps/v1", "Deployment", "web", "", of("app: web, old: is", "80")))
	s := NewStore(Options{})
	s.Put(before)
	s.Put(entry(manifest("apps/v1", "ReplicaSet", "web-5d4f", "Deployment/web", of("app: web, old: is, pod-template-hash: 5d4f", "80"))))
	s.Put(entry("{apiVersion: v1, kind: Pod, metadata: {name: web-5d4f-x, namespace: shop, labels: {app: web, old: is, mesh: is, pod-template-hash: 5d4f}, " +
		"ownerReferences: [{kind: ReplicaSet, name: web-5d4f, controller: true}]}, " +
		"spec: {serviceAccountName: robot, containers: [{ports: [{containerPort: 80}]}, {ports: [{containerPort: 15090}]}]}, status: {phase: Running, podIP: 10.0.0.1}}"))
	s.Model()
	for _, row := range []struct{ what, labels, port, want string }{
		{
			"labels come and go", "app: web, friend: is", "80",
			"web-5d4f-x map[app:web friend:is mesh:is pod-template-hash:5d4f] [{ TCP 15090} { TCP 80}] [10.0.0.1]",
		},
		{"a port is another one", "app: web, old: is", "81", "web-5d4f-x map[app:web mesh:is old:is pod-template-hash:5d4f] [{ TCP 15090} { TCP 81}] [10.0.0.1]"},
		{"nothing", "app: web, old: is", "80", ""},
		{"all goes", "", "", "nobody"},
	} {
		after := before.Gone()
		if row.labels != "" {
			after = entry(manifest("apps/v1", "Deployment", "web", "", of(row.labels, row.port))).After(before)
		}
		var got string
		s.Try([]*Entry{after}, nil, func(c Change, model func() *policies.Model) {
			if c.IsEmpty() {
				return
			}
			if len(model().Pods) == 0 {
				got = "nobody"
			}
			for _, p := range model().Pods {
				got += fmt.Sprintf("%s %v %v %v", p.Ref.Name, p.Labels, p.Ports, p.Addresses)
			}
		})
		if got != row.want {
			t.Errorf("%s: got %s, want %s", row.what, got, row.want)
		}
	}
}
