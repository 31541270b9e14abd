//go:build linux

package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowline"
)

// stream tells whoever listens at a socket what happens, a flow a line. Nobody who is
// slow keeps others waiting, or the recorder: they are dropped.
type stream struct {
	options Options
	queue   chan policies.Flow
	there   atomic.Int64 // readers
	slow    atomic.Uint64
	missed  atomic.Uint64 // flows that found no room in the queue

	mutex   sync.Mutex
	readers map[*reader]bool
}

// reader is one who listens.
type reader struct {
	conn  net.Conn
	lines chan []byte
}

const (
	mostQueued = 1 << 14 // flows that wait to be told
	mostLines  = 1 << 13 // lines that wait for one reader
	mostSlow   = 5 * time.Second
)

const lostStream = "flows that came faster than they could be told"

func newStream(o Options) *stream {
	return &stream{options: o, queue: make(chan policies.Flow, mostQueued), readers: map[*reader]bool{}}
}

// told tells of an event, if anybody listens.
func (s *stream) told(what *story, e event) {
	if s.there.Load() == 0 {
		return
	}
	f := flowOf(line{what, e.sourcePort}, &e.sum)
	f.First, f.Last = time.Unix(0, e.at), time.Unix(0, e.at)
	f.Origin.Window = 0
	select {
	case s.queue <- f:
	default:
		s.missed.Add(1)
	}
}

// open opens the socket until what it returns is called.
func (s *stream) open(ctx context.Context) (stop func(), err error) {
	if s.options.Socket == "" {
		return func() {}, nil
	}
	if conn, err := net.Dial("unix", s.options.Socket); err == nil {
		return nil, errors.Join(fmt.Errorf("%s: another agent listens here", s.options.Socket), conn.Close())
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(s.options.Socket), 0o755), os.RemoveAll(s.options.Socket)); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", s.options.Socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.options.Socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { s.accept(ctx, l, &work) })
	work.Go(func() { s.pass(ctx) })
	return func() {
		cancel()
		if err := l.Close(); err != nil {
			s.options.Log(fmt.Errorf("%s: %w", s.options.Socket, err))
		}
		work.Wait()
	}, nil
}

// accept takes readers in.
func (s *stream) accept(ctx context.Context, l net.Listener, work *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				s.options.Log(fmt.Errorf("%s: %w; nobody else can listen", s.options.Socket, err))
			}
			return
		}
		r := &reader{conn, make(chan []byte, mostLines)}
		s.mutex.Lock()
		s.readers[r] = true
		s.there.Add(1)
		s.mutex.Unlock()
		gone, left := context.WithCancel(ctx)
		work.Go(func() {
			s.write(gone, r)
			s.drop(r)
			left()
			r.conn.Close() //nolint:errcheck // it is open or closed
		})
		work.Go(func() {
			// A reader says nothing; this ends when it leaves.
			r.conn.Read(make([]byte, 1)) //nolint:errcheck // whatever it is, that is the end
			left()
		})
	}
}

// write tells one reader what comes.
func (s *stream) write(ctx context.Context, r *reader) {
	out := bufio.NewWriterSize(r.conn, 1<<16)
	for {
		select {
		case <-ctx.Done():
			return
		case text, ok := <-r.lines:
			if !ok {
				return
			}
			out.Write(text)
		}
		if len(r.lines) > 0 {
			continue
		}
		if r.conn.SetWriteDeadline(time.Now().Add(mostSlow)) != nil || out.Flush() != nil {
			return
		}
	}
}

// drop ends a reader, and reports whether it was there.
func (s *stream) drop(r *reader) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.readers[r] {
		return false
	}
	delete(s.readers, r)
	s.there.Add(-1)
	return true
}

// pass hands what is told on to all readers.
func (s *stream) pass(ctx context.Context) {
	missed := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.queue:
			s.tell(flowline.Encode(f))
		}
		if n := s.missed.Load(); n > missed {
			s.tell(flowline.EncodeLoss(flowline.Loss{Node: s.options.Node, Last: s.options.Clock(), Cause: lostStream, Count: n - missed}))
			missed = n
		}
	}
}

// tell tells all readers a line.
func (s *stream) tell(text []byte, err error) {
	if err != nil {
		s.options.Log(err)
		return
	}
	text = append(text, '\n')
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for r := range s.readers {
		select {
		case r.lines <- text:
		default:
			delete(s.readers, r)
			s.there.Add(-1)
			s.slow.Add(1)
			r.conn.Close() //nolint:errcheck // nobody is there to be told
		}
	}
}

// count adds to what is counted.
func (s *stream) count(c *Counts) {
	c.Readers, c.Slow = uint64(max(0, s.there.Load())), s.slow.Load()
	if n := s.missed.Load(); n > 0 {
		c.Lost[lostStream] += n
	}
}
