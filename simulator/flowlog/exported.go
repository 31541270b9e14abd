package flowlog

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// exported is what a record of NetFlow or IPFIX says; zero is what it does not.
type exported struct {
	from, to         netip.Addr
	protocol         netset.Protocol
	sourcePort, port uint16
	icmp             uint16
	hasICMP          bool
	flags            uint16 // of TCP, of all packets together
	reversed         bool   // from is the end that was called

	delta, total, answered counts // of this record, of the flow so far, of the replies
	answeredTotal          counts
	flows                  uint64

	first, last              time.Time
	firstUptime, lastUptime  uint64 // in milliseconds since the exporter started
	startedAt                uint64 // when that was, in milliseconds; 0 when the message says it
	hasUptimes               bool
	startsBefore, endsBefore uint64 // in microseconds before the export

	rate, sampler                    uint64
	sampled, skipped                 uint64 // so many packets in turn
	size, population                 uint64
	probability                      float64
	forwarding, firewall, firewallOn uint64 // with hasForwarding, the event and its reason
	hasForwarding, hasFirewall       bool

	antrea    antrea
	hasAntrea bool
}

// counts are bytes and packets.
type counts [2]uint64

// The enterprises whose elements are known.
const (
	iana           = 0
	reverse        = 29305 // RFC 5103: the same element, of the replies
	antreaElements = 56506
)

// The elements that IANA lists and Weir takes. NetFlow 9 has the same numbers.
const (
	octetDeltaCount             = 1
	packetDeltaCount            = 2
	deltaFlowCount              = 3
	protocolIdentifier          = 4
	tcpControlBits              = 6
	sourceTransportPort         = 7
	sourceIPv4Address           = 8
	destinationTransportPort    = 11
	destinationIPv4Address      = 12
	flowEndSysUpTime            = 21
	flowStartSysUpTime          = 22
	sourceIPv6Address           = 27
	destinationIPv6Address      = 28
	icmpTypeCodeIPv4            = 32
	samplingInterval            = 34
	samplerID                   = 48
	samplerRandomInterval       = 50
	octetTotalCount             = 85
	packetTotalCount            = 86
	forwardingStatus            = 89
	icmpTypeCodeIPv6            = 139
	flowStartSeconds            = 150
	flowEndSeconds              = 151
	flowStartMilliseconds       = 152
	flowEndMilliseconds         = 153
	flowStartMicroseconds       = 154
	flowEndMicroseconds         = 155
	flowStartNanoseconds        = 156
	flowEndNanoseconds          = 157
	flowStartDeltaMicroseconds  = 158
	flowEndDeltaMicroseconds    = 159
	systemInitTimeMilliseconds  = 160
	icmpTypeIPv4                = 176
	icmpCodeIPv4                = 177
	icmpTypeIPv6                = 178
	icmpCodeIPv6                = 179
	initiatorOctets             = 231
	responderOctets             = 232
	firewallEvent               = 233
	biflowDirection             = 239
	initiatorPackets            = 298
	responderPackets            = 299
	selectorID                  = 302
	samplingPacketInterval      = 305
	samplingPacketSpace         = 306
	samplingSize                = 309
	samplingPopulation          = 310
	samplingProbability         = 311
	observationTimeMilliseconds = 323
	firewallExtendedEvent       = 33002 // of Cisco, in NetFlow 9
)

// take takes the value of a field.
func (e *exported) take(name fieldName, v []byte) {
	switch name.enterprise {
	case iana:
		e.takeIANA(name.element, v)
	case reverse:
		switch name.element {
		case octetDeltaCount:
			e.answered[0] = unsigned(v)
		case packetDeltaCount:
			e.answered[1] = unsigned(v)
		case octetTotalCount:
			e.answeredTotal[0] = unsigned(v)
		case packetTotalCount:
			e.answeredTotal[1] = unsigned(v)
		}
	case antreaElements:
		e.hasAntrea = e.antrea.take(name.element, v) || e.hasAntrea
	}
}

func (e *exported) takeIANA(element uint16, v []byte) {
	switch element {
	case octetDeltaCount, initiatorOctets:
		e.delta[0] = unsigned(v)
	case packetDeltaCount, initiatorPackets:
		e.delta[1] = unsigned(v)
	case octetTotalCount:
		e.total[0] = unsigned(v)
	case packetTotalCount:
		e.total[1] = unsigned(v)
	case responderOctets:
		e.answered[0] = unsigned(v)
	case responderPackets:
		e.answered[1] = unsigned(v)
	case deltaFlowCount:
		e.flows = unsigned(v)
	case protocolIdentifier:
		e.protocol = netset.Protocol(unsigned(v))
	case tcpControlBits:
		e.flags = uint16(unsigned(v))
	case sourceTransportPort:
		e.sourcePort = uint16(unsigned(v))
	case destinationTransportPort:
		e.port = uint16(unsigned(v))
	case sourceIPv4Address, sourceIPv6Address:
		takeAddress(&e.from, v)
	case destinationIPv4Address, destinationIPv6Address:
		takeAddress(&e.to, v)
	case icmpTypeCodeIPv4, icmpTypeCodeIPv6:
		if n := uint16(unsigned(v)); n != 0 || !e.hasICMP {
			e.icmp, e.hasICMP = n, true
		}
	case icmpTypeIPv4, icmpTypeIPv6:
		e.icmp, e.hasICMP = uint16(unsigned(v))<<8|e.icmp&0xff, true
	case icmpCodeIPv4, icmpCodeIPv6:
		e.icmp, e.hasICMP = e.icmp&0xff00|uint16(unsigned(v))&0xff, true
	case biflowDirection:
		e.reversed = unsigned(v) == 2
	case forwardingStatus:
		e.forwarding, e.hasForwarding = unsigned(v), true
	case firewallEvent:
		e.firewall, e.hasFirewall = unsigned(v), true
	case firewallExtendedEvent:
		e.firewallOn = unsigned(v)
	case samplingInterval, samplerRandomInterval:
		e.rate = unsigned(v)
	case samplerID, selectorID:
		e.sampler = unsigned(v)
	case samplingPacketInterval:
		e.sampled = unsigned(v)
	case samplingPacketSpace:
		e.skipped = unsigned(v)
	case samplingSize:
		e.size = unsigned(v)
	case samplingPopulation:
		e.population = unsigned(v)
	case samplingProbability:
		if len(v) == 8 {
			e.probability = math.Float64frombits(unsigned(v))
		} else if len(v) == 4 {
			e.probability = float64(math.Float32frombits(uint32(unsigned(v))))
		}
	default:
		e.takeTime(element, v)
	}
}

func (e *exported) takeTime(element uint16, v []byte) {
	n := unsigned(v)
	switch element {
	case flowStartSysUpTime:
		e.firstUptime, e.hasUptimes = n, true
	case flowEndSysUpTime:
		e.lastUptime, e.hasUptimes = n, true
	case systemInitTimeMilliseconds:
		e.startedAt = n
	case flowStartSeconds:
		e.first = unixMilli(n, 1000)
	case flowEndSeconds:
		e.last = unixMilli(n, 1000)
	case flowStartMilliseconds:
		e.first = unixMilli(n, 1)
	case flowEndMilliseconds, observationTimeMilliseconds:
		e.last = unixMilli(n, 1)
	case flowStartMicroseconds, flowStartNanoseconds:
		e.first = ntpTime(n)
	case flowEndMicroseconds, flowEndNanoseconds:
		e.last = ntpTime(n)
	case flowStartDeltaMicroseconds:
		e.startsBefore = n
	case flowEndDeltaMicroseconds:
		e.endsBefore = n
	}
}

// takeAddress keeps an address unless it is one that stands for none: records of
// either family may have fields for both.
func takeAddress(a *netip.Addr, v []byte) {
	if got := addressOf(v); got.IsValid() && (!got.IsUnspecified() || !a.IsValid()) {
		*a = got
	}
}

// unsigned reads an unsigned number of up to eight bytes; longer ones are 0.
func unsigned(v []byte) (n uint64) {
	if len(v) > 8 {
		return 0
	}
	for _, b := range v {
		n = n<<8 | uint64(b)
	}
	return n
}

// beyond is a time that no flow may have.
var beyond = time.Unix(lastSecond+1, 0).UTC()

func unixMilli(n, factor uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	if n > uint64(beyond.UnixMilli())/factor {
		return beyond
	}
	return time.UnixMilli(int64(n * factor)).UTC()
}

// ntpTime reads seconds since 1900 and the fraction of one.
func ntpTime(n uint64) time.Time {
	const to1970 = 2208988800
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n>>32)-to1970, int64((n&0xffffffff)*1e9>>32)).UTC()
}

// samplingRate is of how many packets the record saw one; 0 when it does not say.
func (e *exported) samplingRate() uint64 {
	switch {
	case e.rate > 0:
		return e.rate
	case e.sampled > 0:
		return (e.sampled + min(e.skipped, math.MaxUint64-e.sampled)) / e.sampled
	case e.size > 0 && e.population >= e.size:
		return e.population / e.size
	case e.probability > 0 && e.probability <= 1:
		return uint64(min(math.Round(1/e.probability), math.MaxUint32))
	}
	return 0
}

// hand hands over the flow of a record, or says why it is none.
func (d *Datagrams) hand(e *exported, m *message) {
	flow, cause, err := e.flow(m)
	switch {
	case err != nil:
		d.bad(err)
	case cause != "":
		d.leaveOut(cause)
	default:
		d.flow(flow)
	}
}

func (e *exported) flow(m *message) (flow policies.Flow, cause string, err error) {
	verdict, cause := e.verdict()
	if !e.from.IsValid() || !e.to.IsValid() {
		cause = "record without the addresses of a flow"
	}
	if cause != "" {
		return flow, cause, nil
	}
	flow = policies.Flow{
		From: policies.FlowPeer{Address: e.from}, To: policies.FlowPeer{Address: e.to}, Verdict: verdict,
		Protocol: e.protocol, SourcePort: e.sourcePort, Port: e.port, Count: e.flows,
		Origin: policies.Origin{Reporter: policies.OnTheWay},
	}
	first, last := e.times(m)
	if first.IsZero() && last.IsZero() {
		last = m.exported
	}
	if max(first.Unix(), last.Unix()) > lastSecond {
		return flow, "", errors.New("time is beyond the year 9999")
	}
	if err := span(&flow, first, last); err != nil {
		return flow, "", err
	}
	if hasTypes(e.protocol) {
		if e.hasICMP {
			flow.Port = e.icmp
		}
		flow.SourcePort = 0
	}
	e.count(&flow, m.stream)
	if e.hasAntrea {
		e.antrea.complete(&flow)
	}
	if e.isReply(&flow) {
		cause = toRequest(&flow)
	}
	return flow, cause, nil
}

// count sets bytes and packets, as many as there were before sampling.
func (e *exported) count(f *policies.Flow, s *stream) {
	rate := e.samplingRate()
	if rate == 0 {
		rate = s.rate(e.sampler)
	}
	there, back := e.delta, e.answered
	if there == (counts{}) {
		there = e.total
	}
	if back == (counts{}) {
		back = e.answeredTotal
	}
	f.Bytes, f.Packets = scaled(there[0], rate), scaled(there[1], rate)
	f.ReplyBytes, f.ReplyPackets = scaled(back[0], rate), scaled(back[1], rate)
}

// isReply reports whether the record itself tells that it is of replies. The
// flags of several packets do not: the caller's own are SYN and ACK too.
func (e *exported) isReply(f *policies.Flow) bool {
	const answer = tcpSYN | tcpACK
	packets := e.delta[1]
	if packets == 0 {
		packets = e.total[1]
	}
	switch {
	case e.reversed:
		return true
	case e.protocol == netset.TCP:
		return packets == 1 && e.answered == counts{} && e.flags&answer == answer
	}
	// Where there is no element for it, a port of 0 may mean that nothing is known.
	return (e.hasICMP || f.Port != 0) && isICMPReply(f.Protocol, f.Port)
}

func (e *exported) times(m *message) (first, last time.Time) {
	first, last = e.first, e.last
	if e.hasUptimes && first.IsZero() && last.IsZero() {
		switch {
		case e.startedAt != 0:
			first, last = e.sinceStart(e.firstUptime), e.sinceStart(e.lastUptime)
		case m.version != 10:
			first, last = m.sinceStart(e.firstUptime), m.sinceStart(e.lastUptime)
		}
	}
	if e.startsBefore+e.endsBefore > 0 && first.IsZero() && last.IsZero() {
		before := func(n uint64) time.Time {
			return m.exported.Add(-time.Duration(min(n, math.MaxUint32)) * time.Microsecond)
		}
		first, last = before(e.startsBefore), before(e.endsBefore)
	}
	return first, last
}

func (e *exported) sinceStart(uptime uint64) time.Time {
	return unixMilli(e.startedAt+min(uptime, math.MaxUint32), 1)
}

// sinceStart turns an uptime, which begins again after 49 days, into a time.
func (m *message) sinceStart(uptime uint64) time.Time {
	return m.exported.Add(time.Duration(int32(uint32(uptime)-m.uptime)) * time.Millisecond)
}

// verdict is what the record says that became of the traffic, or why that was no
// policy's doing. Most exporters say nothing: they saw packets, but not what
// became of them.
func (e *exported) verdict() (v policies.Verdict, leftOut string) {
	switch {
	case e.hasAntrea:
		return e.antrea.verdict(), ""
	case e.hasFirewall:
		return e.firewallVerdict()
	case e.hasForwarding:
		return e.forwardingVerdict()
	}
	return policies.Unknown, ""
}

// firewallVerdict reads firewallEvent, with the reasons of Cisco's NSEL.
func (e *exported) firewallVerdict() (v policies.Verdict, leftOut string) {
	const (
		created, deleted, denied, updated = 1, 2, 3, 5
		notSYN                            = 1004
	)
	switch e.firewall {
	case created, deleted, updated:
		return policies.Allow, ""
	case denied:
		if e.firewallOn == notSYN {
			return 0, "dropped, but not by policy: first TCP packet is no SYN"
		}
		return policies.Deny, ""
	}
	return policies.Unknown, ""
}

// forwardingVerdict reads forwardingStatus: two bits of status, six of reason.
func (e *exported) forwardingVerdict() (v policies.Verdict, leftOut string) {
	const (
		forwarded, dropped     = 1, 2
		noReason, aclDeny, acl = 128, 129, 130
	)
	switch status := e.forwarding & 0xff; {
	case status>>6 == forwarded:
		return policies.Allow, ""
	case status == aclDeny || status == acl:
		return policies.Deny, ""
	case status>>6 == dropped && status != noReason:
		return 0, fmt.Sprintf("dropped, but not by policy: forwarding status %d", status)
	}
	return policies.Unknown, ""
}

// antrea is what Antrea's flow exporter and aggregator add to a record. It holds
// on to the record.
type antrea struct {
	fromNamespace, fromPod, fromLabels []byte
	toNamespace, toPod, toLabels       []byte
	egress, ingress                    antreaPolicy
	flowType                           uint64
	hasActions                         bool
}

type antreaPolicy struct {
	namespace, name []byte
	kind, action    uint64
}

func (a *antrea) take(element uint16, v []byte) bool {
	switch element {
	case 100:
		a.fromNamespace = v
	case 101:
		a.fromPod = v
	case 102:
		a.toNamespace = v
	case 103:
		a.toPod = v
	case 110:
		a.ingress.name = v
	case 111:
		a.ingress.namespace = v
	case 112:
		a.egress.name = v
	case 113:
		a.egress.namespace = v
	case 115:
		a.ingress.kind = unsigned(v)
	case 118:
		a.egress.kind = unsigned(v)
	case 137:
		a.flowType = unsigned(v)
	case 139:
		a.ingress.action, a.hasActions = unsigned(v), true
	case 140:
		a.egress.action, a.hasActions = unsigned(v), true
	case 143:
		a.fromLabels = v
	case 144:
		a.toLabels = v
	default:
		return false
	}
	return true
}

// What Antrea says that a rule did, and what kind of flow it was.
const (
	antreaAllow, antreaDrop, antreaReject = 1, 2, 3
	antreaBetweenNodes                    = 2
	antreaToOutside                       = 3
	antreaFromOutside                     = 4
)

func (p *antreaPolicy) denies() bool { return p.action == antreaDrop || p.action == antreaReject }

// verdict is that of both ends' rules. Where no rule denied, the connection is
// one that the node tracks, so it was let through.
func (a *antrea) verdict() policies.Verdict {
	switch {
	case !a.hasActions:
		return policies.Unknown
	case a.egress.denies() || a.ingress.denies():
		return policies.Deny
	}
	return policies.Allow
}

// complete adds the names of pods and policies to a flow.
func (a *antrea) complete(f *policies.Flow) {
	end := func(p *policies.FlowPeer, namespace, pod, labels []byte) {
		p.Namespace, p.Pod = clean(namespace), clean(pod)
		if len(labels) > 0 && json.Unmarshal([]byte(clean(labels)), &p.Labels) != nil {
			p.Labels = nil
		}
	}
	end(&f.From, a.fromNamespace, a.fromPod, a.fromLabels)
	end(&f.To, a.toNamespace, a.toPod, a.toLabels)
	f.From.Outside, f.To.Outside = a.flowType == antreaFromOutside, a.flowType == antreaToOutside
	f.Origin.Reporter = policies.UnknownReporter
	switch atSource, atDestination := len(a.fromPod) > 0, len(a.toPod) > 0; {
	case atSource && !atDestination:
		f.Origin.Reporter = policies.SourceSide
	case atDestination && !atSource:
		f.Origin.Reporter = policies.DestinationSide
	}
	f.EgressOnly = f.Verdict == policies.Allow && a.flowType == antreaBetweenNodes && f.Origin.Reporter == policies.SourceSide
	for _, p := range []*antreaPolicy{&a.egress, &a.ingress} {
		if len(p.name) > 0 {
			f.Hits = append(f.Hits, p.hit())
		}
	}
}

func (p *antreaPolicy) hit() policies.Hit {
	kinds := []string{"", "NetworkPolicy", "AntreaNetworkPolicy", "AntreaClusterNetworkPolicy"}
	h := policies.Hit{Policy: policies.Ref{Namespace: clean(p.namespace), Name: clean(p.name)}, Rule: policies.UnknownRule}
	if p.kind < uint64(len(kinds)) {
		h.Policy.Kind = kinds[p.kind]
	}
	switch {
	case p.action == antreaAllow:
		h.Action = policies.ActionAllow
	case p.denies():
		h.Action = policies.ActionDeny
	}
	return h
}
