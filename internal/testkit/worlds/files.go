package worlds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// Files writes a model as manifests: one file for each namespace, with the
// Namespace, its Deployments, Pods and NetworkPolicies. Templates are about as
// long as they are in real repositories.
func Files(m *policies.Model) fstest.MapFS {
	texts := map[string]*strings.Builder{}
	for _, n := range m.Namespaces {
		text := &strings.Builder{}
		texts[n.Name] = text
		fmt.Fprintf(text, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels:\n%s", n.Name, labels("    ", n.Labels))
	}
	for i := range m.Pods {
		p := &m.Pods[i]
		if p.Ref.Kind == "Pod" {
			writePod(texts[p.Ref.Namespace], p)
		} else {
			writeDeployment(texts[p.Ref.Namespace], p)
		}
	}
	for i := range m.Policies {
		writePolicy(texts[m.Policies[i].Ref.Namespace], &m.Policies[i])
	}
	files := fstest.MapFS{}
	for name, text := range texts {
		files[name+".yaml"] = &fstest.MapFile{Data: []byte(text.String())}
	}
	return files
}

func labels(indent string, all map[string]string) string {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s%s: %q\n", indent, key, all[key])
	}
	return text.String()
}

func writePod(w *strings.Builder, p *policies.Pod) {
	replicaSet := p.Workload.Name + "-" + p.Labels["pod-template-hash"]
	fmt.Fprintf(w, `---
apiVersion: v1
kind: Pod
metadata:
  name: %s
  namespace: %s
  labels:
%s  ownerReferences:
  - apiVersion: apps/v1
    kind: ReplicaSet
    name: %s
    controller: true
spec:
%sstatus:
  phase: Running
  podIP: %s
  podIPs:
  - ip: %[6]s
`, p.Ref.Name, p.Ref.Namespace, labels("    ", p.Labels), replicaSet, spec("  ", p.Ports), p.Addresses[0])
}

func writeDeployment(w *strings.Builder, p *policies.Pod) {
	fmt.Fprintf(w, `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %s
  namespace: %s
  labels:
%sspec:
  replicas: %d
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
%s  template:
    metadata:
      labels:
%s    spec:
%s`, p.Ref.Name, p.Ref.Namespace, labels("    ", p.Labels), p.Replicas, labels("      ", p.Labels), labels("        ", p.Labels), spec("      ", p.Ports))
}

func spec(indent string, ports []policies.ContainerPort) string {
	text := `containers:
- name: main
  image: registry.example/team/service:1.2.3
  imagePullPolicy: IfNotPresent
  env:
  - name: LOG_LEVEL
    value: info
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  resources:
    requests:
      cpu: 100m
      memory: 128Mi
    limits:
      memory: 256Mi
  readinessProbe:
    httpGet:
      path: /healthz
      port: 8081
    periodSeconds: 5
  securityContext:
    runAsNonRoot: true
    readOnlyRootFilesystem: true
  ports:
`
	for _, p := range ports {
		text += fmt.Sprintf("  - name: %s\n    containerPort: %d\n    protocol: %s\n", p.Name, p.Number, p.Protocol)
	}
	return indented(indent, text)
}

func indented(indent, text string) string {
	return indent + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+indent) + "\n"
}

func writePolicy(w *strings.Builder, p *policies.Policy) {
	fmt.Fprintf(w, "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %s\n  namespace: %s\nspec:\n", p.Ref.Name, p.Ref.Namespace)
	fmt.Fprintf(w, "  podSelector:%s  policyTypes:\n", labelSelector("    ", p.Subject.Pods))
	for _, d := range policies.Directions {
		if p.Governs[d] {
			fmt.Fprintf(w, "  - %s\n", [...]string{"Egress", "Ingress"}[d])
		}
	}
	for _, d := range policies.Directions {
		for i, r := range p.Rules[d] {
			if i == 0 {
				fmt.Fprintf(w, "  %s:\n", d)
			}
			writeRule(w, [...]string{"to", "from"}[d], r)
		}
	}
}

func writeRule(w *strings.Builder, peers string, r policies.Rule) {
	fmt.Fprintf(w, "  - %s:\n", peers)
	for _, p := range r.Peers {
		if p.Block.CIDR.IsValid() {
			fmt.Fprintf(w, "    - ipBlock:\n        cidr: %s\n", p.Block.CIDR)
			for i, e := range p.Block.Except {
				if i == 0 {
					w.WriteString("        except:\n")
				}
				fmt.Fprintf(w, "        - %s\n", e)
			}
			continue
		}
		fmt.Fprintf(w, "    - namespaceSelector:%s      podSelector:%s", labelSelector("        ", p.Namespaces), labelSelector("        ", p.Pods))
	}
	w.WriteString("    ports:\n")
	for p := range r.Ports.Ranges() {
		fmt.Fprintf(w, "    - protocol: %s\n      port: %d\n", p.Protocol, p.First)
		if p.Last != p.First {
			fmt.Fprintf(w, "      endPort: %d\n", p.Last)
		}
	}
	for _, n := range r.Named {
		fmt.Fprintf(w, "    - protocol: %s\n      port: %s\n", n.Protocol, n.Name)
	}
}

// labelSelector prints a selector behind its field's colon.
func labelSelector(indent string, s selector.Selector) string {
	if s.IsEverything() {
		return " {}\n"
	}
	all := s.Requirements()
	if len(all) == 1 && all[0].Operator == selector.In && len(all[0].Values) == 1 {
		return fmt.Sprintf("\n%smatchLabels:\n%[1]s  %s: %s\n", indent, all[0].Key, all[0].Values[0])
	}
	text := "\n" + indent + "matchExpressions:\n"
	for _, r := range all {
		text += fmt.Sprintf("%s- {key: %q, operator: %s, values: [%s]}\n", indent, r.Key, r.Operator, strings.Join(r.Values, ", "))
	}
	return text
}
