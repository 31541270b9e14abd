//go:build linux

package capture

import (
	"errors"
	"sync/atomic"
	"time"
)

// errEnough ends a session that has all packets that were asked for.
var errEnough = errors.New("all packets that were asked for are there")

// flushEvery is how long a packet waits, at most, until it is in its file.
const flushEvery = time.Second

// session is the capture of one pod at one interface while it runs.
type session struct {
	device    device
	source    source
	recording *recording
	comments  *commenter
	most      uint64 // packets
	end       atomic.Int64

	packets, bytes, lost atomic.Int64
	done                 chan struct{}
	err                  error // why it ended, nil where it was told to; to be read when done
}

// stopAt ends the session at a time, or at once where that is past. Packets of later
// are not kept.
func (s *session) stopAt(t time.Time) { s.end.Store(t.UnixNano()) }

// run keeps packets until it is told to stop, or cannot go on.
func (s *session) run(now func() time.Time) {
	defer close(s.done)
	err := s.keep(now)
	s.source.close()
	if errors.Is(err, errStopped) {
		err = nil
	}
	s.err = err
}

var errStopped = errors.New("stopped")

func (s *session) keep(now func() time.Time) error {
	flushed := now()
	err := error(nil)
	for err == nil {
		var over bool
		over, err = s.next(now)
		if t := now(); err == nil && (over || t.Sub(flushed) >= flushEvery || t.Before(flushed)) {
			err = s.recording.flush()
			s.lost.Store(int64(s.source.lost()))
			s.bytes.Store(s.recording.total)
			flushed = t
		}
	}
	s.lost.Store(int64(s.source.lost()))
	if errors.Is(err, errFull) {
		missing, closed := s.recording.abandon()
		s.packets.Add(-int64(missing))
		s.lost.Add(int64(missing))
		s.bytes.Store(s.recording.total)
		return errors.Join(err, closed)
	}
	closed := s.recording.close(true)
	s.bytes.Store(s.recording.total)
	if closed != nil && (errors.Is(err, errStopped) || errors.Is(err, errGone) || errors.Is(err, errEnough)) {
		return closed
	}
	return errors.Join(err, closed)
}

// next keeps one packet; quiet where there is none.
func (s *session) next(now func() time.Time) (quiet bool, err error) {
	data, info, err := s.source.read()
	end := s.end.Load()
	switch {
	case errors.Is(err, errQuiet):
		if end != 0 && now().UnixNano() >= end {
			return true, errStopped
		}
		return true, nil
	case err != nil:
		return false, err
	case end != 0 && info.Timestamp.UnixNano() >= end:
		return false, errStopped
	}
	if err := s.recording.packet(info, data, s.comments.comments(data)); err != nil {
		return false, err
	}
	if n := s.packets.Add(1); s.most > 0 && uint64(n) >= s.most {
		return false, errEnough
	}
	return false, nil
}
