package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/weir-policy/weir/simulator/flowstore"
)

// budget is the memory that all requests share.
type budget struct {
	limit int64

	mu   sync.Mutex
	used int64
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// hold is the part of a budget that one request has. It is not safe for
// concurrent use.
type hold struct {
	of   *budget
	size int64
}

// to makes the hold as large as it is asked to be, or refuses the request and
// changes nothing.
func (h *hold) to(size int64) error {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	switch more := size - h.size; {
	case size > h.of.limit:
		return refuse(tooLarge, "the batch needs more memory than there is for all (%d MiB); send smaller ones", h.of.limit>>20)
	case more > 0 && h.of.used+more > h.of.limit:
		return refuse(full, "too much waits to be stored; send it again later")
	default:
		h.of.used += more
		h.size = size
	}
	return nil
}

// release gives everything back.
func (h *hold) release() {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.used -= h.size
	h.size = 0
}

// pending is a batch that waits to be stored.
type pending struct {
	batch *flowstore.Batch
	size  int64
	done  chan outcome // takes one
}

type outcome struct {
	fate flowstore.Fate
	err  error
}

// save returns when the batch is in the store, or why it is not.
func (s *Server) save(b *flowstore.Batch) (flowstore.Fate, error) {
	p := &pending{batch: b, size: b.Size(), done: make(chan outcome, 1)}
	select {
	case s.queue <- p:
		o := <-p.done
		return o.fate, o.err
	case <-s.stopped:
		return flowstore.NotStored, refuse(stopping, "the server stops; send it again later")
	}
}

// commitAll commits batches as they come.
func (s *Server) commitAll(ctx context.Context) {
	for {
		select {
		case p := <-s.queue:
			s.commit(ctx, s.gather(p))
		case <-s.stopped:
			return
		}
	}
}

// gather waits for more batches to be committed with the first.
func (s *Server) gather(first *pending) []*pending {
	group, size := []*pending{first}, first.size
	over := s.clock.After(s.config.CommitEvery)
	for size < s.config.CommitSize {
		var next *pending
		select {
		case next = <-s.queue:
		case <-over:
			return group
		case <-s.draining: // nobody who is not here yet is waited for
			select {
			case next = <-s.queue:
			default:
				return group
			}
		}
		group = append(group, next)
		size += next.size
	}
	return group
}

func (s *Server) commit(ctx context.Context, group []*pending) {
	batches := make([]*flowstore.Batch, len(group))
	for i, p := range group {
		batches[i] = p.batch
	}
	began := s.clock.Now()
	fates, err := s.store.CommitBatches(ctx, began, batches)
	s.metrics.commits.Observe(s.clock.Now().Sub(began).Seconds())
	if err != nil {
		s.metrics.failures.Inc()
		s.config.Log.Error("a commit failed; its senders are asked to come again", "batches", len(group), "error", err)
		err = explain(ctx, err)
	}
	for i, p := range group {
		o := outcome{err: err}
		if err == nil {
			o.fate = fates[i]
		}
		p.done <- o
	}
}

// explain says what an error of the store means for a sender, who need not know
// how the store is reached.
func explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, flowstore.ErrNoSpace):
		return refuse(noSpace, "the disk of the store is full; nothing of the batch was stored; send it again later")
	case ctx.Err() != nil:
		return refuse(stopping, "the server stops; send it again later")
	}
	return refuse(noStore, "the store cannot be written just now; send it again later")
}

// refusal is why a request is not done.
type refusal struct {
	*cause
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(c *cause, format string, args ...any) error {
	return &refusal{c, fmt.Sprintf(format, args...)}
}
