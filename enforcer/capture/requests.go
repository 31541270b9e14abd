//go:build linux

package capture

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Request is a capture with those pods of the node that it selects.
type Request struct {
	policies.Capture
	Pods []Pod
	// Refused says of pods that it selects, and that cannot be captured, why.
	Refused []string
}

// Pod is a pod of the node.
type Pod struct {
	Ref       policies.Ref
	Addresses []netip.Addr
	Interface string // on the node's side; "" is looked for by the route to the addresses
}

// Requests returns what some captures ask of a node. A pod of the world is there when
// isLocal says so. Pods on the host's network are left out: their packets cannot be
// told from the node's.
func Requests(captures []policies.Capture, w *policies.World, isLocal func(*policies.Pod) bool) []Request {
	requests := make([]Request, 0, len(captures))
	for _, c := range captures {
		r := Request{Capture: c}
		for i := range w.Pods {
			p := &w.Pods[i]
			if p.Ref.Kind != "Pod" || p.Ref.Namespace != c.Ref.Namespace || !c.Pods.Matches(p.Labels) || !isLocal(p) {
				continue
			}
			if p.HostNetwork {
				r.Refused = append(r.Refused, "pod "+p.Ref.Name+" is on the host's network, where its packets cannot be told from the node's")
				continue
			}
			r.Pods = append(r.Pods, Pod{Ref: p.Ref, Addresses: p.Addresses})
		}
		slices.SortFunc(r.Pods, func(a, b Pod) int { return a.Ref.Compare(b.Ref) })
		slices.Sort(r.Refused)
		requests = append(requests, r)
	}
	return requests
}

// stateOf sums up what the pods of a capture are at on this node.
func stateOf(pods map[string]int) string {
	for _, state := range []string{
		v1alpha1.CaptureError, v1alpha1.CaptureCapturing, v1alpha1.CaptureWaitingForTraffic, v1alpha1.CaptureScheduled, v1alpha1.CaptureFinished,
	} {
		if pods[state] > 0 {
			return state
		}
	}
	return v1alpha1.CaptureWaitingForTraffic
}

// messageOf joins what there is to say, each once.
func messageOf(messages []string) string {
	slices.Sort(messages)
	return strings.Join(slices.Compact(messages), "; ")
}
