// Package webhook answers an API server that asks whether a change may be stored.
//
// A change is decided about in the world as it would be with it, and with those that
// were admitted before and have not been seen yet, so that two changes, each fine
// alone, cannot break an invariant together. One replica decides, see Lease; the
// others hand on what they are asked.
//
// It owns what is admitted and pending, and what a person is told. How invariants
// stand it asks package standing; nothing is written while a request is decided.
package webhook
