//go:build linux

package record

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/klauspost/compress/zstd"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/weir-policy/weir/simulator/flowline"
)

// sender sends what is in the files to a server that takes flows, in batches of whole
// frames, each of which has a name so that it is stored once. Which frames a batch is
// stands in a file of its own before it is sent, so that it is the same ones after a
// restart.
type sender struct {
	options Options
	client  *retryablehttp.Client
	unpack  *zstd.Decoder
	news    chan struct{}
	lose    func(cause string, n uint64)

	mutex    sync.Mutex
	files    []file // that are written and noted, the oldest first
	gone     string // the newest file that went to make room
	sent     uint64 // records that a server took
	failures uint64 // answers that were none, or said later
	at       batch
	told     string // the last problem that was told

	// Only run uses these.
	most   int64 // of a batch's text
	noted  batch // what is written down
	unsure bool  // whether the batch at hand may have been taken already
}

// batch is what is sent at once.
type batch struct {
	Sender string `json:"sender"`
	Number uint64 `json:"number"`
	// File is where its frames are, From and up to To. They are equal while there is no
	// batch at hand.
	File string `json:"file"`
	From int64  `json:"from"`
	To   int64  `json:"to"`
	// Before is how many records of the file are before it, and Records in it.
	Before  uint64 `json:"before"`
	Records uint64 `json:"records"`
}

const (
	sentName = "sent"
	// mostText is about how much a batch is unpacked: well below what servers take.
	mostText = 8 << 20
	// farewell is for how long the last records are sent when a Recorder ends. The next
	// one sends what is left.
	farewell = 5 * time.Second

	lostUnsent  = "records that went to make room before a server took them"
	lostRefused = "records that a server refused, or could not be read again"
)

func newSender(o Options, lose func(cause string, n uint64)) *sender {
	s := &sender{options: o, client: retryablehttp.NewClient(), news: make(chan struct{}, 1), lose: lose, most: mostText}
	s.client.Logger, s.client.RetryMax, s.client.RetryWaitMin, s.client.RetryWaitMax = nil, math.MaxInt, time.Second, time.Minute
	s.client.CheckRetry, s.client.ErrorHandler = s.again, retryablehttp.PassthroughErrorHandler
	if o.Client != nil {
		s.client.HTTPClient = o.Client
	}
	return s
}

// wrote takes what is in the files now.
func (s *sender) wrote(files []file) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.files = slices.Clone(files)
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// went takes that a file went to make room, and counts what of it was neither sent nor is
// at hand.
func (s *sender) went(f file) {
	s.mutex.Lock()
	s.gone = f.Name
	unsent := f.Records
	switch {
	case f.Name < s.at.File:
		unsent = 0
	case f.Name == s.at.File:
		unsent -= min(unsent, s.at.Before+s.at.Records)
	}
	s.mutex.Unlock()
	s.lose(lostUnsent, unsent)
}

// run sends until ctx ends, and then for a moment what is left.
func (s *sender) run(ctx context.Context) {
	var err error
	if s.unpack, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
		s.tell(err)
		return
	}
	defer s.unpack.Close()
	s.begin()
	for ctx.Err() == nil {
		s.sendAll(ctx)
		select {
		case <-ctx.Done():
		case <-s.news:
		}
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer stop()
	s.sendAll(last)
}

// begin finds out how far the last sender came. One that cannot be told from others takes
// a name of its own.
func (s *sender) begin() {
	text, err := os.ReadFile(s.path(sentName))
	b := batch{}
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil || b.Sender == "" {
		if !errors.Is(err, fs.ErrNotExist) {
			s.tell(fmt.Errorf("%s: %w; all records are sent as if they were new", s.path(sentName), cmp.Or(err, errors.New("it names no sender"))))
		}
		b = batch{Sender: cmp.Or(s.options.Node, "agent") + "." + rand.String(10)}
	}
	s.noted, s.unsure = b, b.To > b.From
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.at = b
}

func (s *sender) path(name string) string { return s.options.Dir + "/" + name }

// sendAll sends all there is until ctx ends.
func (s *sender) sendAll(ctx context.Context) {
	for ctx.Err() == nil {
		body, err := s.next()
		switch {
		case err != nil:
			s.tell(err)
			return // until more is written
		case body == nil:
			return
		case !s.send(ctx, body):
			return
		}
	}
}

// next chooses the next batch, unless there is one at hand, and returns its frames; nil
// where all is sent.
func (s *sender) next() ([]byte, error) {
	for {
		f, ok := s.current()
		if !ok {
			return nil, s.note()
		}
		body, err := s.read(f)
		switch damage := (*damageError)(nil); {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil // it went, and others are told of in a moment
		case errors.As(err, &damage):
			s.tell(fmt.Errorf("%s: %w; what is left of it is not sent", s.path(f.Name), err))
			s.lose(lostRefused, s.skip(f))
		case err != nil:
			return nil, err
		default:
			return body, s.note()
		}
	}
}

// damageError is one of what is in a file, and not of reading it.
type damageError struct {
	at  int64
	err error
}

func (e *damageError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.err) }
func (e *damageError) Unwrap() error { return e.err }

// abandon counts the batch at hand as lost if its file is gone: what it was is known, and
// maybe a server has it, but it cannot be sent again.
func (s *sender) abandon() {
	s.mutex.Lock()
	isGone := s.at.To > s.at.From && !slices.ContainsFunc(s.files, func(f file) bool { return f.Name == s.at.File })
	s.mutex.Unlock()
	if isGone {
		s.lose(lostUnsent, s.at.Records)
		s.advance(s.at.To, 0)
	}
}

// current returns the file that is to be sent next, from where the batch begins.
func (s *sender) current() (file, bool) {
	s.abandon()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, f := range s.files {
		switch {
		case f.Name < s.at.File || f.Name == s.at.File && s.at.From >= f.Bytes:
			continue
		case f.Name > s.at.File:
			s.at.File, s.at.From, s.at.To, s.at.Before, s.at.Records = f.Name, 0, 0, 0, 0
		}
		return f, true
	}
	return file{}, false
}

// read returns the frames of the batch at hand, or of the next one of a file.
func (s *sender) read(f file) ([]byte, error) {
	from, err := os.Open(s.path(f.Name))
	if err != nil {
		return nil, err
	}
	defer from.Close()
	end := f.Bytes
	if s.at.To > s.at.From {
		end = s.at.To
	}
	var body []byte
	text, at := int64(0), s.at.From
	for at < end {
		frame, size, err := readFrame(io.NewSectionReader(from, at, end-at))
		if err != nil {
			return nil, &damageError{at, err}
		}
		if text += size; text > s.most && body != nil && s.at.To <= s.at.From {
			break
		}
		body = append(body, frame...)
		at += int64(len(frame))
	}
	records, err := s.count(body)
	if err != nil {
		return nil, &damageError{s.at.From, err}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if f.Name <= s.gone && s.at.To <= s.at.From {
		return nil, fs.ErrNotExist // and is counted already
	}
	s.at.To, s.at.Records = at, records
	return body, nil
}

// count returns how many records are in some frames.
func (s *sender) count(frames []byte) (n uint64, err error) {
	text, err := s.unpack.DecodeAll(frames, nil)
	for line := range bytes.Lines(text) {
		if !flowline.IsLoss(line) {
			n++
		}
	}
	return n, err
}

// readFrame returns the frame of zstd that comes next, and how long it is unpacked, see
// RFC 8878, section 3.1.1.
func readFrame(r io.Reader) (frame []byte, text int64, err error) {
	frame = make([]byte, zstd.HeaderMaxSize)
	n, err := io.ReadFull(r, frame)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, 0, err
	}
	var h zstd.Header
	if err := h.Decode(frame[:n]); err != nil {
		return nil, 0, err
	}
	if h.Skippable {
		return nil, 0, errors.New("no frame of records begins there")
	}
	if text = int64(h.FrameContentSize); !h.HasFCS {
		text = 1<<8 - 1 // the encoder says how long all others are
	}
	r, frame = io.MultiReader(bytes.NewReader(slices.Clone(frame[h.HeaderSize:n])), r), frame[:h.HeaderSize]
	take := func(n int) error {
		at := len(frame)
		frame = slices.Grow(frame, n)[:at+n]
		_, err := io.ReadFull(r, frame[at:])
		return err
	}
	for last := false; !last; {
		if err := take(3); err != nil {
			return nil, 0, err
		}
		head := frame[len(frame)-3:]
		block := uint32(head[0]) | uint32(head[1])<<8 | uint32(head[2])<<16
		last = block&1 != 0
		size := int(block >> 3)
		if isRepeated := block>>1&3 == 1; isRepeated {
			size = 1
		}
		if err := take(size); err != nil {
			return nil, 0, err
		}
	}
	if h.HasCheckSum {
		if err := take(4); err != nil {
			return nil, 0, err
		}
	}
	return frame, text, nil
}

// note writes down which batch is at hand.
func (s *sender) note() error {
	if s.at == s.noted {
		return nil
	}
	text, err := json.Marshal(s.at)
	if err != nil {
		return err
	}
	name := s.path(sentName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	s.noted = s.at
	return nil
}

// send sends the batch at hand until a server takes or refuses it, and reports whether
// one did before ctx ended.
func (s *sender) send(ctx context.Context, body []byte) bool {
	for {
		switch status, message, err := s.post(ctx, body); {
		case ctx.Err() != nil:
			return false
		case err != nil:
			s.unsure = true
			s.failed(err)
			select {
			case <-ctx.Done():
				return false
			case <-time.After(s.client.RetryWaitMax):
			}
			continue
		case status == http.StatusOK:
			s.tell(nil)
			s.advance(s.at.To, s.at.Records)
		case status == http.StatusRequestEntityTooLarge && s.halve():
		default:
			s.tell(fmt.Errorf("a server refuses records: %s", message))
			s.lose(lostRefused, s.at.Records)
			s.advance(s.at.To, 0)
		}
		return true
	}
}

// halve makes batches smaller, and reports whether the one at hand can be: not where a
// server may have it as it is.
func (s *sender) halve() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.most < 1<<10 || s.at.File <= s.gone || s.unsure {
		return false
	}
	s.most /= 2
	s.at.To, s.at.Records = s.at.From, 0
	return true
}

// advance takes that the batch at hand is done with, and how many records were taken.
func (s *sender) advance(to int64, taken uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.sent, s.unsure = s.sent+taken, false
	s.at.Number++
	s.at.From, s.at.To, s.at.Before, s.at.Records = to, to, s.at.Before+s.at.Records, 0
}

// skip leaves out what is left of a file, and returns how many records that is.
func (s *sender) skip(f file) uint64 {
	s.mutex.Lock()
	left := f.Records - min(f.Records, s.at.Before)
	s.at.Records = left
	s.mutex.Unlock()
	s.advance(f.Bytes, 0)
	return left
}

// post sends frames until an answer is one to go by, and fails where what answers does
// not take flows.
func (s *sender) post(ctx context.Context, body []byte) (status int, message string, err error) {
	r, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, s.options.Server+"/v1/flows?format=weir", body)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Encoding", "zstd")
	r.Header.Set("Weir-Batch", fmt.Sprintf("%s/%d", s.at.Sender, s.at.Number))
	a, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	var answer struct{ Kind, Message string }
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if wanted := map[bool]string{true: "FlowIngest", false: "Error"}[a.StatusCode == http.StatusOK]; err != nil || answer.Kind != wanted {
		return 0, "", fmt.Errorf("%s answers %s, and does not take flows", s.options.Server, a.Status)
	}
	return a.StatusCode, answer.Message, nil
}

// again reports whether the same is to be sent once more.
func (s *sender) again(ctx context.Context, a *http.Response, err error) (bool, error) {
	s.unsure = s.unsure || err != nil
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
	case slices.Contains([]int{http.StatusOK, http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge}, a.StatusCode):
		return false, nil
	default:
		err = fmt.Errorf("%s answers %s", s.options.Server, a.Status)
	}
	s.failed(err)
	return true, nil
}

// failed counts an answer that was none to go by.
func (s *sender) failed(err error) {
	s.mutex.Lock()
	s.failures++
	s.mutex.Unlock()
	s.tell(fmt.Errorf("records cannot be sent: %w; they are tried again", err))
}

// tell tells a problem once, until another one comes or none is left.
func (s *sender) tell(err error) {
	is := ""
	if err != nil {
		is = strings.TrimSpace(err.Error())
	}
	s.mutex.Lock()
	told := s.told
	s.told = is
	s.mutex.Unlock()
	if is != "" && is != told {
		s.options.Log(errors.New(is))
	}
}

// add adds to what is counted.
func (s *sender) add(c *Counts) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	c.Sent, c.SendFailures = s.sent, s.failures
	for _, f := range s.files {
		switch {
		case f.Name == s.at.File:
			c.Unsent += uint64(max(0, f.Bytes-s.at.From))
		case f.Name > s.at.File:
			c.Unsent += uint64(f.Bytes)
		}
	}
}
