package simulator

import (
	"context"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Recorded is flows that are kept by tuple.
type Recorded interface {
	// Tuples calls each for every tuple. The Tuple is valid until each returns.
	Tuples(ctx context.Context, each func(*Tuple) error) error
	// Flows calls each for every record of the tuples with these IDs, which are sorted.
	Flows(ctx context.Context, tuples []uint64, each func(policies.Flow) error) error
}

// Tuple is all that was recorded between two identities on one port.
type Tuple struct {
	ID    uint64
	Flow  policies.Flow // its ends, protocol and port; an end's address is set only where all records have the same
	Hours []Hour        // in order of time
}

// Hour is what one side reported of a tuple in one hour, with one verdict.
type Hour struct {
	Start        time.Time
	Reporter     policies.Reporter
	Verdict      policies.Verdict
	EgressOnly   bool
	Flows, Bytes uint64
	First, Last  time.Time
}
