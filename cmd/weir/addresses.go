package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

// addressBook is the flags that name worlds as they were, and what follows from
// them for the ends of flows that are recorded by their address alone.
type addressBook struct {
	worlds []string // SOURCE@TIME
	leases simulator.Leases
	named  uint64            // ends that got a name
	left   map[string]uint64 // those that did not, by cause
}

func (b *addressBook) addTo(c *cobra.Command) {
	c.Flags().StringArrayVar(&b.worlds, "world", nil, "a `source` of pods and nodes, and when it was so, as in snapshot.yaml@2026-03-01T10:00:00Z (default: now): "+
		"ends recorded by their address alone get the names of those who had it then; repeatable")
}

// learn reads the worlds.
func (b *addressBook) learn(ctx context.Context, in *input, now time.Time) error {
	b.left = map[string]uint64{}
	loader, err := in.loader()
	if err != nil {
		return err
	}
	var errs []error
	for _, text := range b.worlds {
		source, at := text, now
		if i := strings.LastIndexByte(text, '@'); i >= 0 {
			if at, err = time.Parse(time.RFC3339, text[i+1:]); err != nil {
				errs = append(errs, fmt.Errorf("--world %s: %q is no time such as 2026-03-01T10:00:00Z", text, text[i+1:]))
				continue
			}
			source = text[:i]
		}
		m, err := loader.Load(ctx, source)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.leases.LearnWorld(&m.World, at)
	}
	return errors.Join(errs...)
}

// resolve names the ends of a flow that have an address alone.
func (b *addressBook) resolve(f *policies.Flow) {
	named, causes := b.leases.Resolve(f)
	b.named += uint64(named)
	for _, cause := range causes {
		b.left[cause]++
	}
}

// told returns what became of the ends, nil where no world was named.
func (b *addressBook) told() *report.Resolved {
	if len(b.worlds) == 0 {
		return nil
	}
	r := &report.Resolved{Named: b.named}
	for _, cause := range slices.Sorted(maps.Keys(b.left)) {
		r.Left = append(r.Left, simulator.Cause{Text: cause, Flows: b.left[cause]})
	}
	return r
}
