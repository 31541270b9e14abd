package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies/library"
)

func newPacks(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindPackList}, packFlags{}
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
			packs, err := flags.read(c.Context(), s, args...)
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
	flags.addVerificationTo(c)
	c.ValidArgs = packNames()
	return c
}

// packFlags is the flags by which a verb names policy packs.
type packFlags struct {
	names                     []string
	flags                     *pflag.FlagSet // nil where the packs are arguments
	key, keyID, signed, scope string
}

func (p *packFlags) addTo(c *cobra.Command, usage string) {
	p.flags = c.Flags()
	p.flags.StringSliceVar(&p.names, "pack", nil, usage)
	completeList(c, "pack", packNames()...)
	p.addVerificationTo(c)
}

// addVerificationTo adds the flags by which signatures of bundles are verified, named
// as OPA names them.
func (p *packFlags) addVerificationTo(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.key, "verification-key", "", "bundles must be signed by this `key`: a secret (HMAC), or the PEM file of a public key (RSA, ECDSA)")
	f.StringVar(&p.keyID, "verification-key-id", "default", "the `name` that signatures call the key by")
	f.StringVar(&p.signed, "signing-alg", "RS256", "the `algorithm` that bundles are signed by")
	f.StringVar(&p.scope, "scope", "", "the `scope` that signatures must be of")
}

// verification returns what signatures of bundles are verified by; nil without a key. It
// fails where a pack has no name, as where a variable is not set.
func (p *packFlags) verification() (*source.Verification, error) {
	if p.flags != nil && p.flags.Changed("pack") && (len(p.names) == 0 || slices.Contains(p.names, "")) {
		return nil, errors.New("--pack: the name of a pack is empty; weir packs lists those that there are")
	}
	if p.key == "" {
		return nil, nil
	}
	if !keys.IsSupportedAlgorithm(p.signed) {
		return nil, fmt.Errorf("--signing-alg: %q is none that OPA signs by, such as RS256, ES256 or HS256", p.signed)
	}
	key, err := keys.NewKeyConfig(p.key, p.signed, p.scope)
	if err != nil {
		return nil, fmt.Errorf("--verification-key: %w", err)
	}
	return bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{p.keyID: key}, p.keyID, p.scope, nil), nil
}

// read reads some packs.
func (p *packFlags) read(ctx context.Context, s streams, names ...string) ([]*source.Pack, error) {
	v, err := p.verification()
	if err != nil {
		return nil, err
	}
	packs, err := source.ReadPacks(ctx, v, names...)
	notice(s, packs...)
	return packs, err
}

// notice tells of signatures that nobody looked at.
func notice(s streams, packs ...*source.Pack) {
	for _, p := range packs {
		if p.Unverified {
			fmt.Fprintf(s.err, "notice: %s is signed, and its signature was not verified; name the key by --verification-key\n", p.Name)
		}
	}
}

func packNames() []string {
	var names []string
	for _, p := range library.Packs {
		names = append(names, p.Name)
	}
	return names
}
