package flowlog

import (
	"bufio"
	"fmt"
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
	SourcePort uint16          `json:"sourcePort,omitempty"`

	Bytes        uint64 `json:"bytes,omitempty"`
	Packets      uint64 `json:"packets,omitempty"`
	ReplyBytes   uint64 `json:"replyBytes,omitempty"`
	ReplyPackets uint64 `json:"replyPackets,omitempty"`

	Policies []weirHit   `json:"policies,omitempty"`
	Origin   *weirOrigin `json:"origin,omitempty"`
}

type weirOrigin struct {
	Format   string  `json:"format,omitempty"`
	Reporter string  `json:"reporter,omitempty"`
	Window   float64 `json:"window,omitempty"` // in seconds
}

type weirHit struct {
	Tier      string `json:"tier,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Action    string `json:"action,omitempty"`
	Rule      *int   `json:"rule,omitempty"`
	EndOfTier bool   `json:"endOfTier,omitempty"`
	Staged    bool   `json:"staged,omitempty"`
}

type weirPeer struct {
	Namespace     string            `json:"namespace,omitempty"`
	Pod           string            `json:"pod,omitempty"`
	PodPrefix     string            `json:"podPrefix,omitempty"`
	Workload      *weirWorkload     `json:"workload,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	LabelsPartial bool              `json:"labelsPartial,omitempty"`
	Address       netip.Addr        `json:"address,omitzero"`
	Network       string            `json:"network,omitempty"`
	Set           *weirSet          `json:"set,omitempty"`
	Outside       bool              `json:"outside,omitempty"`
	Host          bool              `json:"host,omitempty"`
	OwnNode       bool              `json:"ownNode,omitempty"`
	Names         []string          `json:"names,omitempty"`
}

type weirWorkload struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

type weirSet struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (l *weirLine) reset() { *l = weirLine{From: l.From[:0], To: l.To[:0]} }

var weirFormat = format{
	name:   "weir",
	what:   "its kind is not Flow",
	object: func(keys [][]byte) bool { return hasAll(keys, "apiVersion", "kind") },
	decode: func(s *sink) decoder { return &weirDecoder{sink: s, peers: peers{}} },
}

type weirDecoder struct {
	*sink
	peers  peers
	buffer weirLine
}

func (d *weirDecoder) decode(record []byte) error {
	l := &d.buffer
	l.reset()
	if err := json.Unmarshal(record, l); err != nil {
		return explain(err)
	}
	switch {
	case l.Kind != "Flow":
		return fmt.Errorf("kind %q is not Flow", l.Kind)
	case l.APIVersion != apiVersion:
		return fmt.Errorf("apiVersion %q is not %s", l.APIVersion, apiVersion)
	}
	flow := policies.Flow{
		First: utc(l.First), Last: utc(l.Last), Port: l.Port, SourcePort: l.SourcePort, Verdict: policies.Unknown, EgressOnly: l.EgressOnly,
		Count: l.Count, Bytes: l.Bytes, Packets: l.Packets, ReplyBytes: l.ReplyBytes, ReplyPackets: l.ReplyPackets,
	}
	if flow.First.IsZero() {
		flow.First = flow.Last
	}
	if flow.Last.IsZero() {
		flow.Last = flow.First
	}
	if flow.Last.Before(flow.First) {
		return fmt.Errorf("last %s is before first %s", flow.Last.Format(time.RFC3339Nano), flow.First.Format(time.RFC3339Nano))
	}
	var err error
	if l.Verdict != "" {
		if err := flow.Verdict.UnmarshalText([]byte(l.Verdict)); err != nil {
			return err
		}
	}
	if l.Protocol != "" {
		if flow.Protocol, err = netset.ParseProtocol(l.Protocol); err != nil {
			return err
		}
	}
	if l.Origin != nil {
		if flow.Origin, err = l.Origin.read(); err != nil {
			return err
		}
	}
	for _, h := range l.Policies {
		hit, err := h.read()
		if err != nil {
			return err
		}
		flow.Hits = append(flow.Hits, hit)
	}
	from, err := d.peers.of(l.From, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("from: %w", explain(err))
	}
	to, err := d.peers.of(l.To, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("to: %w", explain(err))
	}
	flow.From, flow.To = from.FlowPeer, to.FlowPeer
	d.flow(flow)
	return nil
}

func (o *weirOrigin) read() (policies.Origin, error) {
	reporter, err := policies.ParseReporter(o.Reporter)
	if err == nil && (o.Window < 0 || o.Window > maxWindowSeconds) {
		err = fmt.Errorf("window %g is no number of seconds from 0 to %d", o.Window, maxWindowSeconds)
	}
	return policies.Origin{Format: o.Format, Reporter: reporter, Window: time.Duration(o.Window * float64(time.Second))}, err
}

// maxWindowSeconds is a year: nobody aggregates flows for longer.
const maxWindowSeconds = 366 * 24 * 60 * 60

func (h *weirHit) read() (policies.Hit, error) {
	action, err := policies.ParseAction(h.Action)
	hit := policies.Hit{
		Tier: h.Tier, Policy: policies.Ref{Kind: h.Kind, Namespace: h.Namespace, Name: h.Name},
		Action: action, Rule: policies.UnknownRule, Staged: h.Staged,
	}
	switch {
	case h.EndOfTier:
		hit.Rule = policies.EndOfTier
	case h.Rule != nil && *h.Rule < 0:
		return hit, fmt.Errorf("rule %d of policy %s is below 0", *h.Rule, h.Name)
	case h.Rule != nil:
		hit.Rule = *h.Rule
	}
	return hit, err
}

func decodeWeirPeer(text []byte) (peer, error) {
	var w weirPeer
	if err := json.Unmarshal(text, &w); err != nil {
		return peer{}, err
	}
	p := peer{FlowPeer: policies.FlowPeer{
		Namespace: w.Namespace, Pod: w.Pod, PodPrefix: w.PodPrefix, Labels: w.Labels, LabelsPartial: w.LabelsPartial,
		Address: w.Address.Unmap().WithZone(""), Outside: w.Outside, Host: w.Host, OwnNode: w.OwnNode, Names: w.Names,
	}}
	var err error
	if p.Network, err = policies.ParseNetwork(w.Network); err != nil {
		return peer{}, err
	}
	if w.Set != nil {
		p.Set = policies.Ref{Kind: w.Set.Kind, Namespace: w.Set.Namespace, Name: w.Set.Name}
	}
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
	text, err := Encode(f)
	if err != nil {
		return err
	}
	_, err = w.w.Write(append(text, '\n'))
	return err
}

// Encode returns a flow as the line that a Writer writes, without its end.
func Encode(f policies.Flow) ([]byte, error) {
	from, err := encodeWeirPeer(f.From)
	if err != nil {
		return nil, err
	}
	to, err := encodeWeirPeer(f.To)
	if err != nil {
		return nil, err
	}
	l := weirLine{
		APIVersion: apiVersion, Kind: "Flow", First: utc(f.First), Last: utc(f.Last), From: from, To: to,
		Port: f.Port, SourcePort: f.SourcePort, EgressOnly: f.EgressOnly, Count: max(1, f.Count),
		Bytes: f.Bytes, Packets: f.Packets, ReplyBytes: f.ReplyBytes, ReplyPackets: f.ReplyPackets,
	}
	if f.Origin != (policies.Origin{}) {
		l.Origin = &weirOrigin{f.Origin.Format, f.Origin.Reporter.String(), f.Origin.Window.Seconds()}
	}
	for _, h := range f.Hits {
		l.Policies = append(l.Policies, encodeWeirHit(h))
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

func encodeWeirHit(h policies.Hit) weirHit {
	w := weirHit{
		Tier: h.Tier, Kind: h.Policy.Kind, Namespace: h.Policy.Namespace, Name: h.Policy.Name,
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

func encodeWeirPeer(p policies.FlowPeer) (json.RawMessage, error) {
	w := weirPeer{
		Namespace: p.Namespace, Pod: p.Pod, PodPrefix: p.PodPrefix, Labels: p.Labels, LabelsPartial: p.LabelsPartial,
		Address: p.Address, Network: p.Network.String(), Outside: p.Outside, Host: p.Host, OwnNode: p.OwnNode, Names: p.Names,
	}
	if p.Set.Name != "" {
		w.Set = &weirSet{p.Set.Kind, p.Set.Namespace, p.Set.Name}
	}
	if len(p.Workloads) > 0 {
		w.Workload = &weirWorkload{p.Workloads[0].Kind, p.Workloads[0].Name}
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
