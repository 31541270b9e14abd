package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlisten"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// listenTo adds what arrives at an address to a store, until ctx ends. Flows that
// were received until then are stored.
func (f *flowFiles) listenTo(ctx context.Context, address string, s streams, to *flowStore, every time.Duration) (stats flowlog.Stats, stored report.Stored, err error) {
	store, done, err := to.openToWrite(ctx, s)
	if err != nil {
		return stats, stored, err
	}
	defer func() { err = errors.Join(err, done()) }()
	l, err := flowlisten.Open(address, flowlisten.Options{Flows: f.options})
	if err != nil {
		return stats, stored, err
	}
	fmt.Fprintf(s.err, "listening at %s; interrupt to end\n", l.Address())
	into := &steady{writer: store.newWriter(), failed: func(err error) { fmt.Fprintf(s.err, "%v; it is tried again\n", err) }}
	stop := into.commitEvery(ctx, every)
	// What was received is stored also when the listener is interrupted.
	lasting := context.WithoutCancel(ctx)
	stats, err = l.Run(ctx, f.resolved(func(flow policies.Flow) error { return into.add(lasting, &flow) }))
	stop()
	if errLast := into.commit(lasting); errLast != nil {
		err = errors.Join(err, fmt.Errorf("the last %d flows received are not stored: %w", into.waiting, errLast))
	}
	stored.Added = into.received - into.waiting
	return stats, stored, err
}

// steady adds flows that come without an end to a store, some at a time.
type steady struct {
	failed func(error) // told of commits that are tried again

	mu       sync.Mutex
	writer   flowWriter
	received uint64
	waiting  uint64 // at most: some of them may be stored
}

func (s *steady) add(ctx context.Context, f *policies.Flow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received++
	s.waiting++
	return s.writer.Add(ctx, f)
}

func (s *steady) commit(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 {
		return nil
	}
	err := s.writer.Commit(ctx)
	if err == nil {
		s.waiting = 0
	}
	return err
}

// commitEvery commits now and then, until what it returns is called.
func (s *steady) commitEvery(ctx context.Context, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
				if err := s.commit(context.WithoutCancel(ctx)); err != nil {
					s.failed(err)
				}
			}
		}
	})
	return func() { cancel(); work.Wait() }
}
