//go:build linux

package kernel

import (
	"fmt"
	"time"

	"github.com/google/nftables"

	"github.com/weir-policy/weir/enforcer/nft"
)

// keep is how long a counter stays in the table that nothing counts in any more, so that
// whoever reads counters has time to read the last it counted.
const keep = time.Minute

// retire takes note of the counters that nothing counts in since a change, and of those
// that something counts in again.
func (k *Kernel) retire(c *nft.Change) {
	if k.retired == nil {
		k.retired = map[string]time.Time{}
	}
	for _, name := range c.DeleteCounters {
		k.retired[name] = time.Now()
	}
	for _, name := range c.AddCounters {
		delete(k.retired, name)
	}
}

// retireAllBut takes note of all counters in the table but those that count.
func (k *Kernel) retireAllBut(counting []string) error {
	there, err := k.Counters()
	if err != nil {
		return err
	}
	for _, name := range counting {
		delete(there, name)
	}
	retired := make(map[string]time.Time, len(there))
	for name := range there {
		since, known := k.retired[name]
		if !known {
			since = time.Now()
		}
		retired[name] = since
	}
	k.retired = retired
	return nil
}

// deleteRetired takes away the counters that have been retired for long.
func (k *Kernel) deleteRetired(now time.Time) error {
	var old []string
	for name, since := range k.retired {
		if now.Sub(since) >= keep {
			old = append(old, name)
		}
	}
	if len(old) == 0 {
		return nil
	}
	err := k.transact(nil, func(t *transaction) error {
		for _, name := range old {
			t.conn.DeleteObject(&nftables.CounterObj{Table: t.table, Name: name})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take counters away that count nothing: %w", err)
	}
	for _, name := range old {
		delete(k.retired, name)
	}
	return nil
}
