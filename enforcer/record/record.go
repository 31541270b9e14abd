//go:build linux

// Package record remembers what a node's pods said to whom.
//
// It listens to what the kernel tells of connections and of packets that were denied,
// says of each who it was and which rule decided, adds them up over a window, and writes
// them as Weir's flow records to files that never take more than so much of the disk, and
// to whoever listens at a socket. It never slows the kernel down, and never loses
// silently: whatever it could not record is counted, and written down as lost.
package record

import (
	"context"
	"time"

	"github.com/weir-policy/weir/enforcer/nft"
)

// Options say what to record, and where to. What is zero is chosen.
type Options struct {
	Netns int    // the node's network namespace by its file descriptor; 0 is the caller's
	Node  string // its name, as records have it
	// LogGroup is the group of NFLOG to listen to, that of nft.Input; 0 listens to none.
	LogGroup uint16
	// Counters returns the counters of the table by name; without it, denials that were
	// not logged are not counted.
	Counters func() (map[string]uint64, error)
	// Dir is where files go; none are written where it is empty. The records of one
	// Recorder at a time may be there.
	Dir string
	// MaxBytes is how much of the disk all files together may take, 1 GiB; the oldest
	// goes first.
	MaxBytes int64
	// Window is how long a record adds up, 15 seconds, and Level what it leaves out, as
	// Calico's aggregation kinds do: 0 nothing, 1 source ports, 2 the names and addresses
	// of pods and addresses outside as well, 3 destination ports as well.
	Window time.Duration
	Level  Level
	// Socket is the path of the unix socket where `weir flows observe` listens; none
	// where it is empty.
	Socket string
	// Clock is time.Now.
	Clock func() time.Time
	// Log is called with what went wrong and is tried again.
	Log func(error)
}

// Level is what records leave out.
type Level uint8

// Generation is what is in force from some moment on.
type Generation struct {
	Number  uint64
	Since   time.Time
	Input   nft.Input
	Ruleset *nft.Ruleset
}

// Counts are what a Recorder did so far; none of them ever goes down.
type Counts struct {
	Started, Ended  uint64            // connections that it saw begin, and end
	Open            uint64            // connections that are there now
	Ignored         uint64            // connections that are no pod's, and so are not recorded
	Denied          uint64            // packets that were denied, logged or not
	Observed        uint64            // packets that passed only because somebody is observed, logged or not
	Records, Bytes  uint64            // that were written to files
	Lost            map[string]uint64 // what is not in the records, by cause
	Readers         uint64            // who listen at the socket now
	Dumps, Overflow uint64            // how often all connections were looked at, and how often there was no room for an event
}

// Recorder is what records. Run does all its work.
type Recorder struct{ options Options }

// New returns a Recorder, which does nothing until Run.
func New(o Options) (*Recorder, error) { return &Recorder{options: o}, nil }

// Run records until ctx ends, and then writes down what it knows.
func (r *Recorder) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Enforce says what is in force from now on: what comes later is explained by it.
func (r *Recorder) Enforce(g Generation) {}

// Counts returns the counts.
func (r *Recorder) Counts() Counts { return Counts{} }
