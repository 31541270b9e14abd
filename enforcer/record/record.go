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
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/weir-policy/weir/enforcer/nft"
)

// Options say what to record, and where to. What is zero is chosen.
type Options struct {
	Netns int    // the node's network namespace by its file descriptor; 0 is the caller's
	Node  string // its name, as records and the world have it
	// LogGroup is the group of NFLOG to listen to, that of nft.Input.
	LogGroup uint16
	// Counters returns the counters of the table by name, which never go down but where
	// the table is loaded anew, and stay for a while when nothing counts in them any more. Without it, denials that were not logged are not known.
	Counters func() (map[string]uint64, error)
	// Dir is where files go; none are written where it is empty. The records of one
	// Recorder at a time may be there.
	Dir string
	// MaxBytes is how much of the disk all files together may take, 1 GiB; the oldest
	// goes first.
	MaxBytes int64
	// Window is how long a record adds up, 15 seconds.
	Window time.Duration
	// Level is what records leave out, as Calico's kinds of aggregation do: 0 nothing,
	// 1 source ports, 2 the names of pods and all addresses as well, 3 destination ports
	// as well.
	Level Level
	// Socket is the path of the unix socket where `weir flows observe` listens; none
	// where it is empty.
	Socket string
	// Server is the address of a server that takes flows, as `weir flows serve` does,
	// with its scheme: what is in the files is sent there, each record once. Nothing is
	// sent where it is empty. Client is how to send, http.DefaultClient.
	Server string
	Client *http.Client
	// Clock is time.Now.
	Clock func() time.Time
	// Log is called with what goes wrong and is tried again.
	Log func(error)
	// Buffer is how many bytes of events the kernel may keep, 64 MiB.
	Buffer int
}

// Level is what records leave out.
type Level int

// Generation is what is in force from some moment on.
type Generation struct {
	Number  uint64
	Since   time.Time // before the kernel was told
	Input   nft.Input
	Ruleset *nft.Ruleset
}

// Counts are what a Recorder did so far. None but Open, Readers and Unsent ever goes down.
type Counts struct {
	Started, Ended uint64            // connections that it saw begin, or there for the first time, and end
	Open           uint64            // connections that are there now
	Ignored        uint64            // connections that are no pod's of the node, and not recorded
	Denied         uint64            // packets that were denied, logged or not
	Observed       uint64            // packets that passed only because somebody is observed
	Unexplained    uint64            // connections and denials that no policy in force would have decided like that
	Records, Bytes uint64            // that were written to files
	Removed        uint64            // records in files that went to make room
	Lost           map[string]uint64 // what is in no record, or not sent, by cause
	Sent           uint64            // records that the server took
	Unsent         uint64            // bytes of files that it did not take yet
	SendFailures   uint64            // times that it could not be reached, or did not take a batch
	// Decisions are what the records up to the last window say.
	Decisions map[Decision]Decided `json:"-"`
	Readers   uint64               // who listen at the socket now
	Slow      uint64               // who listened at the socket and were too slow
	Dumps     uint64               // how often all connections were looked at
	Overflows uint64               // how often the kernel had no room for an event; a look at all connections makes up for it
}

// Recorder is what records. Run does all its work.
type Recorder struct {
	options Options
	stream  *stream
	disk    *disk
	sender  *sender // nil where nothing is sent

	mutex   sync.Mutex
	waiting []Generation // that Run has not taken yet
	first   chan struct{}
	known   Counts
}

// New returns a Recorder, which does nothing until Run.
func New(o Options) (*Recorder, error) {
	o.MaxBytes, o.Window, o.Buffer = cmp.Or(o.MaxBytes, 1<<30), cmp.Or(o.Window, 15*time.Second), cmp.Or(o.Buffer, 64<<20)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = func(error) {}
	}
	var errs []error
	if o.Level < 0 || o.Level > 3 {
		errs = append(errs, fmt.Errorf("record: level %d is none of 0 to 3", o.Level))
	}
	if o.Window < 0 || o.MaxBytes < 0 {
		errs = append(errs, errors.New("record: neither the window nor the bytes of all files may be below 0"))
	}
	r := &Recorder{options: o, first: make(chan struct{})}
	if o.Server != "" && o.Dir == "" {
		errs = append(errs, errors.New("record: what is sent is read from files, and no folder for them is named"))
	}
	r.stream, r.disk = newStream(o), newDisk(o)
	if o.Server != "" {
		r.sender = newSender(o, r.disk.lose)
		r.disk.sender = r.sender
	}
	return r, errors.Join(errs...)
}

// Enforce says what is in force from now on: it explains what happens from then on. Run
// begins with the first one, and finds what was there before.
func (r *Recorder) Enforce(g Generation) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.waiting == nil {
		select {
		case <-r.first:
		default:
			close(r.first)
		}
	}
	if len(r.waiting) == 0 {
		r.waiting = append(r.waiting, g)
		return
	}
	// Only the last one is going to be asked; it is in force since the first.
	g.Since = r.waiting[0].Since
	r.waiting[0] = g
}

// Run records until ctx ends, writes down what it knows, and returns nil. It ends early
// where the kernel cannot be listened to, or the directory or socket not be used at all.
func (r *Recorder) Run(ctx context.Context) error {
	stopStream, err := r.stream.open(ctx)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer stopStream()
	if err := turnOn(r.options.Netns); err != nil { // before anything is in force that is to be recorded
		r.options.Log(err)
	}
	remembered, err := r.disk.open()
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	select {
	case <-ctx.Done():
		return r.disk.close()
	case <-r.first:
	}
	var writing sync.WaitGroup
	done, finish := context.WithCancel(context.WithoutCancel(ctx))
	writing.Go(func() { r.disk.run(done) })
	var sending sync.WaitGroup
	sent, finishSending := context.WithCancel(context.WithoutCancel(ctx))
	if r.sender != nil {
		sending.Go(func() { r.sender.run(sent) })
	}
	err = r.listen(ctx, remembered)
	finish()
	writing.Wait()
	finishSending()
	sending.Wait()
	r.publish(nil)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// take returns the generations that came since the last time.
func (r *Recorder) take() []Generation {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	all := r.waiting
	r.waiting = []Generation{}
	return all
}

// publish makes known what a book counted.
func (r *Recorder) publish(b *book) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if b != nil {
		r.known = b.counts
		r.known.Open = uint64(b.open)
		r.known.Lost = maps.Clone(b.counts.Lost)
	}
}

// Counts returns what was done so far.
func (r *Recorder) Counts() Counts {
	r.mutex.Lock()
	c := r.known
	c.Lost = maps.Clone(c.Lost)
	r.mutex.Unlock()
	if c.Lost == nil {
		c.Lost = map[string]uint64{}
	}
	r.disk.count(&c)
	if r.sender != nil {
		r.sender.add(&c)
	}
	r.stream.count(&c)
	return c
}
