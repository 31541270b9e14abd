package flowlog

import (
	"bufio"
	"io"
	"net/netip"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

const apiVersion = "weir.dev/v1alpha1"

// weirLine is a flow as docs/schemas/flow.json describes it. A field that is
// absent was not recorded.
type weirLine struct {
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
	Bytes      uint64          `json:"bytes,omitempty"`
}

type weirPeer struct {
	Namespace     string            `json:"namespace,omitempty"`
	Pod           string            `json:"pod,omitempty"`
	Workload      *weirWorkload     `json:"workload,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	LabelsPartial bool              `json:"labelsPartial,omitempty"`
	Address       netip.Addr        `json:"address,omitzero"`
	Outside       bool              `json:"outside,omitempty"`
	Host          bool              `json:"host,omitempty"`
	OwnNode       bool              `json:"ownNode,omitempty"`
	Names         []string          `json:"names,omitempty"`
}

type weirWorkload struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

func (l *weirLine) reset() { *l = weirLine{From: l.From[:0], To: l.To[:0]} }

func (l *weirLine) isWeir() bool { return l.Kind == "Flow" }

func (d *decoder) weir() (policies.Flow, fate) {
	l := &d.buffer.weirLine
	if l.APIVersion != apiVersion {
		return bad("apiVersion %q is not %s", l.APIVersion, apiVersion)
	}
	flow := policies.Flow{
		First: utc(l.First), Last: utc(l.Last), Port: l.Port, Verdict: policies.Unknown,
		EgressOnly: l.EgressOnly, Count: max(1, l.Count), Bytes: l.Bytes,
	}
	if flow.First.IsZero() {
		flow.First = flow.Last
	}
	if flow.Last.IsZero() {
		flow.Last = flow.First
	}
	if flow.Last.Before(flow.First) {
		return bad("last %s is before first %s", flow.Last.Format(time.RFC3339Nano), flow.First.Format(time.RFC3339Nano))
	}
	var err error
	if l.Verdict != "" {
		if err = flow.Verdict.UnmarshalText([]byte(l.Verdict)); err != nil {
			return bad("%s", err)
		}
	}
	if l.Protocol != "" {
		if flow.Protocol, err = netset.ParseProtocol(l.Protocol); err != nil {
			return bad("%s", err)
		}
	}
	from, err := d.peers.of(l.From, decodeWeirPeer)
	if err != nil {
		return bad("from: %s", explain(err))
	}
	to, err := d.peers.of(l.To, decodeWeirPeer)
	if err != nil {
		return bad("to: %s", explain(err))
	}
	flow.From, flow.To = from.FlowPeer, to.FlowPeer
	return flow, fate{}
}

func decodeWeirPeer(text []byte) (peer, error) {
	var w weirPeer
	if err := json.Unmarshal(text, &w); err != nil {
		return peer{}, err
	}
	p := peer{FlowPeer: policies.FlowPeer{
		Namespace: w.Namespace, Pod: w.Pod, Labels: w.Labels, LabelsPartial: w.LabelsPartial,
		Address: w.Address.Unmap().WithZone(""), Outside: w.Outside, Host: w.Host, OwnNode: w.OwnNode, Names: w.Names,
	}}
	if w.Workload != nil {
		p.Workloads = []policies.Ref{{Kind: w.Workload.Kind, Namespace: w.Namespace, Name: w.Workload.Name}}
	}
	return p, nil
}

// Writer writes flows as Weir's own JSON lines. Equal flows give equal lines.
type Writer struct{ w *bufio.Writer }

// NewWriter returns a Writer to w, which gets all lines only after Flush.
func NewWriter(w io.Writer) *Writer { return &Writer{bufio.NewWriter(w)} }

// Write writes one flow. Of its ends' workloads it keeps the outermost.
func (w *Writer) Write(f policies.Flow) error {
	from, err := encodeWeirPeer(f.From)
	if err != nil {
		return err
	}
	to, err := encodeWeirPeer(f.To)
	if err != nil {
		return err
	}
	l := weirLine{
		APIVersion: apiVersion, Kind: "Flow", First: utc(f.First), Last: utc(f.Last), From: from, To: to,
		Port: f.Port, EgressOnly: f.EgressOnly, Count: max(1, f.Count), Bytes: f.Bytes,
	}
	if f.Protocol != 0 {
		l.Protocol = f.Protocol.String()
	}
	if f.Verdict != policies.Undecided {
		l.Verdict = f.Verdict.String()
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = w.w.Write(append(text, '\n'))
	return err
}

// Flush hands on what was written.
func (w *Writer) Flush() error { return w.w.Flush() }

func encodeWeirPeer(p policies.FlowPeer) (json.RawMessage, error) {
	w := weirPeer{
		Namespace: p.Namespace, Pod: p.Pod, Labels: p.Labels, LabelsPartial: p.LabelsPartial,
		Address: p.Address, Outside: p.Outside, Host: p.Host, OwnNode: p.OwnNode, Names: p.Names,
	}
	if len(p.Workloads) > 0 {
		w.Workload = &weirWorkload{p.Workloads[0].Kind, p.Workloads[0].Name}
	}
	return json.Marshal(w)
}
