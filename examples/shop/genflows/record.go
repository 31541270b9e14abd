package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// recorder collects what the nodes report.
type recorder struct {
	rng   *rand.Rand
	lines []line
}

// packet is one packet of a connection, at one of the two ends.
type packet struct {
	at               time.Time
	from, to         peer // of the packet: a reply comes from the server
	protocol         string
	fromPort, toPort int
	flags            string // of TCP: "SYN, ACK"
	reply            bool
	traceReason      string
	atClient         bool // seen at the end that opened the connection
}

// replyTo returns the answer to p, before anyone has seen it.
func replyTo(p packet, after time.Duration) packet {
	p.at, p.reply = p.at.Add(after), true
	p.from, p.to, p.fromPort, p.toPort = p.to, p.from, p.toPort, p.fromPort
	return p
}

// see adds what a node reports of a packet; node is where it is seen, and edit
// changes the record from a forwarded packet to whatever else it is.
func (r *recorder) see(p packet, node int, event eventType, edit func(*flow)) {
	direction := "INGRESS"
	if p.atClient {
		direction = "EGRESS"
	}
	summary := p.protocol
	var flags map[string]bool
	if p.flags != "" {
		flags = map[string]bool{}
		for _, f := range strings.Split(p.flags, ", ") {
			flags[f] = true
		}
		summary = "TCP Flags: " + p.flags
	}
	f := &flow{
		Time:             p.at,
		UUID:             r.uuid(),
		Verdict:          "FORWARDED",
		IP:               addresses{p.from.ip, p.to.ip, "IPv4"},
		L4:               map[string]any{p.protocol: ports{p.fromPort, p.toPort, flags}},
		Source:           p.from.seenFrom(node),
		Destination:      p.to.seenFrom(node),
		Type:             "L3_L4",
		NodeName:         clusterName + "/" + nodes[node],
		DestinationNames: p.to.names,
		EventType:        event,
		TrafficDirection: direction,
		IsReply:          &p.reply,
		Summary:          summary,
	}
	switch event {
	case toStack:
		f.ObservationPoint, f.TraceReason = "TO_STACK", p.traceReason
	case toEndpoint:
		f.ObservationPoint, f.TraceReason = "TO_ENDPOINT", p.traceReason
	}
	if edit != nil {
		edit(f)
	}
	r.lines = append(r.lines, line{Flow: f, NodeName: f.NodeName, Time: f.Time})
}

// pass adds what the nodes report of a packet that arrives: the sender's node
// when it leaves it, and the receiver's. Two pods of one node are reported once.
func (r *recorder) pass(p packet) {
	if p.from.isPod() && p.from.node != p.to.node {
		p.atClient = !p.reply
		r.see(p, p.from.node, toStack, nil)
	}
	if p.to.isPod() {
		p.at = p.at.Add(r.between(60*time.Microsecond, 240*time.Microsecond))
		p.atClient = p.reply
		r.see(p, p.to.node, toEndpoint, nil)
	}
}

// connect adds a connection: its first packet, the reply, and of some the end.
func (r *recorder) connect(at time.Time, from, to peer, protocol string, port int) packet {
	p := packet{at: at, from: from, to: to, protocol: protocol, fromPort: r.clientPort(), toPort: port, traceReason: "NEW"}
	if protocol == "TCP" {
		p.flags = "SYN"
	}
	r.pass(p)

	reply := replyTo(p, r.between(400*time.Microsecond, 3*time.Millisecond))
	reply.traceReason = "REPLY"
	if protocol == "TCP" {
		reply.flags = "SYN, ACK"
	}
	r.pass(reply)

	if protocol == "TCP" && r.rng.IntN(5) == 0 {
		end := p
		end.at, end.flags, end.traceReason = at.Add(r.between(time.Second, 90*time.Second)), "FIN, ACK", "ESTABLISHED"
		r.pass(end)
	}
	return p
}

// dropAtClient adds an attempt that the client's own egress refuses.
func (r *recorder) dropAtClient(at time.Time, from, to peer, port int) {
	r.drop(packet{at: at, from: from, to: to, toPort: port, atClient: true}, from.node)
}

// dropAtServer adds an attempt that the server's ingress refuses. The two run on
// one node, so no record says that the packet left.
func (r *recorder) dropAtServer(at time.Time, from, to peer, port int) {
	r.drop(packet{at: at, from: from, to: to, toPort: port}, to.node)
}

// drop adds a first packet and its two repetitions, all refused at the node.
func (r *recorder) drop(p packet, node int) {
	start := p.at
	p.protocol, p.fromPort, p.flags = "TCP", r.clientPort(), "SYN"
	for _, after := range []time.Duration{0, time.Second, 3 * time.Second} {
		p.at = start.Add(after)
		r.see(p, node, dropped, func(f *flow) {
			f.Verdict, f.DropReason, f.DropReasonDesc, f.IsReply = "DROPPED", 133, "POLICY_DENIED", nil
		})
	}
}

func (r *recorder) clientPort() int { return 32768 + r.rng.IntN(28232) }

func (r *recorder) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.rng.Int64N(int64(hi-lo)))
}

func (r *recorder) uuid() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], r.rng.Uint64())
	binary.BigEndian.PutUint64(b[8:], r.rng.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// write writes the lines in the order of their times.
func (r *recorder) write(w io.Writer) error {
	slices.SortStableFunc(r.lines, func(a, b line) int { return a.Time.Compare(b.Time) })
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, l := range r.lines {
		if err := out.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
