package rego

import (
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// fields are what the objects of the sections of the world have: "labels", or, of an
// object or a list of objects inside, "workload.name". A test holds them against the
// sections.
var fields = map[string]string{
	"namespaces": "name labels labelsKnown at",
	"pods": `namespace name kind workload.namespace workload.name workload.kind labels namespaceLabels node addresses serviceAccount
		hostNetwork replicas ports[].name ports[].protocol ports[].number egressIsolated ingressIsolated at`,
	"workloads": "namespace name kind labels",
	"services":  "namespace name clusterIPs external ports[].name ports[].protocol ports[].number ports[].target pods at",
	"nodes":     "name labels addresses at",
	"policies": `group kind namespace name tier priority directions annotations opaque at rules[].direction rules[].index rules[].name
		rules[].action rules[].anyone rules[].peers rules[].cidrs rules[].ports rules[].namedPorts rules[].at`,
	"connections": `allow unknown from.namespace from.name from.kind from.cidr from.outside from.labels
		to.namespace to.name to.kind to.cidr to.outside to.labels`,
}

// worldSchema is the JSON schema of data.weir.world: which fields there are, and nothing
// else of them.
var worldSchema = sync.OnceValue(func() any {
	world := map[string]any{}
	for section, texts := range fields {
		item := map[string]any{}
		for _, field := range strings.Fields(texts) {
			outer, inner, nested := strings.Cut(field, ".")
			if !nested {
				item[field] = map[string]any{}
				continue
			}
			name, isList := strings.CutSuffix(outer, "[]")
			of, known := item[name].(map[string]any)
			if !known {
				of = objectOf(map[string]any{})
				if isList {
					of = listOf(of)
				}
				item[name] = of
			}
			if isList {
				of = of["items"].(map[string]any)
			}
			of["properties"].(map[string]any)[inner] = map[string]any{}
		}
		world[section] = listOf(objectOf(item))
	}
	return objectOf(world)
})

func objectOf(properties map[string]any) map[string]any {
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func listOf(items map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": items}
}

// describe lets a compiler know what data.weir.world is made of, by an annotation of
// each package.
func describe(modules map[string]*ast.Module) error {
	schema := worldSchema()
	is := &ast.SchemaAnnotation{Path: worldRef, Definition: &schema}
	described := map[string]bool{}
	files := make([]string, 0, len(modules))
	for file := range modules {
		files = append(files, file)
	}
	slices.Sort(files)
	for _, file := range files { // first those that have an annotation of their own
		for _, a := range modules[file].Annotations {
			if path := modules[file].Package.Path.String(); a.Scope == "package" && !described[path] {
				described[path] = true
				a.Schemas = append(a.Schemas, is)
			}
		}
	}
	for _, file := range files {
		m := modules[file]
		path := m.Package.Path.String()
		if described[path] {
			continue
		}
		described[path] = true
		donor, err := ast.ParseModuleWithOpts(file, "# METADATA\n# title: it\n"+m.Package.String()+"\n", ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			return err
		}
		a := donor.Annotations[0]
		a.Title, a.Schemas = "", []*ast.SchemaAnnotation{is}
		donor.Package.Location = m.Package.Location
		m.Package = donor.Package // which the annotation is of
		m.Annotations = append(m.Annotations, a)
	}
	return nil
}
