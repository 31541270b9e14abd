package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies/library"
)

func newPacks(s streams) *cobra.Command {
	out := output{streams: s, kind: report.KindPackList}
	c := &cobra.Command{
		Use:   "packs [PACK...]",
		Short: "List the policy packs, and what is in one",
		Long: `List the policy packs that ship with Weir, with the invariants in them. PACK is one
of these, a folder of Invariants and of Rego, or a bundle of OPA (.tar.gz).

weir check --pack and weir preview --pack check what they say; docs/packs.md tells how to write one.`,
		Example: `  weir packs
  weir packs baseline -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			titles := map[string]string{}
			all := len(args) == 0
			for _, p := range library.Packs {
				titles[p.Name] = p.Title
				if all {
					args = append(args, p.Name)
				}
			}
			packs, err := source.ReadPacks(c.Context(), args...)
			if err != nil {
				return err
			}
			var list []report.Pack
			for _, p := range packs {
				list = append(list, report.Pack{Name: p.Name, Title: titles[p.Name], Invariants: p.Invariants})
			}
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WritePacks(w, f, list, style)
			})
		},
	}
	out.addTo(c)
	c.ValidArgs = packNames()
	return c
}

// packFlags is the flags by which a verb names policy packs.
type packFlags struct{ names []string }

func (p *packFlags) addTo(c *cobra.Command, usage string) {
	c.Flags().StringSliceVar(&p.names, "pack", nil, usage)
	completeList(c, "pack", packNames()...)
}

func packNames() []string {
	var names []string
	for _, p := range library.Packs {
		names = append(names, p.Name)
	}
	return names
}
