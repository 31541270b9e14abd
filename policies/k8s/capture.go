package k8s

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// What the API server takes of a PacketCapture, at most.
const (
	mostFilters      = 16
	mostFilterItems  = 16 // of ports and of addresses
	leastFileBytes   = 64 << 10
	mostFileBytes    = 1 << 40
	mostFiles        = 1000
	leastSnapLength  = 64
	mostSnapLength   = 256 << 10
	leastRotateEvery = time.Second
)

// ReadCaptures returns the PacketCaptures among documents that come from Parse, in
// their order; all other kinds are left to Read, which in turn leaves these out.
// Of the options, the namespace of objects that name none counts. The error joins
// every policies.Problem found; there are no captures then.
func ReadCaptures(docs []Document, o Options) ([]policies.Capture, error) {
	r := newReader(o)
	var all []policies.Capture
	r.take = func(v value, kind, version string) {
		if r.isOurs(v, kind, version, v1alpha1.KindPacketCapture) {
			if o, ok := r.object(v, kind, v1alpha1.Group, false); ok {
				all = append(all, readCapture(o))
			}
		}
	}
	for _, d := range docs {
		if mayHold(d.Node, v1alpha1.KindPacketCapture) {
			r.document(d)
		}
	}
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	return all, nil
}

func readCapture(o object) policies.Capture {
	o.only(objectFields...)
	o.meta.only(metaFields...)
	spec := o.need("spec", "say there whose packets are kept; {} is those of every pod of the namespace")
	spec.only("selector", "filters", "startTime", "endTime", "maxFileBytes", "rotateInterval", "maxFiles", "maxPackets", "snapLength")
	c := policies.Capture{Ref: o.ref, Pods: spec.field("selector").selector(), Place: o.place()}
	for _, item := range spec.field("filters").atLeastOne(mostFilters) {
		c.Filters = append(c.Filters, item.captureFilter())
	}
	start, end := spec.field("startTime"), spec.field("endTime")
	c.Start, c.End = start.moment(), end.moment()
	if !c.Start.IsZero() && !c.End.IsZero() && !c.Start.Before(c.End) {
		end.problem("endTime %s is not after startTime %s; a capture ends after it starts", c.End.Format(time.RFC3339), c.Start.Format(time.RFC3339))
	}
	c.MaxFileBytes, _ = spec.field("maxFileBytes").integer(leastFileBytes, mostFileBytes)
	c.Rotate = spec.field("rotateInterval").duration(leastRotateEvery)
	files, _ := spec.field("maxFiles").integer(1, mostFiles)
	packets, _ := spec.field("maxPackets").integer(1, 1<<62)
	snap, _ := spec.field("snapLength").integer(leastSnapLength, mostSnapLength)
	c.MaxFiles, c.MaxPackets, c.SnapLength = int(files), uint64(packets), int(snap)
	return c
}

func (v value) captureFilter() (f policies.CaptureFilter) {
	v.name = "a filter"
	v.only("protocol", "ports", "addresses")
	if v.wants(mapping, "a mapping") && len(v.node.Content) == 0 {
		v.problem("a filter says nothing; give it protocol, ports or addresses, or leave out the filters to keep all packets")
	}
	protocol := v.field("protocol")
	if text := protocol.text(); text != "" {
		p, err := netset.ParseProtocol(text)
		if err != nil || p == 0 {
			protocol.problem("protocol %q is none of TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 1 to 255", text)
		}
		f.Protocol = p
	} else if protocol.present() && isText(protocol.node) {
		protocol.problem("protocol is empty; leave it out for any")
	}
	ports := v.field("ports")
	for _, item := range ports.atLeastOne(mostFilterItems) {
		if span, ok := item.portSpan(); ok {
			f.Ports = append(f.Ports, span)
		}
	}
	if ports.present() && f.Protocol != 0 && !f.Protocol.HasPorts() {
		ports.problem("protocol %s has no ports; ports go with TCP, UDP and SCTP", f.Protocol)
	}
	for _, item := range v.field("addresses").atLeastOne(mostFilterItems) {
		if a, err := netip.ParseAddr(item.node.Value); err == nil && a.Zone() == "" {
			a = a.Unmap()
			f.Addresses = append(f.Addresses, netip.PrefixFrom(a, a.BitLen()))
		} else if p, ok := item.networkOnly(); ok {
			f.Addresses = append(f.Addresses, p)
		}
	}
	return f
}

// portSpan reads 80, or "8000-8100".
func (v value) portSpan() (s policies.PortSpan, ok bool) {
	if !v.wants(scalar, "a port") {
		return s, false
	}
	text := v.node.Value
	if v.node.Tag != "!!int" {
		text = v.text()
	}
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	first, errFirst := strconv.ParseUint(low, 10, 16)
	last, errLast := strconv.ParseUint(high, 10, 16)
	switch {
	case text == "" && !isText(v.node): // reported
	case errFirst != nil || errLast != nil || first == 0 || last == 0:
		v.problem("port %q is neither a number from 1 to 65535 nor a range such as 8000-8100", text)
	case first > last:
		v.problem("port range %s ends before it begins; swap its ends", text)
	default:
		return policies.PortSpan{First: uint16(first), Last: uint16(last)}, true
	}
	return s, false
}

// moment reads a time, zero where it is absent or was reported.
func (v value) moment() time.Time {
	text := v.text()
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		v.problem("%s %q is not a time such as 2026-03-01T12:00:00Z", v.name, text)
	}
	return t.UTC()
}

// duration reads a span of time, zero where it is absent or was reported.
func (v value) duration(least time.Duration) time.Duration {
	text := v.text()
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		v.problem("%s %q is not a span of time such as 30m or 1h", v.name, text)
	case d < least:
		v.problem("%s %s is below %s", v.name, text, least)
	}
	return d
}
