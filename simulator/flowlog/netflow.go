package flowlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netsampler/goflow2/v2/decoders/netflow"
	"github.com/netsampler/goflow2/v2/decoders/netflowlegacy"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var ipfixFormat = format{
	name: ipfixName, what: "it is no capture of packets",
	magic: isCapture, read: readCapture,
}

var netflowFormat = format{
	name: netflowName, what: "it is no capture of packets",
	magic: isCapture, read: readCapture,
}

// Lengths in bytes.
const (
	netflow5Header, netflow5Record = 24, 48
	netflow9Header                 = 20
	ipfixHeader                    = 16
	setHeader                      = 4
)

// firstDataSet is the lowest number of a set of data, and so of a template.
const firstDataSet = 256

// template says what the records of a set are made of.
type template struct {
	fields  []templateField
	options bool // the records are about the exporter, not of flows
	least   int  // how many bytes a record takes at least
}

type templateField struct {
	name   fieldName
	length int // in bytes; variable when the record says it
}

// fieldName is an enterprise's number and that of its element; the enterprise 0
// stands for IANA.
type fieldName struct {
	enterprise uint32
	element    uint16
}

const variable = 0xffff

// message is what the header of a datagram says about the records in it.
type message struct {
	stream   *stream
	version  uint16
	exported time.Time
	uptime   uint32 // of the exporter then, in milliseconds; NetFlow only
	place    policies.Place
	format   string
}

func (d *Datagrams) netflow5(b []byte, exporter netip.Addr, _ time.Time) error {
	var p netflowlegacy.PacketNetFlowV5
	if err := netflowlegacy.DecodeMessageVersion(bytes.NewBuffer(b), &p); err != nil {
		return err
	}
	s := d.streamOf(streamKey{exporter, 5, uint64(p.EngineType)<<8 | uint64(p.EngineId)})
	if s == nil {
		return errCrowded
	}
	s.arrived(&d.stats, p.FlowSequence, uint32(p.Count))
	m := message{stream: s, version: 5, exported: time.Unix(int64(p.UnixSecs), int64(p.UnixNSecs)).UTC(), uptime: p.SysUptime}
	for i := range p.Records {
		r := &p.Records[i]
		e := exported{
			from: ip4(r.SrcAddr), to: ip4(r.DstAddr), protocol: netset.Protocol(r.Proto), sourcePort: r.SrcPort, port: r.DstPort,
			flags: uint16(r.TCPFlags), rate: uint64(p.SamplingInterval & 0x3fff),
		}
		e.delta[0], e.delta[1] = uint64(r.DOctets), uint64(r.DPkts)
		e.firstUptime, e.lastUptime, e.hasUptimes = uint64(r.First), uint64(r.Last), true
		d.hand(&e, &m)
	}
	return nil
}

func ip4(a netflowlegacy.IPAddress) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

func (d *Datagrams) netflow9(b []byte, exporter netip.Addr, _ time.Time) error {
	var p netflow.NFv9Packet
	err := netflow.DecodeMessageVersion(bytes.NewBuffer(b), noTemplates{}, &p, nil)
	s := d.streamOf(streamKey{exporter, 9, uint64(p.SourceId)})
	if s == nil {
		return errCrowded
	}
	s.arrived(&d.stats, p.SequenceNumber, 1) // it counts datagrams
	m := message{stream: s, version: 9, exported: time.Unix(int64(p.UnixSeconds), 0).UTC(), uptime: p.SystemUptime, place: d.at, format: d.format}
	_, _, errSets := d.sets(p.FlowSets, &m)
	return errors.Join(mistake(err), errSets)
}

func (d *Datagrams) ipfix(b []byte, exporter netip.Addr, _ time.Time) error {
	var p netflow.IPFIXPacket
	err := netflow.DecodeMessageVersion(bytes.NewBuffer(b), noTemplates{}, nil, &p)
	s := d.streamOf(streamKey{exporter, 10, uint64(p.ObservationDomainId)})
	if s == nil {
		return errCrowded
	}
	m := message{stream: s, version: 10, exported: time.Unix(int64(p.ExportTime), 0).UTC(), place: d.at, format: d.format}
	records, whole, errSets := d.sets(p.FlowSets, &m)
	s.arrived(&d.stats, p.SequenceNumber, records) // it counts records
	err = errors.Join(mistake(err), errSets)
	s.counted = s.counted && whole && err == nil
	return err
}

// mistake is what is wrong with a message besides that noTemplates has none.
func mistake(err error) error {
	if err == nil || errors.Is(err, netflow.ErrorTemplateNotFound) {
		return nil
	}
	return fmt.Errorf("not a whole message: %w", innermost(err))
}

// innermost is an error without the library's names for its layers.
func innermost(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

// noTemplates has the library hand over all data as it is: it would decode
// without bounds what templates that say nothing describe.
type noTemplates struct{}

func (noTemplates) AddTemplate(uint16, uint32, uint16, any) error { return nil }
func (noTemplates) GetTemplates() netflow.FlowBaseTemplateSet     { return nil }
func (noTemplates) GetTemplate(uint16, uint32, uint16) (any, error) {
	return nil, netflow.ErrorTemplateNotFound
}

func (noTemplates) RemoveTemplate(uint16, uint32, uint16) (any, error) {
	return nil, netflow.ErrorTemplateNotFound
}

// sets decodes the sets of a message in order. It returns how many records they
// held, and whether those are all of them.
func (d *Datagrams) sets(sets []any, m *message) (records uint32, whole bool, err error) {
	whole = true
	for _, set := range sets {
		switch set := set.(type) {
		case netflow.TemplateFlowSet:
			for _, r := range set.Records {
				d.learn(m, r.TemplateId, nil, r.Fields, false)
			}
		case netflow.NFv9OptionsTemplateFlowSet:
			for _, r := range set.Records {
				// The numbers of its scopes are of another list than those of elements.
				scopes := make([]netflow.Field, len(r.Scopes))
				for i, scope := range r.Scopes {
					scopes[i] = netflow.Field{Length: scope.Length}
				}
				d.learn(m, r.TemplateId, scopes, r.Options, true)
			}
		case netflow.IPFIXOptionsTemplateFlowSet:
			for _, r := range set.Records {
				d.learn(m, r.TemplateId, r.Scopes, r.Options, true)
			}
		case netflow.RawFlowSet:
			t := m.stream.templates[set.Id]
			if t == nil {
				d.waiting.keep(d.sink, m, set.Id, set.Records)
				whole = false
				continue
			}
			n, errRecords := d.records(t, set.Records, m)
			records += n
			err = errors.Join(err, errRecords)
		}
	}
	return records, whole, err
}

// learn keeps a template, and decodes the data that waited for it. A template
// without fields withdraws the one before.
func (d *Datagrams) learn(m *message, id uint16, scopes, fields []netflow.Field, options bool) {
	t := &template{options: options}
	for _, list := range [][]netflow.Field{scopes, fields} {
		for _, f := range list {
			// Of options, the library leaves the mark of an enterprise in the number.
			field := templateField{fieldName{f.Pen, f.Type &^ 0x8000}, int(f.Length)}
			if m.version == 9 {
				field.name.element = f.Type
			}
			t.fields = append(t.fields, field)
			if field.length == variable && m.version == 10 {
				t.least++
			} else {
				t.least += field.length
			}
		}
	}
	if old := m.stream.templates[id]; old != nil {
		d.fields -= len(old.fields)
		delete(m.stream.templates, id)
	}
	switch {
	case id < firstDataSet:
		d.leaveOut("template with an impossible number")
	case t.least == 0 && len(t.fields) > 0:
		d.leaveOut("template of records without length")
	case len(t.fields) == 0:
	case d.fields+len(t.fields) > maxFields:
		d.leaveOut("template beyond what is kept")
	default:
		d.fields += len(t.fields)
		if m.stream.templates == nil {
			m.stream.templates = map[uint16]*template{}
		}
		m.stream.templates[id] = t
		d.waiting.release(m.stream, id, func(m *message, data []byte) {
			at := d.at
			d.at, d.format = m.place, m.format
			if _, err := d.records(t, data, m); err != nil {
				d.bad(err)
			}
			d.at = at
		})
	}
}

// records decodes data as its template says, up to padding.
func (d *Datagrams) records(t *template, data []byte, m *message) (n uint32, err error) {
	for len(data) >= t.least {
		var ok bool
		if data, ok = d.split(t, data, m.version); !ok {
			if n > 0 && t.least < 4 {
				break // what looked like another record was padding
			}
			return n, errors.New("a record is longer than its set")
		}
		n++
		if t.options {
			d.option(t, m)
		} else {
			e := exported{}
			for i, f := range t.fields {
				e.take(f.name, d.values[i])
			}
			d.hand(&e, m)
		}
	}
	return n, nil
}

// split cuts the next record into the values of its fields.
func (d *Datagrams) split(t *template, data []byte, version uint16) (rest []byte, ok bool) {
	d.values = d.values[:0]
	for _, f := range t.fields {
		length := f.length
		if length == variable && version == 10 {
			if len(data) == 0 {
				return nil, false
			}
			length, data = int(data[0]), data[1:]
			if length == 0xff {
				if len(data) < 2 {
					return nil, false
				}
				length, data = int(binary.BigEndian.Uint16(data)), data[2:]
			}
		}
		if length > len(data) {
			return nil, false
		}
		d.values = append(d.values, data[:length])
		data = data[length:]
	}
	return data, true
}

// option takes what an exporter says of its sampling, and leaves out the rest of
// what it says of itself.
func (d *Datagrams) option(t *template, m *message) {
	var sampling exported
	for i, f := range t.fields {
		sampling.take(f.name, d.values[i])
	}
	m.stream.setRate(sampling.sampler, sampling.samplingRate())
	d.leaveOut("exporter's description of itself")
}

// waiting is data whose template has not come yet, oldest first.
type waiting struct {
	sets  []waitingSet
	bytes int
}

type waitingSet struct {
	message
	id   uint16
	data []byte
}

// maxWaiting is how many bytes wait at most, and maxWaitingSets how many sets.
const (
	maxWaiting     = 4 << 20
	maxWaitingSets = 1 << 12
)

func (w *waiting) keep(s *sink, m *message, id uint16, data []byte) {
	w.sets = append(w.sets, waitingSet{*m, id, bytes.Clone(data)})
	w.bytes += len(data)
	if w.bytes > maxWaiting || len(w.sets) > maxWaitingSets {
		w.giveUp(s, len(w.sets)/2)
	}
}

// giveUp leaves out the oldest sets, but for so many. How many records a set has
// nobody can tell.
func (w *waiting) giveUp(s *sink, but int) {
	n := len(w.sets) - but
	for _, set := range w.sets[:n] {
		w.bytes -= len(set.data)
		s.stats.Lost++
		s.leaveOut("data whose template never came")
	}
	w.sets = append(w.sets[:0:0], w.sets[n:]...)
}

// release decodes what waited for the template of a stream.
func (w *waiting) release(s *stream, id uint16, decode func(*message, []byte)) {
	keep := w.sets[:0]
	for i := range w.sets {
		set := &w.sets[i]
		if set.stream != s || set.id != id {
			keep = append(keep, *set)
			continue
		}
		w.bytes -= len(set.data)
		decode(&set.message, set.data)
	}
	clear(w.sets[len(keep):])
	w.sets = keep
}
