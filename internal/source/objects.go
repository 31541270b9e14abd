package source

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Cluster is the source that is a live cluster.
const Cluster = "cluster"

// Objects reads the objects of all sources that have a bearing on network
// policy, trimmed and in the order in which they are written. It fails where
// Load does.
func (l *Loader) Objects(ctx context.Context, sources ...string) ([]snapshot.Object, []policies.Warning, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	m, err := r.world(sources)
	if err != nil {
		return nil, nil, err
	}
	var objects []snapshot.Object
	for _, d := range r.documents {
		found, err := snapshot.Decode(d.Node)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", d.File, err)
		}
		for _, o := range found {
			version, kind := o.Kind()
			namespace, _ := o.Name()
			if !k8s.Heeds(version, kind, namespace != "") {
				continue
			}
			o = snapshot.Trim(o)
			if namespace == "" && k8s.Namespaced(version, kind) {
				o.SetNamespace(cmp.Or(l.Options.Namespace, "default"))
			}
			objects = append(objects, o)
		}
	}
	snapshot.Sort(objects)
	return objects, m.Warnings, nil
}

// cluster reads the live cluster, each object as a file of its own.
func (r *reading) cluster() error {
	if !r.once(Cluster, "") {
		return nil
	}
	world, err := cluster.Read(r.ctx, r.loader.Cluster)
	if err != nil {
		return err
	}
	for _, missing := range world.Missing {
		r.warnings = append(r.warnings, policies.Warning{Place: policies.Place{File: Cluster}, Message: missing})
	}
	for _, o := range world.Objects {
		text, err := yaml.Marshal(map[string]any(o))
		if err != nil {
			return err
		}
		namespace, name := o.Name()
		version, kind := o.Kind()
		file := strings.ReplaceAll(strings.Join([]string{Cluster, kind, namespace, name}, "/"), "//", "/")
		documents, err := k8s.Parse(file, text)
		if err != nil {
			return err
		}
		r.documents = append(r.documents, documents...)
		r.live[file] = k8s.KeyOf(version, kind, namespace, name)
	}
	return nil
}
