package k8s

import (
	"fmt"
	"testing"
)

func TestServices(t *testing.T) {
	const pods = `
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web, tier: front}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: web}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: other, labels: {app: web}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {metadata: {labels: {app: web}}}}}
---
`
	for _, row := range []struct{ spec, want string }{
		{"{selector: {app: web}}", "pods [0 1 2]"},
		{"{selector: {app: web, tier: front}}", "pods [0]"},
		{"{selector: {app: web, tier: back}}", "pods []"},
		{"{selector: {app: db, tier: front}}", "pods []"},
		{"{selector: {app: db}}", "pods []"},
		{"{}", "pods [], external: it has no selector"},
		{"{selector: {}}", "pods [], external: it has no selector"},
		{"{type: ExternalName, externalName: db.example.com, selector: {app: web}}", "pods [], external: it is an alias of db.example.com"},
		{"{selector: {app: web}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']}", "pods [0 1 2], at [10.96.0.1 fd00::1]"},
		{"{selector: {app: web}, clusterIP: None, clusterIPs: [None]}", "pods [0 1 2]"},
		{"{selector: {app: db}, ports: [{port: 80}]}", "pods [], { TCP 80 80 }"},
		{"{selector: {app: db}, ports: [{port: 80, targetPort: 8080, name: http}]}", "pods [], {http TCP 80 8080 }"},
		{"{selector: {app: db}, ports: [{port: 53, targetPort: dns, protocol: UDP}]}", "pods [], { UDP 53 0 dns}"},
		{"{selector: {app: db}, ports: [{port: 53, targetPort: 0}, {port: 54, targetPort: ''}]}", "pods [], { TCP 53 53 }, { TCP 54 54 }"},
	} {
		m := read(t, pods+"{apiVersion: v1, kind: Service, metadata: {name: s}, spec: "+row.spec+"}")
		s := m.Services[0]
		got := fmt.Sprintf("pods %v", s.Pods)
		if s.External != "" {
			got += ", external: " + s.External
		}
		if len(s.ClusterIP) > 0 {
			got += fmt.Sprintf(", at %v", s.ClusterIP)
		}
		for _, p := range s.Ports {
			got += fmt.Sprintf(", %v", p)
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.spec, got, row.want)
		}
	}
}
