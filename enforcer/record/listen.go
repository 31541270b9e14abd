//go:build linux

package record

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/simulator/flowline"
)

// listener is what goes on while a Recorder runs: one goroutine does all of it.
type listener struct {
	*Recorder
	*book
	events, all, log *socket // log is nil where the group belongs to somebody else
	seen             conntrack.Connection

	looking    bool      // a look at all connections is under way
	lookBegan  time.Time // the last one
	lookTook   time.Duration
	lookDue    bool // as soon as may be
	windowEnds time.Time
	windowDue  bool // the window ends with the look that is under way

	lastLog  uint32 // the number of the last log entry
	anyLog   bool
	countDue time.Time
	took     time.Time // when what is in force was taken over
	reading  bool      // somebody reads the counters
	readings chan map[string]uint64
	losses   []flowline.Loss // to be written down
}

// How much of a thing is done before others get their turn, in messages of netlink.
const (
	turnOfEvents = 1024
	turnOfLog    = 64
	turnOfLook   = 8
)

// linger is what events wait for others, so that few of them do not wake up somebody each.
const linger = 20 * time.Millisecond

// countEvery is how often the counters are read, at least: what a vector denied since is
// not counted where the vector goes.
const countEvery = 5 * time.Second

// mostSums is how many records a window may come to before it ends early.
const mostSums = 1 << 17

// listen records until ctx ends.
func (r *Recorder) listen(ctx context.Context, remembered *checkpoint) (err error) {
	o := &r.options
	l := &listener{Recorder: r, book: newBook(o.Level), readings: make(chan map[string]uint64, 1), windowEnds: o.Clock().Add(o.Window)}
	if l.events, err = openEvents(o.Netns, o.Buffer); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.events.Close()) }()
	if l.all, err = open(o.Netns, 0, 1<<20); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.all.Close()) }()
	if l.log, err = openLog(o.Netns, o.LogGroup, 8<<20); err != nil {
		o.Log(err)
		l.log = nil
	} else {
		defer func() { err = errors.Join(err, l.log.Close()) }()
	}
	remembered.restore(l.book)
	if remembered != nil {
		l.losses = append(l.losses, flowline.Loss{Node: o.Node, First: remembered.At, Last: o.Clock(), Cause: lostDowntime})
	}
	l.told = r.stream.told
	l.takeAll(0)
	l.refresh = func() bool { return l.takeAll(refreshEach) }
	l.beginLook()
	for ctx.Err() == nil && err == nil {
		if err = wait(100, l.events, l.all, l.log); err == nil {
			var few bool
			if few, err = l.turn(); few && !l.looking {
				time.Sleep(linger)
			}
		}
	}
	return errors.Join(err, l.finish())
}

// How often what is in force is taken over: while nothing is missed, and else. A
// generation that another one follows sooner explains nothing.
const (
	takeEvery   = time.Second
	refreshEach = 100 * time.Millisecond
)

// takeAll takes what is in force now, unless it has just done so.
func (l *listener) takeAll(every time.Duration) bool {
	now := l.options.Clock()
	if now.Sub(l.took) < every {
		return false
	}
	all := l.take()
	if len(all) == 0 {
		return false
	}
	g := all[len(all)-1]
	g.Since = all[0].Since
	l.enforce(newView(g, &l.options))
	l.took = now
	return true
}

// turn does some of everything that there is to do, and reports whether that was little.
func (l *listener) turn() (few bool, err error) {
	now := l.options.Clock()
	l.takeAll(takeEvery)
	more, err := l.readEvents(now)
	if err != nil {
		return false, err
	}
	moreLog, err := l.readLog(now)
	if err != nil {
		return false, err
	}
	if l.looking {
		if err := l.readLook(now); err != nil {
			return false, err
		}
	}
	select {
	case counters := <-l.readings:
		l.reading = false
		l.counted(counters, now.UnixNano(), false)
	default:
	}
	if now.After(l.countDue) {
		l.countDue = now.Add(min(l.options.Window, countEvery))
		l.readCounters()
	}
	if len(l.sums) >= mostSums {
		l.flush(now)
	}
	if now.After(l.windowEnds) && !l.windowDue {
		l.windowEnds = now.Add(l.options.Window)
		l.windowDue = true
		// Looks take at most a twentieth of the time.
		if !l.looking && now.Sub(l.lookBegan) > 20*l.lookTook {
			l.beginLook()
		}
	}
	if l.lookDue && !l.looking && now.Sub(l.lookBegan) > 20*l.lookTook {
		l.beginLook()
	}
	if l.windowDue && !l.looking {
		l.windowDue = false
		l.flush(now)
	}
	l.publish(l.book)
	return !more && !moreLog, nil
}

// readEvents reads what the kernel tells of connections.
func (l *listener) readEvents(now time.Time) (more bool, err error) {
	at := now.UnixNano()
	more, err = l.events.read(turnOfEvents, func(m message) error {
		if m.kind != conntrack.New && m.kind != conntrack.Delete {
			return nil
		}
		if err := conntrack.Decode(m.body, &l.seen); err != nil {
			l.counts.Lost[lostRead]++
			return nil //nolint:nilerr // it is counted
		}
		if m.kind == conntrack.Delete {
			l.end(&l.seen, orElse(l.seen.At, at))
		} else if m.flags&conntrack.Create == conntrack.Create {
			l.begin(&l.seen, orElse(l.seen.At, at))
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOBUFS):
		l.counts.Overflows++
		l.lookDue = true
		return true, nil
	case errors.Is(err, errCutOff):
		l.counts.Lost[lostRead]++
		return true, nil
	case err != nil:
		return false, fmt.Errorf("listen to connections: %w", err)
	}
	return more, nil
}

// readLog reads what was denied.
func (l *listener) readLog(now time.Time) (more bool, err error) {
	if l.log == nil {
		return false, nil
	}
	more, err = l.log.read(turnOfLog, func(m message) error {
		if m.kind != logPacket {
			return nil
		}
		prefix, payload, number, at, err := entryOf(m.body)
		if err != nil {
			return err
		}
		if gap := number - l.lastLog - 1; l.anyLog && gap > 0 && gap < 1<<31 {
			l.counts.Lost[lostLog] += uint64(gap)
		}
		l.lastLog, l.anyLog = number, true
		if mark, err := nft.ParseMark(prefix); err == nil {
			l.logged(mark, payload, orElse(at, now.UnixNano()))
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return true, nil // the numbers of entries tell how many
	case errors.Is(err, errCutOff):
		l.counts.Lost[lostRead]++
		return true, nil
	case err != nil:
		return false, fmt.Errorf("listen to denials: %w", err)
	}
	return more, nil
}

// beginLook asks for all connections.
func (l *listener) beginLook() {
	l.lookBegan, l.lookDue = l.options.Clock(), false
	if err := l.all.send(conntrack.Get, unix.NLM_F_DUMP, conntrack.DumpRequest(nil)); err != nil {
		l.options.Log(fmt.Errorf("look at all connections: %w", err))
		l.lookDue = true
		return
	}
	l.lookAtAll(l.lookBegan.UnixNano())
	l.looking = true
}

// readLook reads the answer, or some of it.
func (l *listener) readLook(now time.Time) error {
	ahead := func() error {
		for more := true; more; {
			var err error
			if more, err = l.readEvents(l.options.Clock()); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := l.all.readAhead(turnOfLook, ahead, func(m message) error {
		switch m.kind {
		case unix.NLMSG_DONE:
			l.looked(now.UnixNano())
			l.looking = false
			l.lookTook = l.options.Clock().Sub(l.lookBegan)
			return nil
		case unix.NLMSG_ERROR:
			return failureOf(m)
		}
		if err := conntrack.Decode(m.body, &l.seen); err != nil {
			l.counts.Lost[lostRead]++
			return nil //nolint:nilerr // it is counted
		}
		l.see(&l.seen, now.UnixNano())
		return nil
	})
	if err != nil {
		l.looking, l.lookDue = false, true
		l.options.Log(fmt.Errorf("look at all connections: %w", err))
	}
	return nil
}

// readCounters has the counters read by somebody else, since that may take a while.
func (l *listener) readCounters() {
	if l.options.Counters == nil || l.reading {
		return
	}
	l.reading = true
	go func() {
		counters, err := l.options.Counters()
		if err != nil {
			l.options.Log(fmt.Errorf("read the counters: %w", err))
			counters = nil
		}
		l.readings <- counters
	}()
}

// flush hands on what is to be recorded.
func (l *listener) flush(now time.Time) {
	l.forget(now)
	u := &unit{at: now, lost: maps.Clone(l.counts.Lost), losses: l.losses}
	l.losses = nil
	l.counts.Decisions = maps.Clone(l.counts.Decisions) // those before are known elsewhere
	for line, s := range l.close() {
		u.records = append(u.records, record{line, *s})
		l.decided(line, s)
	}
	u.checkpoint = l.checkpoint(now)
	l.disk.put(u)
}

// finish reads what there is, and hands on all that is known.
func (l *listener) finish() error {
	began := l.options.Clock()
	patient := func(now time.Time) bool { return now.Sub(began) < 10*time.Second }
	if l.looking { // its answers are of an earlier moment
		l.looking, l.lookDue = false, false
		again, err := open(l.options.Netns, 0, 1<<20)
		if err != nil {
			return err
		}
		*l.all, *again = *again, *l.all
		if err := again.Close(); err != nil {
			return err
		}
	}
	l.takeAll(0)
	l.beginLook()
	for now := began; patient(now); now = l.options.Clock() {
		more, err := l.readEvents(now)
		if err != nil {
			return err
		}
		if l.looking {
			if err := l.readLook(now); err != nil {
				return err
			}
			continue
		}
		if !more {
			break
		}
	}
	// What was logged is on its way for so long.
	for quiet := l.options.Clock().Add(3 * logTimeout * 10 * time.Millisecond); l.log != nil && patient(l.options.Clock()) && l.options.Clock().Before(quiet); {
		if err := wait(10, l.log); err != nil {
			return err
		}
		if _, err := l.readLog(l.options.Clock()); err != nil {
			return err
		}
	}
	now := l.options.Clock()
	if l.options.Counters != nil {
		if l.reading {
			l.counted(<-l.readings, now.UnixNano(), false)
		}
		counters, err := l.options.Counters()
		if err != nil {
			l.options.Log(fmt.Errorf("read the counters: %w", err))
		} else {
			l.counted(counters, now.UnixNano(), true)
		}
	}
	l.flush(now)
	l.publish(l.book)
	return nil
}
