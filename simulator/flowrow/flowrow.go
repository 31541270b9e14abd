// Package flowrow is the columns in which flows are stored: the same in Parquet
// files and in a database, so that one can take over what the other has.
//
// What an end of a flow is, twelve text columns say. All of them but the
// addresses, the DNS names and what is random in a pod's name make its identity;
// two identities, a protocol and a port make a tuple, which is decided once.
package flowrow

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// The text columns that say what one end of a flow is, in their order.
const (
	Namespace = iota
	Kind
	Name
	Pod
	PodPrefix
	Owners
	Labels
	LabelsState
	IP
	Network
	Set
	Names
	Texts // how many there are
)

// Columns are their names, without the src_ or dst_ before them.
var Columns = [Texts]string{
	"namespace", "kind", "name", "pod", "pod_prefix", "owners", "labels", "labels_state", "ip", "network", "set", "names",
}

// End is one end of a flow, as the columns say it.
type End [Texts]string

// EndOf returns what the columns say of a peer.
func EndOf(p *policies.FlowPeer) End {
	e := End{
		Namespace: p.Namespace, Pod: p.Pod, PodPrefix: p.PodPrefix, Owners: formatOwners(p),
		Labels: FormatLabels(p.Labels), LabelsState: labelsState(p), IP: formatAddress(p.Address),
		Network: formatNetwork(p), Set: FormatRef(p.Set), Names: formatNames(p.Names),
	}
	if len(p.Workloads) > 0 {
		e[Kind], e[Name] = p.Workloads[0].Kind, p.Workloads[0].Name
	}
	return e
}

// Peer returns the peer that the columns describe, or an error that names what
// cannot be read.
func (e *End) Peer() (policies.FlowPeer, error) {
	labels, err := ParseLabels(e[Labels])
	if err != nil {
		return policies.FlowPeer{}, err
	}
	return e.PeerWith(labels)
}

// PeerWith is Peer for an end whose labels are known already: ends that have the
// same can share them.
func (e *End) PeerWith(labels map[string]string) (policies.FlowPeer, error) {
	p := policies.FlowPeer{Namespace: e[Namespace], Pod: e[Pod], PodPrefix: e[PodPrefix]}
	var errs [5]error
	p.Workloads, errs[0] = parseOwners(e[Owners], e[Kind], e[Namespace], e[Name])
	p.Address, errs[1] = ParseAddress(e[IP])
	p.Set, errs[2] = parseRef(e[Set])
	p.Names, errs[3] = split(e[Names], ",")
	errs[4] = parseNetwork(e[Network], &p)
	state, hidden := strings.CutSuffix(e[LabelsState], " "+stateNone)
	p.LabelsPartial = state == statePartial
	if state != stateNone && !hidden {
		p.Labels = labels
	}
	for _, err := range errs {
		if err != nil {
			return policies.FlowPeer{}, err
		}
	}
	return p, nil
}

// Identity returns the end without what its tuples leave out: addresses and DNS
// names, and of a pod's name what its workload or prefix says already.
func (e *End) Identity() End {
	kept := *e
	kept[IP], kept[Names] = "", ""
	switch {
	case kept[Pod] == "":
	case kept[Name] != "" || kept[PodPrefix] != "":
		kept[Pod] = ""
	default:
		if prefix := generatedPrefix(kept[Pod]); prefix != "" {
			kept[Pod], kept[PodPrefix] = "", prefix
		}
	}
	return kept
}

// Hash returns a number for the end's identity.
func (e *End) Hash() uint64 {
	kept := e.Identity()
	var b []byte
	for _, text := range kept {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return xxhash.Sum64(b)
}

// generatedPrefix returns a pod's name without the suffix that its ReplicaSet
// gave it, where it surely has one: web-7d9c8b6f5-x2x4z, and not db-mssql.
func generatedPrefix(pod string) string {
	last := strings.LastIndexByte(pod, '-')
	if last < 0 {
		return ""
	}
	hash := strings.LastIndexByte(pod[:last], '-')
	if hash <= 0 || len(pod)-last-1 != 5 || last-hash-1 < 8 || last-hash-1 > 10 {
		return ""
	}
	generated := func(text string) bool {
		return !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune("bcdfghjklmnpqrstvwxz2456789", r) })
	}
	if !generated(pod[last+1:]) || !generated(pod[hash+1:last]) || !strings.ContainsAny(pod[hash+1:last], "2456789") {
		return ""
	}
	return pod[:last+1]
}

// TupleID returns the ID of the tuple of two ends, of which the hashes are
// given. A pod that talks to itself has a tuple of its own.
func TupleID(from, to *End, fromHash, toHash uint64, protocol netset.Protocol, port uint16) uint64 {
	var bytes [20]byte
	binary.LittleEndian.PutUint64(bytes[0:], fromHash)
	binary.LittleEndian.PutUint64(bytes[8:], toHash)
	binary.LittleEndian.PutUint16(bytes[16:], port)
	bytes[18] = byte(protocol)
	if from[Pod] != "" && from[Pod] == to[Pod] && from[Namespace] == to[Namespace] {
		bytes[19] = 1
		return xxhash.Sum64(append(bytes[:], from[Pod]...))
	}
	return xxhash.Sum64(bytes[:])
}

// ProtocolText returns the word for a protocol, empty where none is known.
func ProtocolText(p netset.Protocol) string {
	if p == 0 {
		return ""
	}
	return p.String()
}

// ParseProtocol reads what ProtocolText returns.
func ParseProtocol(text string) (netset.Protocol, error) {
	if text == "" {
		return 0, nil
	}
	return netset.ParseProtocol(text)
}

// VerdictText returns the word for a verdict, empty for Undecided.
func VerdictText(v policies.Verdict) string {
	if v == policies.Undecided {
		return ""
	}
	return v.String()
}

// ParseVerdict reads what VerdictText returns.
func ParseVerdict(text string) (v policies.Verdict, err error) {
	if text != "" {
		err = v.UnmarshalText([]byte(text))
	}
	return v, err
}

// HourMicros is an hour, in the microseconds of the columns.
const HourMicros = int64(time.Hour / time.Microsecond)

// HourOf returns when the hour of a moment begins, both in microseconds.
func HourOf(micros int64) int64 {
	rest := micros % HourMicros
	if rest < 0 {
		rest += HourMicros
	}
	return micros - rest
}

// Moment returns a time of a column; that of the zero time is zero again.
func Moment(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

func formatAddress(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// ParseAddress reads an address; none of an empty text.
func ParseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}
