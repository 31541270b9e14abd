//go:build linux

package kernel

import (
	"errors"
	"fmt"

	"github.com/weir-policy/weir/enforcer/nft"
)

// verify counts the elements of every set: a set that lost some would let through, or
// keep out, what it should not.
func (k *Kernel) verify(r *nft.Ruleset) error {
	counter, err := newCounter(k.netns)
	if err != nil {
		return fmt.Errorf("read the table back: %w", err)
	}
	return errors.Join(counter.compare(r), counter.close())
}

func (c *counter) compare(r *nft.Ruleset) error {
	var wrong []error
	for i := range r.Sets {
		s := &r.Sets[i]
		want := len(elementsOf(s, s.Elements))
		got, err := c.count(s.Name)
		switch {
		case err != nil:
			return fmt.Errorf("read set %s back: %w", s.Name, err)
		case got != want:
			wrong = append(wrong, fmt.Errorf("set %s has %d elements, not %d", s.Name, got, want))
		}
	}
	return errors.Join(wrong...)
}
