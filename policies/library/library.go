// Package library holds the policy packs that ship with Weir: folders of
// Invariants as YAML, and of policies in Rego with their tests. docs/packs.md says
// what is in them.
package library

import (
	"embed"
	"slices"
)

// Files has a folder for each pack.
//
//go:embed baseline cis nsa
var Files embed.FS

// Pack is a folder of Files, and what it is for.
type Pack struct{ Name, Title string }

// Packs are all of them, by name.
var Packs = []Pack{
	{"baseline", "what any cluster should hold: default deny, names, databases, metadata, control plane, tenants"},
	{"cis", "CIS Kubernetes Benchmark, section 5.3, network policies"},
	{"nsa", "NSA and CISA Kubernetes Hardening Guide, network separation and hardening"},
}

// Has reports whether there is a pack of a name.
func Has(name string) bool {
	return slices.ContainsFunc(Packs, func(p Pack) bool { return p.Name == name })
}
