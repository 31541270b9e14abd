// Package flowline writes flows, and what recorders lost of them, as Weir's own JSON lines:
// what package flowlog reads, without all else that it can read.
package flowline

import (
	"bufio"
	"io"
	"net/netip"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
)

// APIVersion is that of each line; the kind is Flow, or LossKind.
const (
	APIVersion = "weir.dev/v1alpha1"
	LossKind   = "FlowLoss"
)

// line is a flow as docs/schemas/flow.json describes it, to be written. A
// field that is absent was not recorded.
type line struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	First      time.Time       `json:"first,omitzero"`
	Last       time.Time       `json:"last,omitzero"`
	From       json.RawMessage `json:"from,omitempty"`
	To         json.RawMessage `json:"to,omitempty"`
	Protocol   string          `json:"protocol,omitempty"`
	Port       uint16          `json:"port,omitempty"`
	Verdict    string          `json:"verdict,omitempty"`
	EgressOnly bool            `json:"egressOnly,omitempty"`
	Count      uint64          `json:"count,omitempty"`
	Started    uint64          `json:"started,omitempty"`
	Ended      uint64          `json:"ended,omitempty"`
	SourcePort uint16          `json:"sourcePort,omitempty"`

	Bytes        uint64 `json:"bytes,omitempty"`
	Packets      uint64 `json:"packets,omitempty"`
	ReplyBytes   uint64 `json:"replyBytes,omitempty"`
	ReplyPackets uint64 `json:"replyPackets,omitempty"`

	Policies []hit   `json:"policies,omitempty"`
	Origin   *origin `json:"origin,omitempty"`
}

type origin struct {
	Format   string  `json:"format,omitempty"`
	Reporter string  `json:"reporter,omitempty"`
	Window   float64 `json:"window,omitempty"` // in seconds
	Node     string  `json:"node,omitempty"`

	Generation uint64 `json:"generation,omitempty"`
}

type hit struct {
	Tier      string `json:"tier,omitempty"`
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Action    string `json:"action,omitempty"`
	Rule      *int   `json:"rule,omitempty"`
	EndOfTier bool   `json:"endOfTier,omitempty"`
	Staged    bool   `json:"staged,omitempty"`
}

type peer struct {
	Namespace     string            `json:"namespace,omitempty"`
	Pod           string            `json:"pod,omitempty"`
	PodPrefix     string            `json:"podPrefix,omitempty"`
	Workload      *workload         `json:"workload,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	LabelsPartial bool              `json:"labelsPartial,omitempty"`
	Address       netip.Addr        `json:"address,omitzero"`
	Network       string            `json:"network,omitempty"`
	Set           *set              `json:"set,omitempty"`
	Outside       bool              `json:"outside,omitempty"`
	Host          bool              `json:"host,omitempty"`
	OwnNode       bool              `json:"ownNode,omitempty"`
	Names         []string          `json:"names,omitempty"`
}

type workload struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

type set struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Writer writes flows as Weir's own JSON lines. Equal flows give equal lines.
type Writer struct{ w *bufio.Writer }

// NewWriter returns a Writer to w, which gets all lines only after Flush.
func NewWriter(w io.Writer) *Writer { return &Writer{bufio.NewWriter(w)} }

// Write writes one flow. Of its ends' workloads it keeps the outermost.
func (w *Writer) Write(f policies.Flow) error {
	text, err := Encode(f)
	if err != nil {
		return err
	}
	_, err = w.w.Write(append(text, '\n'))
	return err
}

// Encode returns a flow as the line that a Writer writes, without its end.
func Encode(f policies.Flow) ([]byte, error) {
	from, err := encodePeer(f.From)
	if err != nil {
		return nil, err
	}
	to, err := encodePeer(f.To)
	if err != nil {
		return nil, err
	}
	l := line{
		APIVersion: APIVersion, Kind: "Flow", First: utc(f.First), Last: utc(f.Last), From: from, To: to,
		Port: f.Port, SourcePort: f.SourcePort, EgressOnly: f.EgressOnly, Count: max(1, f.Count),
		Started: f.Started, Ended: f.Ended,
		Bytes: f.Bytes, Packets: f.Packets, ReplyBytes: f.ReplyBytes, ReplyPackets: f.ReplyPackets,
	}
	if f.Origin != (policies.Origin{}) {
		l.Origin = &origin{f.Origin.Format, f.Origin.Reporter.String(), f.Origin.Window.Seconds(), f.Origin.Node, f.Origin.Generation}
	}
	for _, h := range f.Hits {
		l.Policies = append(l.Policies, encodeHit(h))
	}
	if f.Protocol != 0 {
		l.Protocol = f.Protocol.String()
	}
	if f.Verdict != policies.Undecided {
		l.Verdict = f.Verdict.String()
	}
	return json.Marshal(l)
}

// Flush hands on what was written.
func (w *Writer) Flush() error { return w.w.Flush() }

func encodeHit(h policies.Hit) hit {
	w := hit{
		Tier: h.Tier, Group: h.Policy.Group, Kind: h.Policy.Kind, Namespace: h.Policy.Namespace, Name: h.Policy.Name,
		EndOfTier: h.Rule == policies.EndOfTier, Staged: h.Staged,
	}
	if h.Rule >= 0 {
		w.Rule = &h.Rule
	}
	if h.Action != policies.NoAction {
		w.Action = h.Action.String()
	}
	return w
}

func encodePeer(p policies.FlowPeer) (json.RawMessage, error) {
	w := peer{
		Namespace: p.Namespace, Pod: p.Pod, PodPrefix: p.PodPrefix, Labels: p.Labels, LabelsPartial: p.LabelsPartial,
		Address: p.Address, Network: p.Network.String(), Outside: p.Outside, Host: p.Host, OwnNode: p.OwnNode, Names: p.Names,
	}
	if p.Set.Name != "" {
		w.Set = &set{p.Set.Group, p.Set.Kind, p.Set.Namespace, p.Set.Name}
	}
	if len(p.Workloads) > 0 {
		w.Workload = &workload{p.Workloads[0].Kind, p.Workloads[0].Name}
	}
	return json.Marshal(w)
}

// utc drops a time's zone and its clock reading, so that equal times are equal.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
