package render

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
)

// Kustomize prints a warning to standard error for each deprecated field, which
// no option turns off. So it gets to see newer fields instead, where these mean
// exactly the same. Only vars never do, and what modernPatchesJson6902 leaves.

// modern returns the content of the plan's kustomizations as Kustomize is to see
// them. Problems have been found before, so no place in them is of interest.
func (p *Plan) modern(kustomizations map[string]*types.Kustomization) (map[string][]byte, error) {
	var configured, annotated bool
	for _, k := range kustomizations {
		configured = configured || len(k.Configurations) > 0
		annotated = annotated || slices.Contains(k.BuildMetadata, types.TransformerAnnotations)
	}
	contents := map[string][]byte{}
	for file, k := range kustomizations {
		k.Resources, k.Bases = slices.Concat(k.Resources, k.Bases), nil
		k.Images, k.ImageTags = slices.Concat(k.Images, k.ImageTags), nil
		if len(k.Vars) == 0 {
			k.Vars = nil
		}
		if len(k.CommonLabels) == 0 {
			k.CommonLabels = nil
		} else if !configured { // configurations treat labels and commonLabels differently
			k.Labels = append(k.Labels, types.Label{Pairs: k.CommonLabels, IncludeSelectors: true})
			k.CommonLabels = nil
		}
		if !annotated { // these annotations name the field
			modernPatchesStrategicMerge(k, p.holdsObject(file))
			modernPatchesJson6902(k)
		}
		if file == p.file {
			p.own = slices.Contains(k.BuildMetadata, types.OriginAnnotations)
			if !p.own {
				k.BuildMetadata = append(k.BuildMetadata, types.OriginAnnotations)
			}
		}
		content, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		contents[file] = content
	}
	return contents, nil
}

// holdsObject returns whether an entry of patchesStrategicMerge in a kustomization,
// a text or the name of a file, begins with an object.
func (p *Plan) holdsObject(kustomization string) func(entry string) bool {
	return func(entry string) bool {
		data := []byte(entry)
		if !isInline(&yaml.Node{Value: entry}) {
			data, _ = fs.ReadFile(p.tree.Files, path.Join(path.Dir(kustomization), entry)) // scan has read it
		}
		var object map[string]any
		return yaml.Unmarshal(data, &object) == nil && object["kind"] != nil
	}
}

// modernPatchesStrategicMerge makes the entries the first of patches, for they
// are applied before the others. It leaves them all where one holds no object:
// only the older field takes that for an error.
func modernPatchesStrategicMerge(k *types.Kustomization, holdsObject func(entry string) bool) {
	var patches []types.Patch
	for _, entry := range k.PatchesStrategicMerge {
		text := string(entry)
		switch {
		case !holdsObject(text):
			return
		case !isInline(&yaml.Node{Value: text}):
			patches = append(patches, types.Patch{Path: text})
		case strings.HasPrefix(strings.TrimLeft(text, "\r\n"), " "): // patches lose the first line's indentation
			return
		default:
			patches = append(patches, types.Patch{Patch: text})
		}
	}
	k.Patches, k.PatchesStrategicMerge = slices.Concat(patches, k.Patches), nil
}

// modernPatchesJson6902 moves the entries to patches, though these are applied
// earlier, where nothing comes between, or to transformers, which are applied
// later, where nothing comes between there.
func modernPatchesJson6902(k *types.Kustomization) {
	unnamed := func(p types.Patch) bool { return p.Target == nil || p.Target.Name == "" } // only the older field takes it for an error
	switch {
	case len(k.PatchesJson6902) == 0:
	case slices.ContainsFunc(k.PatchesJson6902, unnamed):
		return
	case k.Namespace == "" && k.NamePrefix == "" && k.NameSuffix == "" && len(k.Labels)+len(k.CommonLabels)+len(k.CommonAnnotations) == 0:
		k.Patches = slices.Concat(k.Patches, k.PatchesJson6902)
	case len(k.Replicas)+len(k.Images)+len(k.Replacements) == 0:
		var transformers []string
		for i, p := range k.PatchesJson6902 {
			config, err := json.Marshal(map[string]any{
				"apiVersion": konfig.BuiltinPluginApiVersion,
				"kind":       "PatchJson6902Transformer",
				"metadata":   map[string]string{"name": fmt.Sprintf("weir-%d", i)},
				"target":     p.Target,
				"path":       p.Path,
				"jsonOp":     p.Patch,
			})
			if err != nil {
				return
			}
			transformers = append(transformers, string(config))
		}
		k.Transformers = slices.Concat(transformers, k.Transformers)
	default:
		return
	}
	k.PatchesJson6902 = nil
}
