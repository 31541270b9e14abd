package testkit

import (
	"testing"
	"time"
)

// How often Eventually looks, and for how long, on however busy a machine.
const (
	lookEvery = 20 * time.Millisecond
	lookFor   = time.Minute
)

// Eventually waits until what another process or goroutine does is there to see: what
// returns nil then. It fails the test with the last error when that takes a minute.
func Eventually(t testing.TB, what func() error) {
	t.Helper()
	tick, end := time.NewTicker(lookEvery), time.After(lookFor)
	defer tick.Stop()
	for err := what(); err != nil; err = what() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(err)
		}
	}
}
