package ingest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

const (
	readerSize = 2 << 20 // is about what reading a body takes
	window     = 8 << 20 // is what zstd data may take in addition
	// chargeEvery is how many flows are read before their memory is counted.
	chargeEvery = 256
)

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// take reads a body and stores its flows, all that can be read or, where it
// fails, none. The caller releases the hold.
func (s *Server) take(ctx context.Context, body io.Reader, format string, key flowstore.BatchKey, h *hold) (stats flowlog.Stats, stored report.Stored, err error) {
	batch, base := flowstore.NewBatch(key), h.size+readerSize
	sent := &meter{r: body}
	head := bufio.NewReader(sent)
	if magic, _ := head.Peek(len(zstdMagic)); bytes.Equal(magic, zstdMagic) {
		base += window
	}
	text := &meter{}
	text.charge = func() error {
		if text.bytes > s.config.MaxBody {
			return tooMuch(s.config.MaxBody)
		}
		return h.to(base + text.bytes + batch.Size())
	}
	if err := h.to(base); err != nil {
		return stats, stored, err
	}
	options := flowlog.Options{Format: format, Window: window, Through: func(r io.Reader) io.Reader { text.r = r; return text }}
	stats, err = flowlog.Read(ctx, head, "body", options, func(f policies.Flow) error {
		batch.Add(&f)
		if batch.Len()%chargeEvery == 0 {
			return text.charge()
		}
		return nil
	})
	s.metrics.bytes.Add(float64(sent.bytes))
	if err != nil {
		return stats, stored, s.explainBody(err, sent.err, text.err)
	}
	if err := h.to(batch.Size()); err != nil {
		return stats, stored, err
	}
	if batch.Len() == 0 && stats.Bad > 0 {
		return stats, stored, refuse(badBody, "nothing was stored, for no record could be read, as in: %s", stats.FirstBad[0].Error())
	}
	if batch.Len() > 0 {
		if stored, err = s.put(batch); err != nil {
			return stats, stored, err
		}
	}
	s.count(stats, stored)
	return stats, stored, nil
}

// put makes a batch part of the store.
func (s *Server) put(batch *flowstore.Batch) (stored report.Stored, err error) {
	fate, err := s.save(batch)
	switch {
	case err != nil:
		return stored, err
	case fate == flowstore.Stored:
		stored.Added = uint64(batch.Len())
	case fate == flowstore.Known:
		stored.Known = uint64(batch.Len())
	case fate == flowstore.Forgotten:
		return stored, refuse(forgotten, "the batch is so far behind others of its sender that nobody knows whether it is stored; nothing was added; number batches upwards")
	}
	return stored, nil
}

// count adds a batch to the totals.
func (s *Server) count(stats flowlog.Stats, stored report.Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken.Add(stats)
	s.stored.Added += stored.Added
	s.stored.Known += stored.Known
	result := "empty"
	switch {
	case stored.Added > 0:
		result = "stored"
	case stored.Known > 0:
		result = "known"
	}
	s.metrics.batches.WithLabelValues(result).Inc()
	s.metrics.records.Add(float64(stored.Added))
	s.metrics.bad.Add(float64(stats.Bad))
}

// explainBody says why a body could not be read: as it was sent, as it was
// uncompressed, or as flows.
func (s *Server) explainBody(err, sent, text error) error {
	var known *refusal
	var tooLong *http.MaxBytesError
	var inNet net.Error
	switch {
	case errors.As(err, &known), errors.As(sent, &known), errors.As(text, &known):
		return known
	case errors.As(sent, &tooLong):
		return tooMuch(s.config.MaxBody)
	case errors.As(sent, &inNet) && inNet.Timeout():
		return refuse(slow, "the body did not arrive within %s; send smaller batches", s.config.ReadTimeout)
	}
	return refuse(badBody, "nothing was stored: %s", err)
}

func tooMuch(most int64) error {
	return refuse(tooLarge, "the body is larger than %d bytes, as sent or uncompressed; send smaller batches", most)
}

// meter counts what is read, and remembers why that ended.
type meter struct {
	r      io.Reader
	charge func() error // unless nil, may end it
	bytes  int64
	err    error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.bytes += int64(n)
	if m.charge != nil {
		if refused := m.charge(); refused != nil {
			n, err = 0, refused
		}
	}
	m.err = err
	return n, err
}

// batchHeader names a batch.
const batchHeader = "Weir-Batch"

const maxSender = 200

// keyOf reads the name of a batch; none of an empty text.
func keyOf(text string) (flowstore.BatchKey, error) {
	if text == "" {
		return flowstore.BatchKey{}, nil
	}
	slash := strings.LastIndexByte(text, '/')
	name := text[:max(0, slash)]
	sequence, err := strconv.ParseUint(text[slash+1:], 10, 64)
	odd := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || name == "" || len(name) > maxSender || odd {
		return flowstore.BatchKey{}, refuse(badRequest, "%s: %.40q is not of the form SENDER/NUMBER, as in node-7/1042", batchHeader, text)
	}
	return flowstore.BatchKey{Sender: name, Sequence: sequence}, nil
}

// reading is how reports show what was read.
func reading(s *flowlog.Stats) report.FlowReading {
	r := report.FlowReading{Records: s.Flows, Bad: s.Bad, Lost: s.Lost, LeftOut: s.Causes()}
	for _, p := range s.FirstBad {
		r.Problems = append(r.Problems, p.Error())
	}
	return r
}
