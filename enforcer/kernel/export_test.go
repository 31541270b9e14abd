//go:build linux

package kernel

import "time"

// Age makes the counters that nothing counts in older.
func (k *Kernel) Age(by time.Duration) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for name, since := range k.retired {
		k.retired[name] = since.Add(-by)
	}
}
