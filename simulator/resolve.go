package simulator

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// directory finds the ends of one world that records speak of.
type directory struct {
	judge      *reach.Judge
	world      *policies.World
	namespaces map[string]*members
	nodes      map[netip.Addr]int
	named      map[string]int // nodes by their names, and by those of their host endpoints
	pods       map[netip.Addr]int
	services   map[netip.Addr]bool
	workloads  map[policies.Ref]*workload
	outside    *[3]netset.Addresses // by policies.Network: where an end outside can be; nil until it is asked for
}

// members is what a namespace holds.
type members struct {
	workloads []*workload
	pods      map[string]int // by the names of real pods
	addresses bool           // those of some pod are known
}

type workload struct {
	ref  policies.Ref
	pods []int
}

// place is where a record's end is in a world: one end, or several of which the
// record does not say which is meant; or why there is none. A cause that many
// ends may have in common is completed by an example, what this one is called.
type place struct {
	ends           []reach.End
	among          addresses // that the ends are of, where the record does not say which
	since          time.Time // when the pod was made that the address is of, where nothing else tells
	cause, example string
}

// addresses are those that a record may mean, and why it is not known which.
type addresses struct {
	netset.Addresses
	name   policies.Peer
	choice string
}

func nowhere(format string, args ...any) place { return place{cause: fmt.Sprintf(format, args...)} }

func newDirectory(j *reach.Judge) *directory {
	d := &directory{
		judge: j, world: &j.Model().World, namespaces: map[string]*members{},
		nodes: map[netip.Addr]int{}, named: map[string]int{}, pods: map[netip.Addr]int{}, services: map[netip.Addr]bool{},
		workloads: map[policies.Ref]*workload{},
	}
	for _, n := range d.world.Namespaces {
		d.namespaces[n.Name] = &members{pods: map[string]int{}}
	}
	for i := range d.world.Pods {
		p := &d.world.Pods[i]
		ns := d.namespaces[p.Workload.Namespace]
		if ns == nil {
			ns = &members{pods: map[string]int{}}
			d.namespaces[p.Workload.Namespace] = ns
		}
		if p.Ref.Kind == "Pod" {
			ns.pods[p.Ref.Name] = i
		}
		w := d.workloads[p.Workload]
		if w == nil {
			w = &workload{ref: p.Workload}
			d.workloads[p.Workload] = w
			ns.workloads = append(ns.workloads, w)
		}
		w.pods = append(w.pods, i)
		for _, a := range p.Addresses {
			if !p.HostNetwork {
				d.pods[a] = i
				ns.addresses = true
			}
		}
	}
	for i, n := range d.world.Nodes {
		d.named[n.Name] = i
		for _, a := range n.Addresses {
			d.nodes[a] = i
		}
	}
	for _, h := range d.world.Hosts {
		if i, known := d.named[h.Node]; known && h.Ref.Name != h.Node {
			d.named[h.Ref.Name] = i
		}
	}
	for _, s := range d.world.Services {
		for _, a := range s.ClusterIP {
			d.services[a] = true
		}
	}
	return d
}

// private is the addresses of the policies.PrivateNetwork.
var private = netset.Prefixes(
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
)

// outsideIn returns where an end outside can be of which no address was kept: not
// where the world has something itself, nor in IPv6 unless that plays a part.
func (d *directory) outsideIn(n policies.Network) netset.Addresses {
	if d.outside != nil {
		return d.outside[n]
	}
	var inside []netset.Addresses
	for _, known := range []iter.Seq[netip.Addr]{maps.Keys(d.nodes), maps.Keys(d.pods), maps.Keys(d.services)} {
		for a := range known {
			inside = append(inside, netset.AddressSpan(a, a))
		}
	}
	all := netset.Prefix(netset.AllIPv4)
	if d.judge.SpeaksIPv6() {
		all = netset.EveryAddress()
	}
	all = all.Minus(netset.JoinAddresses(inside...)).Minus(netset.Prefixes(d.world.PodCIDRs...))
	d.outside = &[3]netset.Addresses{
		policies.AnyNetwork: all, policies.PublicNetwork: all.Minus(private), policies.PrivateNetwork: all.Intersect(private),
	}
	return d.outside[n]
}

// isNamed reports whether a record's end goes by a namespace, and what is in it.
func isNamed(p *policies.FlowPeer) bool {
	return p.Namespace != "" && !p.Host && !isOutside(p)
}

// isOutside reports whether the recorder says that an end is not of the cluster.
func isOutside(p *policies.FlowPeer) bool {
	return p.Outside || p.Set.Name != "" || p.Network != policies.AnyNetwork
}

// find resolves a record's end by the name of its namespace and pod or
// workload, else by its labels, else by its address, else by what is known of it.
func (d *directory) find(p *policies.FlowPeer) place {
	if isNamed(p) {
		ns := d.namespaces[p.Namespace]
		if ns == nil {
			return nowhere("namespace %s is not in the world", p.Namespace)
		}
		found := d.within(ns, p)
		if i, ok := d.pods[plain(p.Address)]; ok && found.cause != "" && d.world.Pods[i].Workload.Namespace == p.Namespace {
			return d.holder(i, p)
		}
		return found
	}
	return d.byAddress(p)
}

// at is a pod or node at the address that a record tells, if it has that one.
func (d *directory) at(e reach.End, p *policies.FlowPeer) place {
	return place{ends: []reach.End{d.judge.At(e, p.Address)}}
}

// Finder returns what finds the ends of a judge's world that one end of a recorded
// flow may be: none where it is not there, or where the record does not say
// which of several workloads it means.
func Finder(j *reach.Judge) func(*policies.FlowPeer) []reach.End {
	d := newDirectory(j)
	return func(p *policies.FlowPeer) []reach.End { return d.find(p).ends }
}

// within resolves an end by name, else by labels, in its namespace.
func (d *directory) within(ns *members, p *policies.FlowPeer) place {
	var named, likely []*workload
	for _, w := range ns.workloads {
		switch {
		case slices.ContainsFunc(p.Workloads, func(claim policies.Ref) bool { return claims(claim, w.ref) }):
			named = append(named, w)
		case !mayBeOf(p, w.ref):
		case (names(w.ref, p.Pod) || p.Pod == "" && prefixes(w.ref, p.PodPrefix)) && slices.ContainsFunc(w.pods, func(i int) bool { return !contradict(d.world.Pods[i].Labels, p) }):
			likely = append(likely, w)
		}
	}
	if i, ok := ns.pods[p.Pod]; ok && (len(named) == 0 || slices.Contains(named, d.workloads[d.world.Pods[i].Workload])) {
		return d.at(d.judge.Pod(i), p)
	}
	if len(named) == 0 {
		named = likely
	}
	if len(named) == 1 {
		return d.podsOf(named[0], p)
	}
	among := named
	if len(among) == 0 {
		among = ns.workloads
	}
	labelled := d.byLabels(among, p)
	switch {
	case len(labelled) == 1:
		return d.podsOf(labelled[0], p)
	case len(named) > 1:
		return ambiguous(p, named)
	case len(labelled) > 1:
		return ambiguous(p, labelled)
	}
	return place{cause: fmt.Sprintf("no workload of %s matches", p.Namespace), example: describe(p)}
}

func ambiguous(p *policies.FlowPeer, among []*workload) place {
	return place{
		cause:   fmt.Sprintf("several workloads of %s match", p.Namespace),
		example: fmt.Sprintf("%s: %s and %s", describe(p), among[0].ref.Name, among[1].ref.Name),
	}
}

// describe names an end by the best that the record has.
func describe(p *policies.FlowPeer) string {
	switch {
	case p.Pod != "":
		return "pod " + p.Pod
	case p.PodPrefix != "":
		return "pod " + p.PodPrefix + "*"
	case len(p.Workloads) > 0:
		return p.Workloads[0].Kind + " " + p.Workloads[0].Name
	case len(p.Labels) > 0:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
			pairs = append(pairs, key+"="+p.Labels[key])
		}
		return "labels " + strings.Join(pairs, ",")
	}
	return "a record without a name"
}

// contradict reports whether a pod with these labels cannot be the record's.
func contradict(labels map[string]string, p *policies.FlowPeer) bool {
	if p.Labels == nil {
		return false
	}
	for key, value := range labels {
		recorded, has := p.Labels[key]
		if has && recorded != value || !has && !p.LabelsPartial && !generated[key] {
			return true
		}
	}
	return false
}

// generated are the labels that controllers give each pod, beside those of the
// template.
var generated = map[string]bool{
	"pod-template-hash": true, "pod-template-generation": true, "controller-revision-hash": true,
	"statefulset.kubernetes.io/pod-name": true, "apps.kubernetes.io/pod-index": true,
	"batch.kubernetes.io/controller-uid": true, "batch.kubernetes.io/job-name": true, "batch.kubernetes.io/job-completion-index": true,
	"controller-uid": true, "job-name": true,
}

// claims reports whether the owner that a record names is the workload, or was
// made by it: a ReplicaSet of a Deployment, a Job of a CronJob.
func claims(claim, w policies.Ref) bool {
	switch {
	case claim.Name == w.Name:
		return claim.Kind == w.Kind || claim.Kind == ""
	case claim.Kind == "ReplicaSet" && w.Kind == "Deployment", claim.Kind == "Job" && w.Kind == "CronJob":
		suffix, ok := strings.CutPrefix(claim.Name, w.Name+"-")
		return ok && (isHash(suffix) || isNumber(suffix))
	}
	return false
}

// mayBeOf reports whether a record whose owners do not claim a workload may be of
// it by its pod's name: it names no owner, or one of another kind that is called so.
func mayBeOf(p *policies.FlowPeer, w policies.Ref) bool {
	return len(p.Workloads) == 0 || slices.ContainsFunc(p.Workloads, func(claim policies.Ref) bool {
		return claim.Name == w.Name || strings.HasPrefix(claim.Name, w.Name+"-")
	})
}

// names reports whether a pod's name is one that the workload's kind gives.
func names(w policies.Ref, pod string) bool {
	i := strings.LastIndexByte(pod, '-') + 1
	if !prefixes(w, pod[:i]) {
		return false
	}
	if w.Kind == "StatefulSet" {
		return isNumber(pod[i:])
	}
	return isSuffix(pod[i:])
}

// prefixes reports whether the names of a workload's pods may begin so, up to
// and with their last "-".
func prefixes(w policies.Ref, prefix string) bool {
	rest, ok := strings.CutPrefix(prefix, w.Name+"-")
	if !ok || rest != "" && !strings.HasSuffix(rest, "-") {
		return false
	}
	parts := strings.Split(rest, "-")
	parts = parts[:len(parts)-1]
	switch w.Kind {
	case "Deployment":
		return len(parts) == 1 && isHash(parts[0])
	case "CronJob":
		return (len(parts) == 1 || len(parts) == 2 && isNumber(parts[1])) && isNumber(parts[0])
	case "Job":
		return len(parts) == 0 || len(parts) == 1 && isNumber(parts[0])
	case "Pod":
		return false
	}
	return len(parts) == 0
}

// isSuffix reports whether text may end the name of a pod that a controller made.
func isSuffix(text string) bool {
	return len(text) == 5 && !strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// isHash reports whether text may be what a Deployment tells its ReplicaSets
// apart by. Kubernetes writes such hashes without vowels, so that they make no
// words: web-canary-x2x4z is no pod of web.
func isHash(text string) bool {
	return 5 <= len(text) && len(text) <= 10 &&
		!strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune("bcdfghjklmnpqrstvwxz2456789", r) })
}

func isNumber(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// byLabels returns the workloads with a pod of exactly the record's labels;
// when there is none, those with a pod whose labels the record has among its own.
func (d *directory) byLabels(among []*workload, p *policies.FlowPeer) []*workload {
	if len(p.Labels) == 0 {
		return nil
	}
	var exact, contained []*workload
	for _, w := range among {
		best := unlike
		for _, i := range w.pods {
			best = max(best, likeness(d.world.Pods[i].Labels, p.Labels))
		}
		switch best {
		case same:
			exact = append(exact, w)
		case included:
			contained = append(contained, w)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return contained
}

// How much a pod's labels are like those of a record.
const (
	unlike   = iota
	included // the record has them among its own
	same
)

// likeness compares labels without the generated ones. No labels are like none.
func likeness(labels, recorded map[string]string) int {
	n := 0
	for key, value := range labels {
		if generated[key] {
			continue
		}
		if got, has := recorded[key]; !has || got != value {
			return unlike
		}
		n++
	}
	for key := range recorded {
		if !generated[key] {
			n--
		}
	}
	switch {
	case len(labels) == 0:
		return unlike
	case n == 0:
		return same
	}
	return included
}

// podsOf returns the pods of a workload that the record may mean: those with
// its labels, else those that its labels do not contradict, else all.
func (d *directory) podsOf(w *workload, p *policies.FlowPeer) place {
	var all, possible, alike place
	for _, i := range w.pods {
		end, labels := d.judge.Pod(i), d.world.Pods[i].Labels
		all.ends = append(all.ends, end)
		if !contradict(labels, p) {
			possible.ends = append(possible.ends, end)
		}
		if !p.LabelsPartial && likeness(labels, p.Labels) == same {
			alike.ends = append(alike.ends, end)
		}
	}
	for _, found := range []place{alike, possible} {
		if len(found.ends) > 0 {
			return found
		}
	}
	return all
}

// follow finds in this world what a record's end is in the world before it. A
// workload keeps its name where its labels change.
func (d *directory) follow(from *directory, was place, p *policies.FlowPeer) place {
	if was.cause != "" {
		return was
	}
	if was.among.choice != "" {
		return d.anyOf(was.among)
	}
	peer := from.judge.Peer(was.ends[0])
	switch {
	case peer.IsOutside():
		return place{ends: []reach.End{d.judge.Outside(peer.CIDR.Addr())}}
	case was.ends[0] == from.judge.OwnNode():
		return was
	case peer.Kind == "Node":
		i := slices.IndexFunc(d.world.Nodes, func(n policies.Node) bool { return n.Name == peer.Name })
		if i < 0 {
			return nowhere("%s is not in the world", peer)
		}
		return d.at(d.judge.Node(i), p)
	}
	w := d.workloads[policies.Ref{Kind: peer.Kind, Namespace: peer.Namespace, Name: peer.Name}]
	if w == nil {
		peer.Pod = ""
		return nowhere("%s is not in the world", peer)
	}
	if i, ok := d.namespaces[peer.Namespace].pods[peer.Pod]; ok && len(was.ends) == 1 {
		return d.at(d.judge.Pod(i), p)
	}
	return d.podsOf(w, p)
}

// byAddress resolves an end that has no name in the cluster. An address that is
// of no pod and no node of the world is outside only when the recorder says so
// or it cannot be of the cluster: a world read from files knows few addresses.
func (d *directory) byAddress(p *policies.FlowPeer) place {
	a := plain(p.Address)
	switch node, isNode := d.nodes[a]; {
	case isNode:
		return d.at(d.judge.Node(node), p)
	case p.OwnNode:
		return place{ends: []reach.End{d.judge.OwnNode()}}
	case p.Host:
		return d.host(p)
	case !a.IsValid():
		return d.withoutAddress(p)
	case d.services[a]:
		return nowhere("a record names the address of a Service, not of the pod behind it")
	}
	if a, ok := d.outsideAddress(p); ok {
		return place{ends: []reach.End{d.judge.Outside(a)}}
	}
	if i, ok := d.pods[a]; ok {
		return d.holder(i, p)
	}
	return nowhere("an address is of no pod and no node in the world")
}

// holder returns the place of a pod that is known by its address alone.
func (d *directory) holder(pod int, p *policies.FlowPeer) place {
	held := d.at(d.judge.Pod(pod), p)
	held.since = d.world.Pods[pod].Since
	return held
}

// plain returns an address as worlds write it.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// outsideAddress returns the address of an end that is outside by it.
func (d *directory) outsideAddress(p *policies.FlowPeer) (a netip.Addr, ok bool) {
	if !p.Address.IsValid() || p.Host || p.OwnNode || isNamed(p) {
		return netip.Addr{}, false
	}
	a = plain(p.Address)
	_, isNode := d.nodes[a]
	_, isPod := d.pods[a]
	switch {
	case isNode || d.services[a]:
		return a, false
	case isOutside(p):
		return a, true
	}
	return a, !isPod && d.cannotBeInside(a)
}

// host resolves a node that the address does not tell by its own name, or that of
// its host endpoint.
func (d *directory) host(p *policies.FlowPeer) place {
	name := p.Pod
	if len(p.Workloads) > 0 {
		name = p.Workloads[0].Name
	}
	if i, ok := d.named[name]; ok {
		return place{ends: []reach.End{d.judge.Node(i)}}
	}
	switch {
	case name != "":
		return nowhere("node %s is not in the world", name)
	case p.Address.IsValid():
		return nowhere("a node is not in the world")
	}
	return nowhere("a record does not say which node it means")
}

// withoutAddress resolves an end outside whose address was not kept: it is
// whatever end there is in its set, in its network or anywhere outside.
func (d *directory) withoutAddress(p *policies.FlowPeer) place {
	switch {
	case p.Set.Name != "":
		return d.inSet(p.Set)
	case p.Network != policies.AnyNetwork:
		return d.anyOf(addresses{
			d.outsideIn(p.Network), networkPeer(p.Network),
			fmt.Sprintf("the record does not say which address of the %s network it means, and they are decided differently", p.Network),
		})
	case p.Outside:
		return d.anyOf(addresses{
			d.outsideIn(policies.AnyNetwork),
			policies.Peer{Kind: "Network", Name: "outside"},
			"the record does not say which address outside it means, and they are decided differently",
		})
	}
	return nowhere("a record says nothing about one of its ends")
}

func networkPeer(n policies.Network) policies.Peer {
	return policies.Peer{Kind: "Network", Name: n.String() + " network"}
}

func setPeer(r policies.Ref) policies.Peer {
	return policies.Peer{Namespace: r.Namespace, Name: r.Name, Kind: r.Kind}
}

// inSet resolves an end that is some address of a network set. One of a set with
// domains may be anywhere outside.
func (d *directory) inSet(set policies.Ref) place {
	is := func(s policies.NetworkSet) bool {
		return s.Ref.Namespace == set.Namespace && s.Ref.Name == set.Name && (set.Kind == "" || s.Ref.Kind == set.Kind)
	}
	what := strings.TrimSpace(set.Kind + " " + set.String())
	i := slices.IndexFunc(d.world.Sets, is)
	if i < 0 {
		return nowhere("%s is not in the world", what)
	}
	s := &d.world.Sets[i]
	among := netset.Prefixes(s.Nets...)
	if len(s.Domains) > 0 {
		among = among.Union(d.outsideIn(policies.AnyNetwork))
	}
	if among.IsEmpty() {
		return nowhere("%s has no address in the world", what)
	}
	return d.anyOf(addresses{
		among, setPeer(set), fmt.Sprintf("the record does not say which address of the set %s it means, and they are decided differently", set),
	})
}

// anyOf returns the place that is some of these addresses outside: one end for
// all that no rule tells apart.
func (d *directory) anyOf(among addresses) place {
	found := place{among: among}
	known := map[netip.Addr]bool{}
	for _, e := range d.judge.Ends(policies.Target{Addresses: among.Addresses}) {
		if a := d.judge.Alike(d.judge.Peer(e).CIDR.Addr()); !known[a] {
			known[a] = true
			found.ends = append(found.ends, e)
		}
	}
	return found
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func (d *directory) cannotBeInside(a netip.Addr) bool {
	if slices.ContainsFunc(d.world.PodCIDRs, func(c netip.Prefix) bool { return c.Contains(a) }) {
		return false
	}
	if len(d.world.PodCIDRs) > 0 && len(d.world.Nodes) > 0 {
		return true
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// compareEnds orders ends by their names, for a stable answer.
func compareEnds(a, b policies.Peer) int {
	if c := cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name)); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Pod, b.Pod), comparePrefixes(a.CIDR, b.CIDR))
}

func comparePrefixes(a, b *netip.Prefix) int {
	var x, y netip.Prefix
	if a != nil {
		x = *a
	}
	if b != nil {
		y = *b
	}
	return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
}
