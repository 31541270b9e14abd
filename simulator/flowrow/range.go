package flowrow

import "time"

// Range is a span of time, from Since, included, to Until, excluded. A zero time
// is no bound. A flow is of the time at which it was first seen.
type Range struct{ Since, Until time.Time }

// Micros returns the bounds as columns have them.
func (r Range) Micros() (since, until int64) {
	since, until = -1<<63, 1<<63-1
	if !r.Since.IsZero() {
		since = r.Since.UnixMicro()
	}
	if !r.Until.IsZero() {
		until = r.Until.UnixMicro()
	}
	return since, until
}

// NoTime is when a record was first seen that does not say when, as columns have
// it: the year 1.
const NoTime = -62135596800000000
