package simulator

import "time"

// span is when something was seen first and last, in half the space of two times.
type span struct {
	first, last           int64 // in seconds since the year 1: the zero span is of the zero time
	firstNanos, lastNanos int32
}

const yearOne = -62135596800 // in seconds since 1970

func spanOf(first, last time.Time) span {
	return span{first.Unix() - yearOne, last.Unix() - yearOne, int32(first.Nanosecond()), int32(last.Nanosecond())}
}

func (s span) First() time.Time { return time.Unix(s.first+yearOne, int64(s.firstNanos)).UTC() }
func (s span) Last() time.Time  { return time.Unix(s.last+yearOne, int64(s.lastNanos)).UTC() }

// join widens a span. The zero time is not known.
func (s span) join(first, last time.Time) span {
	return spanOf(earliest(s.First(), first), latest(s.Last(), last))
}
