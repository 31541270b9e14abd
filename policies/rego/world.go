package rego

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/reach"
)

// World is what policies are about. It works out what they use and remembers it
// for the next one, so it serves one goroutine.
type World struct {
	judge    *reach.Judge
	recorded expression.Recorded

	expressions *expression.World
	sections    map[string]*ast.Array
	targets     map[string]policies.Target
	ports       map[string]policies.PortQuery
	pods        map[[2]string]*ast.Term // that weir.select found
}

// NewWorld returns the world that a judge judges, with what was recorded there.
// Neither must change.
func NewWorld(j *reach.Judge, recorded expression.Recorded) *World {
	return &World{
		judge: j, recorded: recorded, sections: map[string]*ast.Array{},
		targets: map[string]policies.Target{}, ports: map[string]policies.PortQuery{}, pods: map[[2]string]*ast.Term{},
	}
}

// sections are the parts of data.weir.world, as expressions of weir query.
var sections = map[string]string{
	"namespaces": `namespaces.map(n, {"name": n.name, "labels": n.labels, "labelsKnown": n.labelsKnown, "at": n.at})`,
	"pods": `pods.map(p, {"namespace": p.namespace, "name": p.name, "kind": p.kind,
		"workload": {"namespace": p.workload.namespace, "name": p.workload.name, "kind": p.workload.kind},
		"labels": p.labels, "namespaceLabels": p.namespaceLabels, "node": p.node, "addresses": p.addresses,
		"serviceAccount": p.serviceAccount, "hostNetwork": p.hostNetwork, "replicas": p.replicas,
		"ports": p.ports.map(q, {"name": q.name, "protocol": q.protocol, "number": q.number}),
		"egressIsolated": p.egressIsolated, "ingressIsolated": p.ingressIsolated, "at": p.at})`,
	"workloads": `workloads.map(w, {"namespace": w.namespace, "name": w.name, "kind": w.kind, "labels": w.labels})`,
	"services": `services.map(s, {"namespace": s.namespace, "name": s.name, "clusterIPs": s.clusterIPs, "external": s.external,
		"ports": s.ports.map(q, {"name": q.name, "protocol": q.protocol, "number": q.number, "target": q.target}),
		"pods": s.pods.map(p, string(p)), "at": s.at})`,
	"nodes": `nodes.map(n, {"name": n.name, "labels": n.labels, "addresses": n.addresses, "at": n.at})`,
	"policies": `policies.map(p, {"group": p.group, "kind": p.kind, "namespace": p.namespace, "name": p.name, "tier": p.tier,
		"priority": p.priority, "directions": p.directions, "annotations": p.annotations, "opaque": p.opaque, "at": p.at,
		"rules": p.rules.map(r, {"direction": r.direction, "index": r.index, "name": r.name, "action": r.action, "anyone": r.anyone,
			"peers": r.peers, "cidrs": r.cidrs, "ports": string(r.ports), "namedPorts": r.namedPorts, "at": r.at})})`,
	"connections": `connections.map(c, {"allow": string(c.allow), "unknown": string(c.unknown),
		"from": {"namespace": c.from.namespace, "name": c.from.name, "kind": c.from.kind, "cidr": c.from.cidr, "outside": c.from.outside, "labels": c.from.labels},
		"to": {"namespace": c.to.namespace, "name": c.to.name, "kind": c.to.kind, "cidr": c.to.cidr, "outside": c.to.outside, "labels": c.to.labels}})`,
}

// recordedFlows is what weir.flows returns.
const recordedFlows = `flows.map(f, {"from": string(f.from), "to": string(f.to), "protocol": f.protocol, "port": f.port,
	"verdict": string(f.verdict), "count": f.count, "bytes": f.bytes, "first": string(f.first), "last": string(f.last)})`

var worldRef = ast.MustParseRef("data.weir.world")

var flowsRef = ast.MustParseRef("weir.flows")

// asksFlows reports whether modules call weir.flows.
func asksFlows(c *ast.Compiler) (asks bool) {
	for _, m := range c.Modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			asks = asks || r.Equal(flowsRef)
			return false
		})
	}
	return asks
}

// sectionsUsed returns which sections of the world modules read: all of them
// where they read the world by what only an evaluation tells.
func sectionsUsed(c *ast.Compiler) []string {
	used := map[string]bool{}
	for _, m := range c.Modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			switch {
			case worldRef.HasPrefix(r.GroundPrefix()): // data, data.weir and data.weir.world, or parts of them
				for name := range sections {
					used[name] = true
				}
			case r.HasPrefix(worldRef):
				if name, ok := r[len(worldRef)].Value.(ast.String); ok && sections[string(name)] != "" {
					used[string(name)] = true
				}
			}
			return false
		})
	}
	return slices.Sorted(maps.Keys(used))
}

// data returns what a policy finds as data: its own, and sections of the world.
func (w *World) data(ctx context.Context, own map[string]any, names []string, m *meter) (map[string]any, error) {
	world := map[string]any{}
	for _, name := range names {
		section, err := w.section(ctx, name, sections[name], m)
		if err != nil {
			return nil, err
		}
		world[name] = section
	}
	data := map[string]any{"weir": map[string]any{"world": world}}
	maps.Copy(data, own)
	return data, nil
}

// Data returns what tests find as data: their own, and all of the world.
func (w *World) Data(ctx context.Context, own map[string]any) (map[string]any, error) {
	return w.data(ctx, own, slices.Sorted(maps.Keys(sections)), &meter{ctx: ctx, limit: math.MaxUint64})
}

// section returns a section of the world, for a step an item.
func (w *World) section(ctx context.Context, name, text string, m *meter) (*ast.Array, error) {
	section := w.sections[name]
	if section == nil {
		x, err := expression.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("data.weir.world.%s: %w", name, err)
		}
		if w.expressions == nil {
			w.expressions = expression.NewWorld(w.judge, w.recorded)
		}
		v, err := x.Eval(ctx, w.expressions, expression.Steps)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			var p policies.Problem
			if errors.As(err, &p) {
				err = errors.New(p.Message)
			}
			return nil, problem("data.weir.world.%s: %s", name, err)
		}
		section = valueOf(v).(*ast.Array)
		w.sections[name] = section
	}
	if m.spend(uint64(section.Len())) != nil {
		return nil, problem("data.weir.world.%s has %d items, for which it takes more than %d steps", name, section.Len(), m.limit)
	}
	return section, nil
}

// valueOf returns a value of an expression as one of Rego.
func valueOf(v expression.Value) ast.Value {
	switch v := v.(type) {
	case nil:
		return ast.NullValue
	case bool:
		return ast.Boolean(v)
	case int64:
		return ast.Number(fmt.Sprint(v))
	case string:
		return ast.String(v)
	case expression.List:
		terms := make([]*ast.Term, len(v))
		for i := range v {
			terms[i] = ast.NewTerm(valueOf(v[i]))
		}
		return ast.NewArray(terms...)
	case expression.Map:
		pairs := make([][2]*ast.Term, len(v))
		for i := range v {
			pairs[i] = [2]*ast.Term{ast.StringTerm(v[i].Key), ast.NewTerm(valueOf(v[i].Value))}
		}
		return ast.NewObject(pairs...)
	}
	return ast.String(fmt.Sprint(v))
}

// target returns what a text names.
func (w *World) target(text string) (policies.Target, error) {
	t, ok := w.targets[text]
	if !ok {
		var err error
		if t, err = w.judge.Model().Find(text); err != nil {
			return t, err
		}
		w.targets[text] = t
	}
	return t, nil
}

func (w *World) port(text string) (policies.PortQuery, error) {
	q, ok := w.ports[text]
	if !ok {
		var err error
		if q, err = policies.ParsePort(text); err != nil {
			return q, err
		}
		w.ports[text] = q
	}
	return q, nil
}

// decide answers a question.
func (w *World) decide(from, to, port string) (policies.Decision, error) {
	var q reach.Question
	var err error
	if q.From, err = w.target(from); err != nil {
		return policies.Decision{}, err
	}
	if q.To, err = w.target(to); err != nil {
		return policies.Decision{}, err
	}
	if q.Port, err = w.port(port); err != nil {
		return policies.Decision{}, err
	}
	if !q.From.Addresses.IsEmpty() && !q.To.Addresses.IsEmpty() {
		return policies.Decision{Verdict: policies.Unknown, Because: "policies decide nothing between addresses outside"}, nil
	}
	return w.judge.Ask(q)
}

// verdict is the verdict of decide.
func (w *World) verdict(from, to, port string) (policies.Verdict, error) {
	d, err := w.decide(from, to, port)
	return d.Verdict, err
}

// endText returns what names an end of a connection: a text as weir explain takes
// it, or an object of data.weir.world.
func endText(v ast.Value) (string, error) {
	switch v := v.(type) {
	case ast.String:
		return string(v), nil
	case ast.Object:
		field := func(name string) string {
			t := v.Get(ast.StringTerm(name))
			if t == nil {
				return ""
			}
			text, _ := t.Value.(ast.String)
			return string(text)
		}
		switch namespace, name, kind := field("namespace"), field("name"), field("kind"); {
		case field("cidr") != "":
			return field("cidr"), nil
		case name == "":
		case kind == "Node" || namespace == "" && kind == "":
			return "node/" + name, nil
		case namespace == "":
		case kind == "":
			return namespace + "/" + name, nil
		default:
			return namespace + "/" + strings.ToLower(kind) + "/" + name, nil
		}
	}
	return "", fmt.Errorf("%s names no end of a connection; give a text such as \"shop/web\" or an address, or an object with namespace and name", v)
}

// portText returns a port as weir explain takes it.
func portText(v ast.Value) (string, error) {
	switch v := v.(type) {
	case ast.String:
		return string(v), nil
	case ast.Number:
		return string(v), nil
	}
	return "", fmt.Errorf("%s is no port; give a number, or a text such as \"UDP/53\"", v)
}
