package flowlog

import "fmt"

// lose counts events that a recorder lost.
func (d *weirDecoder) lose(n uint64) error {
	if n > mostCounted {
		return fmt.Errorf("it counts %d, which no record can: a counter that wrapped", n)
	}
	if d.stopped == nil {
		d.stats.Lost += n
		d.leaveOut(causeLoss)
	}
	return nil
}

const causeLoss = "what the recorder says it lost"
