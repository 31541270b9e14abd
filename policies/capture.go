package policies

import (
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Capture is a wish to keep packets of pods: a PacketCapture.
type Capture struct {
	Ref     Ref
	Pods    selector.Selector // among those of the namespace
	Filters []CaptureFilter   // what any of them wants is kept; all packets where there is none
	// Start and End are when packets are kept. Zero is at once, and for ever.
	Start, End time.Time
	// What is kept of one pod, at most. Zero is as much as whoever captures thinks
	// right, of MaxPackets any number.
	MaxFileBytes int64
	Rotate       time.Duration // the longest time that one file is of
	MaxFiles     int           // the oldest go
	MaxPackets   uint64        // then the capture of the pod is over
	SnapLength   int           // bytes kept of one packet; 0 is all
	Place        Place
}

// CaptureFilter is the packets that fit all of what it says.
type CaptureFilter struct {
	Protocol  netset.Protocol // 0 is any
	Ports     []PortSpan      // of either end; any where there is none
	Addresses []netip.Prefix  // of either end; any where there is none
}

// PortSpan is the ports from First to Last, both included.
type PortSpan struct{ First, Last uint16 }
