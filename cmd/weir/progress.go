package main

import (
	"fmt"
	"io"
	"time"

	"github.com/weir-policy/weir/policies"
)

// clearLine goes back to the start of a terminal's line and empties it.
const clearLine = "\r\x1b[K"

// counted returns what shows somebody at a terminal how many objects of a kind
// are read, and what clears that line at the end. Anywhere else to stays empty.
func counted(to io.Writer) (func(resource string, objects int), func()) {
	if !isTerminal(to) {
		return nil, func() {}
	}
	return func(resource string, objects int) { fmt.Fprintf(to, "%s%d %s read", clearLine, objects, resource) },
		func() { fmt.Fprint(to, clearLine) }
}

// watched returns each such that somebody who waits at a terminal sees how many
// flows are read, and what clears that line at the end. Anywhere else to stays
// empty.
func watched(to io.Writer, each func(policies.Flow) error) (func(policies.Flow) error, func()) {
	if !isTerminal(to) {
		return each, func() {}
	}
	flows, began := 0, time.Now()
	shown := began
	watching := func(f policies.Flow) error {
		if flows++; flows%4096 == 0 {
			if now := time.Now(); now.Sub(shown) > time.Second/4 {
				shown = now
				fmt.Fprintf(to, "%s%d flows read, %.0f a second", clearLine, flows, float64(flows)/now.Sub(began).Seconds())
			}
		}
		return each(f)
	}
	return watching, func() {
		if shown != began {
			fmt.Fprint(to, clearLine)
		}
	}
}

// progressed returns what shows somebody at a terminal how much of a work is
// done, and for how long it will last, and what clears that line at the end.
// Anywhere else to stays empty.
func progressed(to io.Writer, done string) (func(sofar, of int64), func()) {
	if !isTerminal(to) {
		return nil, func() {}
	}
	began := time.Now()
	return func(sofar, of int64) {
		elapsed := time.Since(began)
		left := time.Duration(float64(elapsed) / float64(max(1, sofar)) * float64(of-sofar)).Round(time.Second)
		fmt.Fprintf(to, "%s%d%% %s, %s left", clearLine, 100*sofar/max(1, of), done, left)
	}, func() { fmt.Fprint(to, clearLine) }
}
