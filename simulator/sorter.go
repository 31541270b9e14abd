package simulator

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Scratch is room for what does not fit in memory, for one who writes it and then
// reads it. It is empty at first, and gone when it is closed.
type Scratch interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

// sorter puts values in order. It holds some at a time; the rest is on a Scratch,
// in runs that are in order.
type sorter[T any] struct {
	open    func() (Scratch, error) // nil where all is held
	most    int                     // that are held at a time
	compare func(a, b *T) int       // of those that are equal, any may be first
	append  func(b []byte, v *T) []byte
	read    func(b []byte) (T, error)

	held  []T
	order []int32 // of what is held
	file  *spool
	runs  []run
	text  []byte
}

// run is where on a spool values stand in order.
type run struct{ from, to int64 }

// mostRuns is how many runs are read at a time. Each takes a buffer of runBuffer bytes.
const (
	mostRuns  = 128
	runBuffer = 1 << 14
)

func (s *sorter[T]) add(v T) error {
	s.held = append(s.held, v)
	if s.open == nil || len(s.held) < s.most {
		return nil
	}
	return s.spill()
}

// spill writes what is held as a run.
func (s *sorter[T]) spill() (err error) {
	if len(s.held) == 0 {
		return nil
	}
	if s.file == nil {
		if s.file, err = newSpool(s.open); err != nil {
			return err
		}
	}
	from := s.file.size
	for _, i := range s.sort() {
		s.text = s.append(s.text[:0], &s.held[i])
		if err := s.file.write(s.text); err != nil {
			return err
		}
	}
	clear(s.held)
	s.held, s.runs = s.held[:0], append(s.runs, run{from, s.file.size})
	if err := s.file.flush(); err != nil || len(s.runs) < mostRuns {
		return err
	}
	return s.join()
}

// sort returns the places of what is held, in order. They are the same until more is.
func (s *sorter[T]) sort() []int32 {
	s.order = s.order[:0]
	for i := range s.held {
		s.order = append(s.order, int32(i))
	}
	slices.SortFunc(s.order, func(i, j int32) int { return s.compare(&s.held[i], &s.held[j]) })
	return s.order
}

// join makes one of all runs, on a Scratch of its own.
func (s *sorter[T]) join() error {
	joined, err := newSpool(s.open)
	if err != nil {
		return err
	}
	err = s.merge(func(v *T) error {
		s.text = s.append(s.text[:0], v)
		return joined.write(s.text)
	})
	if err = errors.Join(err, joined.flush()); err != nil {
		return errors.Join(err, joined.Close())
	}
	err = s.file.Close()
	s.file, s.runs = joined, []run{{0, joined.size}}
	return err
}

// each calls take for all values in order. They may be changed.
func (s *sorter[T]) each(take func(*T) error) error {
	if len(s.runs) > 0 {
		return s.merge(take)
	}
	for _, i := range s.sort() {
		if err := take(&s.held[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *sorter[T]) isEmpty() bool { return len(s.held)+len(s.runs) == 0 }

// close gives up what there is.
func (s *sorter[T]) close() error {
	s.held, s.runs = nil, nil
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return file.Close()
}

// eachJoined is each for what values come to that are equal. They must not be changed.
func (s *sorter[T]) eachJoined(join func(to, of *T), take func(*T) error) error {
	var one *T
	err := s.each(func(next *T) error {
		if one != nil && s.compare(one, next) == 0 {
			join(one, next)
			return nil
		}
		last, copied := one, *next
		one = &copied
		if last == nil {
			return nil
		}
		return take(last)
	})
	if err == nil && one != nil {
		err = take(one)
	}
	return err
}

// all yields the values in order, or as many as it takes until one fails.
func (s *sorter[T]) all(failed *error) iter.Seq[T] {
	return func(yield func(T) bool) {
		err := s.each(func(v *T) error {
			if !yield(*v) {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			*failed = errors.Join(*failed, err)
		}
	}
}

// merge is each where there are runs.
func (s *sorter[T]) merge(take func(*T) error) error {
	if len(s.held) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	var live []*runReader[T]
	order := func(a, b *runReader[T]) int { return cmp.Or(s.compare(&a.value, &b.value), cmp.Compare(a.run, b.run)) }
	for i, at := range s.runs {
		r := &runReader[T]{run: i, spoolReader: s.file.reader(at), read: s.read}
		more, err := r.next()
		if err != nil {
			return err
		}
		if more {
			live = append(live, r)
		}
	}
	slices.SortFunc(live, order)
	for len(live) > 0 {
		first := live[0]
		if err := take(&first.value); err != nil {
			return err
		}
		more, err := first.next()
		if err != nil {
			return err
		}
		if !more {
			live = live[1:]
			continue
		}
		at, _ := slices.BinarySearchFunc(live[1:], first, order)
		copy(live, live[1:1+at])
		live[at] = first
	}
	return nil
}

// runReader reads the values of a run.
type runReader[T any] struct {
	*spoolReader
	read  func([]byte) (T, error)
	run   int
	value T
}

func (r *runReader[T]) next() (more bool, err error) {
	text, err := r.spoolReader.next()
	if err != nil || text == nil {
		return false, err
	}
	r.value, err = r.read(text)
	return err == nil, err
}

// spool writes values to a Scratch, one after another.
type spool struct {
	Scratch
	out  *bufio.Writer
	size int64 // of what was written
}

func newSpool(open func() (Scratch, error)) (*spool, error) {
	file, err := open()
	if err != nil {
		return nil, err
	}
	return &spool{Scratch: file, out: bufio.NewWriterSize(file, runBuffer)}, nil
}

// flush is to be called before what was written is read.
func (s *spool) flush() error { return s.out.Flush() }

func (s *spool) write(text []byte) error {
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(text)))
	s.size += int64(n + len(text))
	if _, err := s.out.Write(length[:n]); err != nil {
		return err
	}
	_, err := s.out.Write(text)
	return err
}

func (s *spool) reader(at run) *spoolReader {
	return &spoolReader{in: bufio.NewReaderSize(io.NewSectionReader(s.Scratch, at.from, at.to-at.from), runBuffer)}
}

// spoolReader reads what was written to a part of a spool.
type spoolReader struct {
	in   *bufio.Reader
	text []byte
}

// next returns the next value, which is valid until the next call; nil at the end.
func (r *spoolReader) next() ([]byte, error) {
	length, err := binary.ReadUvarint(r.in)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		r.text = slices.Grow(r.text[:0], int(length))[:length]
		_, err = io.ReadFull(r.in, r.text)
	}
	if err != nil {
		return nil, fmt.Errorf("read what did not fit in memory: %w", err)
	}
	return r.text, nil
}
