package flowline

import (
	"bytes"
	"time"

	"github.com/goccy/go-json"
)

// Loss is what a recorder of Weir could not record.
type Loss struct {
	Node        string
	First, Last time.Time // when it was lost
	Cause       string    // one clause, lower case, no full stop
	Count       uint64    // how many events; 0 where nobody knows
}

// EncodeLoss returns a loss as a line among Weir's own flows, without its end. Who reads
// it counts it as lost.
func EncodeLoss(l Loss) ([]byte, error) {
	return json.Marshal(struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Node       string    `json:"node,omitempty"`
		First      time.Time `json:"first,omitzero"`
		Last       time.Time `json:"last,omitzero"`
		Cause      string    `json:"cause"`
		Count      uint64    `json:"count"`
	}{APIVersion, LossKind, l.Node, utc(l.First), utc(l.Last), l.Cause, l.Count})
}

// IsLoss reports whether a line among Weir's own flows is one of EncodeLoss.
func IsLoss(line []byte) bool { return bytes.HasPrefix(line, lossHead) }

var lossHead = []byte(`{"apiVersion":"` + APIVersion + `","kind":"` + LossKind + `"`)
