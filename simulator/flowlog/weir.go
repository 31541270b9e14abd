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

// weirLine is a flow as docs/schemas/flow.json describes it, to be written. A
// field that is absent was not recorded.
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
	Started    uint64          `json:"started,omitempty"`
	Ended      uint64          `json:"ended,omitempty"`
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
	Node     string  `json:"node,omitempty"`

	Generation uint64 `json:"generation,omitempty"`
}

type weirHit struct {
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
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

var weirFormat = format{
	name:   "weir",
	what:   "its kind is not Flow",
	object: func(keys [][]byte) bool { return hasAll(keys, "apiVersion", "kind") },
	decode: func(s *sink) decoder {
		return &weirDecoder{sink: s, peers: peers{}, traces: cache[[]policies.Hit]{}, origins: cache[policies.Origin]{}}
	},
}

type weirDecoder struct {
	*sink
	peers   peers
	traces  cache[[]policies.Hit]
	origins cache[policies.Origin]
}

// weirText is a line as it stands; what is JSON is read only once.
type weirText struct {
	apiVersion, kind, verdict, protocol []byte
	from, to, policies, origin          []byte // JSON
}

func (d *weirDecoder) decode(record []byte) error {
	var l weirText
	flow := policies.Flow{Verdict: policies.Unknown}
	s := scan{text: record}
	l.take(&s, &flow)
	if err := s.end(); err != nil {
		return err
	}
	switch {
	case string(l.kind) != "Flow" && string(l.kind) != lossKind:
		return fmt.Errorf("kind %q is not Flow", l.kind)
	case string(l.apiVersion) != apiVersion:
		return fmt.Errorf("apiVersion %q is not %s", l.apiVersion, apiVersion)
	case string(l.kind) == lossKind:
		return d.lose(flow.Count)
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
	if len(l.verdict) > 0 {
		if err := flow.Verdict.UnmarshalText(l.verdict); err != nil {
			return err
		}
	}
	if len(l.protocol) > 0 {
		if flow.Protocol, err = netset.ParseProtocol(string(l.protocol)); err != nil {
			return err
		}
	}
	if flow.Origin, err = d.origins.of(l.origin, decodeWeirOrigin); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	if flow.Hits, err = d.traces.of(l.policies, decodeWeirHits); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	from, err := d.peers.of(l.from, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := d.peers.of(l.to, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	flow.From, flow.To = from.FlowPeer, to.FlowPeer
	d.flow(flow)
	return nil
}

func (l *weirText) take(s *scan, f *policies.Flow) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "apiVersion":
			l.apiVersion = s.string()
		case "kind":
			l.kind = s.string()
		case "first":
			f.First = s.time()
		case "last":
			f.Last = s.time()
		case "from":
			l.from = s.raw()
		case "to":
			l.to = s.raw()
		case "protocol":
			l.protocol = s.string()
		case "port":
			f.Port = uint16(s.uint(65535))
		case "verdict":
			l.verdict = s.string()
		case "egressOnly":
			f.EgressOnly = s.bool()
		case "count":
			f.Count = s.uint(1<<64 - 1)
		case "started":
			f.Started = s.uint(1<<64 - 1)
		case "ended":
			f.Ended = s.uint(1<<64 - 1)
		case "sourcePort":
			f.SourcePort = uint16(s.uint(65535))
		case "bytes":
			f.Bytes = s.uint(1<<64 - 1)
		case "packets":
			f.Packets = s.uint(1<<64 - 1)
		case "replyBytes":
			f.ReplyBytes = s.uint(1<<64 - 1)
		case "replyPackets":
			f.ReplyPackets = s.uint(1<<64 - 1)
		case "policies":
			l.policies = s.raw()
		case "origin":
			l.origin = s.raw()
		default:
			s.skip()
		}
	}
}

func decodeWeirOrigin(text []byte) (o policies.Origin, err error) {
	var reporter string
	var window float64
	s := scan{text: text, name: []byte("origin")}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "format":
			o.Format = string(s.string())
		case "reporter":
			reporter = string(s.string())
		case "window":
			window = s.float()
		case "node":
			o.Node = string(s.string())
		case "generation":
			o.Generation = s.uint(1<<64 - 1)
		default:
			s.skip()
		}
	}
	if err := s.end(); err != nil {
		return o, err
	}
	if window < 0 || window > maxWindowSeconds {
		return o, fmt.Errorf("window %g is no number of seconds from 0 to %d", window, maxWindowSeconds)
	}
	o.Window = time.Duration(window * float64(time.Second)).Round(time.Microsecond)
	o.Reporter, err = policies.ParseReporter(reporter)
	return o, err
}

// maxWindowSeconds is a year: nobody aggregates flows for longer.
const maxWindowSeconds = 366 * 24 * 60 * 60

func decodeWeirHits(text []byte) (hits []policies.Hit, err error) {
	s := scan{text: text, name: []byte("policies")}
	for in := s.array(); in && s.element(); {
		hits = append(hits, takeWeirHit(&s))
	}
	return hits, s.end()
}

func takeWeirHit(s *scan) policies.Hit {
	hit := policies.Hit{Rule: policies.UnknownRule}
	endOfTier := false
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "tier":
			hit.Tier = string(s.string())
		case "group":
			hit.Policy.Group = string(s.string())
		case "kind":
			hit.Policy.Kind = string(s.string())
		case "namespace":
			hit.Policy.Namespace = string(s.string())
		case "name":
			hit.Policy.Name = string(s.string())
		case "action":
			var err error
			if hit.Action, err = policies.ParseAction(string(s.string())); err != nil {
				s.fail(err)
			}
		case "rule":
			if !s.null() {
				hit.Rule = int(s.uint(1<<31 - 1))
			}
		case "endOfTier":
			endOfTier = s.bool()
		case "staged":
			hit.Staged = s.bool()
		default:
			s.skip()
		}
	}
	if endOfTier {
		hit.Rule = policies.EndOfTier
	}
	return hit
}

func decodeWeirPeer(text []byte) (p peer, err error) {
	var network string
	var workload policies.Ref
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "namespace":
			p.Namespace = string(s.string())
		case "pod":
			p.Pod = string(s.string())
		case "podPrefix":
			p.PodPrefix = string(s.string())
		case "workload":
			workload = takeWeirRef(&s)
		case "labels":
			p.Labels = map[string]string{}
			for in := s.object(); in && s.field(); {
				key := string(s.name)
				p.Labels[key] = string(s.string())
			}
		case "labelsPartial":
			p.LabelsPartial = s.bool()
		case "address":
			p.Address = s.address()
		case "network":
			network = string(s.string())
		case "set":
			p.Set = takeWeirRef(&s)
		case "outside":
			p.Outside = s.bool()
		case "host":
			p.Host = s.bool()
		case "ownNode":
			p.OwnNode = s.bool()
		case "names":
			for in := s.array(); in && s.element(); {
				p.Names = append(p.Names, string(s.string()))
			}
		default:
			s.skip()
		}
	}
	if err := s.end(); err != nil {
		return peer{}, err
	}
	if workload != (policies.Ref{}) {
		p.Workloads = []policies.Ref{{Kind: workload.Kind, Namespace: p.Namespace, Name: workload.Name}}
	}
	p.Network, err = policies.ParseNetwork(network)
	return p, err
}

func takeWeirRef(s *scan) (r policies.Ref) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "group":
			r.Group = string(s.string())
		case "kind":
			r.Kind = string(s.string())
		case "namespace":
			r.Namespace = string(s.string())
		case "name":
			r.Name = string(s.string())
		default:
			s.skip()
		}
	}
	return r
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
		Started: f.Started, Ended: f.Ended,
		Bytes: f.Bytes, Packets: f.Packets, ReplyBytes: f.ReplyBytes, ReplyPackets: f.ReplyPackets,
	}
	if f.Origin != (policies.Origin{}) {
		l.Origin = &weirOrigin{f.Origin.Format, f.Origin.Reporter.String(), f.Origin.Window.Seconds(), f.Origin.Node, f.Origin.Generation}
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

func encodeWeirPeer(p policies.FlowPeer) (json.RawMessage, error) {
	w := weirPeer{
		Namespace: p.Namespace, Pod: p.Pod, PodPrefix: p.PodPrefix, Labels: p.Labels, LabelsPartial: p.LabelsPartial,
		Address: p.Address, Network: p.Network.String(), Outside: p.Outside, Host: p.Host, OwnNode: p.OwnNode, Names: p.Names,
	}
	if p.Set.Name != "" {
		w.Set = &weirSet{p.Set.Group, p.Set.Kind, p.Set.Namespace, p.Set.Name}
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
