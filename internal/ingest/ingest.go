// Package ingest takes flows that are sent over HTTP and gRPC into a flow store.
//
// A batch is answered with success only when it is part of the store. Batches of
// many senders become part of it by one commit; one that has a name is stored
// once however often it is sent. What is read and waits is bounded, and beyond
// that senders are told to come again. docs/flows-serve.md is for them.
package ingest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// Config says how flows are taken. The zero Config is fine on a loopback address:
// it lets everybody in.
type Config struct {
	// Queue is about how many bytes of memory may hold what is being read and waits
	// to be stored; 256 MiB where it is zero.
	Queue int64
	// MaxBody is the most bytes of one request, as sent and uncompressed; 32 MiB
	// where it is zero.
	MaxBody int64
	// CommitEvery is the longest that a batch waits for others, and CommitSize the
	// bytes of memory from which on they wait no more; a second and 32 MiB where
	// they are zero.
	CommitEvery time.Duration
	CommitSize  int64
	// ReadTimeout is for how long a request may take to arrive; a minute where it is
	// zero.
	ReadTimeout time.Duration
	// Drain is for how long, at the end, requests that have begun are waited for;
	// 20 seconds where it is zero.
	Drain time.Duration

	// CompactEvery is how often the store is compacted, first at once, and freed of what is older
	// than Keep or beyond KeepBytes; never where it is zero.
	CompactEvery time.Duration
	Keep         time.Duration
	KeepBytes    int64

	// TLS, if not nil, is how connections are encrypted. With ClientCAs, only those
	// who have a certificate of theirs may send.
	TLS *tls.Config
	// TokenFile, if not empty, has the bearer tokens of those who may send, one a
	// line. It is read for each request, so that they may be renewed.
	TokenFile string

	Log *slog.Logger // nowhere where it is nil
}

// Store is what is asked of a flow store.
type Store interface {
	CommitBatches(ctx context.Context, now time.Time, batches []*flowstore.Batch) ([]flowstore.Fate, error)
	Compact(ctx context.Context, now time.Time, progress flowstore.Progress) (flowstore.Compacted, error)
	Retain(ctx context.Context, now time.Time, keep flowstore.Keep) (int, error)
}

// Clock is the time of day, and waits.
type Clock interface {
	Now() time.Time
	After(time.Duration) <-chan time.Time
}

// Server takes flows.
type Server struct {
	config  Config
	store   Store
	clock   Clock
	budget  *budget
	metrics *metrics
	handler http.Handler

	queue    chan *pending
	ready    atomic.Bool
	draining chan struct{} // closed when no new request is taken any more
	stopped  chan struct{} // closed when nothing is committed any more

	mu     sync.Mutex
	taken  flowlog.Stats
	stored report.Stored
}

// New returns a Server that does nothing until it is run.
func New(config Config, store Store, clock Clock) *Server {
	config.Queue = cmp.Or(config.Queue, 256<<20)
	config.MaxBody = cmp.Or(config.MaxBody, 32<<20)
	config.CommitEvery = cmp.Or(config.CommitEvery, time.Second)
	config.CommitSize = cmp.Or(config.CommitSize, 32<<20)
	config.ReadTimeout = cmp.Or(config.ReadTimeout, time.Minute)
	config.Drain = cmp.Or(config.Drain, 20*time.Second)
	config.Log = cmp.Or(config.Log, slog.New(slog.DiscardHandler))
	s := &Server{
		config: config, store: store, clock: clock, budget: &budget{limit: config.Queue},
		queue: make(chan *pending), draining: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.metrics = newMetrics(s.budget)
	s.handler = s.routes()
	return s
}

// Run answers who connects to one of the listeners, until ctx ends or a listener
// fails; it may be called once. Every listener speaks HTTP/1.1, HTTP/2 and gRPC.
// At the end it takes no more, commits what it has, and answers that; it fails
// where this takes longer than Drain. It closes the listeners.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	web := &http.Server{
		Handler: s.handler, TLSConfig: s.config.TLS, Protocols: new(http.Protocols),
		ReadHeaderTimeout: min(10*time.Second, s.config.ReadTimeout), ReadTimeout: s.config.ReadTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetHTTP2(true)
	web.Protocols.SetUnencryptedHTTP2(s.config.TLS == nil)
	defer web.Close() //nolint:errcheck // it was shut down before, or nobody waits for it
	if s.config.TokenFile != "" {
		if _, err := readTokens(s.config.TokenFile); err != nil {
			for _, l := range listeners {
				l.Close() //nolint:errcheck // it was not used
			}
			return err
		}
	}

	commits, cancelCommits := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCommits()
	upkeep, cancelUpkeep := context.WithCancel(ctx)
	defer cancelUpkeep()
	var work sync.WaitGroup
	work.Go(func() { s.commitAll(commits) })
	work.Go(func() { s.keepUp(upkeep) })
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if s.config.TLS != nil {
				failed <- web.ServeTLS(l, "", "")
			} else {
				failed <- web.Serve(l)
			}
		}()
	}
	s.ready.Store(true)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.ready.Store(false)
	close(s.draining)
	cancelUpkeep()
	drained := make(chan struct{})
	go func() {
		web.Shutdown(commits) //nolint:errcheck // a listener that does not close is of no more use anyhow
		close(drained)
	}()
	select {
	case <-drained:
	case <-s.clock.After(s.config.Drain):
		err = errors.Join(err, fmt.Errorf("requests did not end within %s; what of them was not stored was not acknowledged either", s.config.Drain))
		cancelCommits()
	}
	close(s.stopped)
	work.Wait()
	return err
}

// Taken returns what became of all batches that were acknowledged so far.
func (s *Server) Taken() (flowlog.Stats, report.Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all flowlog.Stats
	all.Add(s.taken)
	return all, s.stored
}

// keepUp looks after the store.
func (s *Server) keepUp(ctx context.Context) {
	if s.config.CompactEvery == 0 {
		return
	}
	for {
		if err := s.compact(ctx); err != nil && ctx.Err() == nil {
			s.metrics.compactions.WithLabelValues("failed").Inc()
			s.config.Log.Error("the store could not be compacted; it is tried again later", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.clock.After(s.config.CompactEvery):
		}
	}
}

func (s *Server) compact(ctx context.Context) error {
	now := s.clock.Now()
	keep := flowstore.Keep{Bytes: s.config.KeepBytes}
	if s.config.Keep > 0 {
		keep.Since = now.Add(-s.config.Keep)
	}
	forgotten, err := s.store.Retain(ctx, now, keep)
	if err != nil {
		return err
	}
	did, err := s.store.Compact(ctx, now, nil)
	if err != nil {
		return err
	}
	s.metrics.compactions.WithLabelValues("done").Inc()
	s.config.Log.Info("compacted", "hours", did.Hours, "days", did.Days, "records", did.Records, "hoursRemoved", forgotten, "filesRemoved", did.Removed)
	return nil
}
