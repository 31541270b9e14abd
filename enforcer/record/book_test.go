//go:build linux

package record

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// twoPods is a generation with two pods of the node, and no policy.
func twoPods() Generation {
	m := &policies.Model{World: policies.World{Namespaces: []policies.Namespace{{Name: "shop"}}}}
	for i, name := range []string{"db-0", "web-0"} {
		ref := policies.Ref{Kind: "Pod", Namespace: "shop", Name: name}
		m.Pods = append(m.Pods, policies.Pod{Ref: ref, Workload: ref, Replicas: 1, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}})
	}
	return Generation{Number: 1, Since: time.Unix(0, 0), Input: nft.Input{Pods: []int{0, 1}, Judge: reach.New(m, reach.Options{})}}
}

func newTestBook(level Level) *book {
	b := newBook(level)
	b.enforce(newView(twoPods(), &Options{Level: level}))
	return b
}

// kernel is what a kernel does, told late and out of order as sockets do.
type fakeKernel struct {
	t      *rapid.T
	now    int64
	there  []*conntrack.Connection
	events [2][]told // those that are told the first time, and ends that are told again later
	total  map[uint16][2]conntrack.Counters
	begun  map[uint16]int
	ended  map[uint16]int
}

type told struct {
	ends bool
	of   conntrack.Connection
}

func (k *fakeKernel) begin() {
	port := uint16(rapid.IntRange(1, 4).Draw(k.t, "port"))
	if slices.ContainsFunc(k.there, func(c *conntrack.Connection) bool { return c.Original.SourcePort == port }) {
		return
	}
	k.now++
	to := conntrack.Tuple{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: netset.TCP, SourcePort: port, DestinationPort: 80}
	back := conntrack.Tuple{Source: to.Destination, Destination: to.Source, Protocol: netset.TCP, SourcePort: 80, DestinationPort: port}
	c := &conntrack.Connection{Original: to, Reply: back, ID: uint32(rapid.IntRange(1, 2).Draw(k.t, "id")), Start: k.now, Counted: true}
	k.there = append(k.there, c)
	k.begun[port]++
	if rapid.IntRange(0, 4).Draw(k.t, "begin is told") == 0 {
		c.Mark = 1
	} else {
		event := *c
		event.Start, event.Counters, event.Counted = 0, [2]conntrack.Counters{}, false
		k.events[0] = append(k.events[0], told{false, event})
	}
}

func (k *fakeKernel) carry() {
	if len(k.there) == 0 {
		return
	}
	c := k.there[rapid.IntRange(0, len(k.there)-1).Draw(k.t, "carries")]
	way := rapid.IntRange(0, 1).Draw(k.t, "way")
	c.Counters[way].Packets++
	c.Counters[way].Bytes += 40
	all := k.total[c.Original.SourcePort]
	all[way].Packets++
	all[way].Bytes += 40
	k.total[c.Original.SourcePort] = all
}

func (k *fakeKernel) end() {
	if len(k.there) == 0 {
		return
	}
	i := rapid.IntRange(0, len(k.there)-1).Draw(k.t, "ends")
	c := *k.there[i]
	k.now++
	c.Stop = k.now
	k.there = slices.Delete(k.there, i, i+1)
	k.ended[c.Original.SourcePort]++
	late := 0
	if c.Mark == 0 { // its beginning was told
		late = rapid.IntRange(0, 1).Draw(k.t, "told late")
	}
	k.events[late] = append(k.events[late], told{true, c})
	if rapid.IntRange(0, 4).Draw(k.t, "told twice") == 0 {
		k.events[1] = append(k.events[1], told{true, c})
	}
}

// tell tells a book some events.
func (k *fakeKernel) tell(b *book, queue, most int) {
	for ; most > 0 && len(k.events[queue]) > 0; most-- {
		e := k.events[queue][0]
		k.events[queue] = k.events[queue][1:]
		if e.ends {
			b.end(&e.of, k.now)
		} else {
			b.begin(&e.of, k.now)
		}
	}
}

// Whatever is told late, twice or never, and however often the recorder is stopped and
// goes on, what it records of each connection is what the kernel counted.
func TestBookIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fakeKernel{t: t, now: 100, total: map[uint16][2]conntrack.Counters{}, begun: map[uint16]int{}, ended: map[uint16]int{}}
		b := newTestBook(0)
		var dump []*conntrack.Connection // what the look that is under way has not come to yet
		looking, quiet := false, false
		got := map[uint16]sum{}
		flush := func() {
			for l, s := range b.close() {
				n := got[l.sourcePort]
				n.started += s.started
				n.ended += s.ended
				for way := range n.counters {
					n.counters[way].Packets += s.counters[way].Packets
					n.counters[way].Bytes += s.counters[way].Bytes
				}
				if s.count == 0 && s.started+s.ended > 0 {
					t.Fatalf("a record counts no connection: %+v", s)
				}
				got[l.sourcePort] = n
			}
		}
		look := func() {
			b.lookAtAll(k.now)
			looking, dump = true, slices.Clone(k.there)
		}
		see := func(most int) {
			for ; most > 0 && len(dump) > 0; most-- {
				c := *dump[0]
				is := slices.Contains(k.there, dump[0])
				dump = dump[1:]
				if !is {
					continue // it ended before the kernel got there
				}
				for n := rapid.IntRange(0, 3).Draw(t, "meanwhile"); n > 0 && !quiet; n-- {
					[]func(){k.begin, k.carry, k.end}[rapid.IntRange(0, 2).Draw(t, "what")]()
				}
				k.tell(b, 0, len(k.events[0]))
				b.see(&c, k.now)
			}
			if looking && len(dump) == 0 {
				// No end is told again for longer than from one look to the next.
				k.tell(b, 0, len(k.events[0]))
				k.tell(b, 1, len(k.events[1]))
				b.looked(k.now)
				looking = false
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(*rapid.T) { k.begin() },
			"carry": func(*rapid.T) { k.carry() },
			"end":   func(*rapid.T) { k.end() },
			"tell":  func(t *rapid.T) { k.tell(b, 0, rapid.IntRange(1, 4).Draw(t, "n")) },
			"late": func(t *rapid.T) {
				k.tell(b, 0, len(k.events[0])) // what is told again comes behind what waits
				k.tell(b, 1, rapid.IntRange(1, 4).Draw(t, "n"))
			},
			"flush": func(*rapid.T) { flush() },
			"look": func(t *rapid.T) {
				if !looking {
					look()
				}
				see(rapid.IntRange(1, 4).Draw(t, "n"))
			},
			"again": func(*rapid.T) {
				see(len(dump))
				flush()
				again := newTestBook(0)
				c, err := b.checkpoint(time.Unix(0, k.now)).encode()
				if err != nil {
					t.Fatal(err)
				}
				remembered, err := decodeCheckpoint(c)
				if err != nil {
					t.Fatal(err)
				}
				remembered.restore(again)
				again.ended, again.seed = b.ended, b.seed
				b = again
				look()
			},
		})
		quiet = true
		see(len(dump))
		for range 2 {
			look()
			see(len(dump))
		}
		flush()
		want := map[uint16]sum{}
		for port := range k.begun {
			want[port] = sum{started: uint64(k.begun[port]), ended: uint64(k.ended[port]), counters: k.total[port]}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(sum{})); diff != "" {
			t.Errorf("recorded is something else than what was there (-want +got)\n%s\n%+v", diff, b.counts)
		}
		if b.open != len(k.there) || len(b.counts.Lost) > 0 {
			t.Errorf("%d are open, want %d; lost %v", b.open, len(k.there), b.counts.Lost)
		}
	})
}

// What was logged and what was not is, together, what was counted.
func TestDenialsAreExact(t *testing.T) {
	packet := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80}
	rapid.Check(t, func(t *rapid.T) {
		b := newTestBook(rapid.SampledFrom([]Level{0, 1, 2, 3}).Draw(t, "level"))
		table := map[string]uint64{}
		total, onTheWay := uint64(0), 0
		recorded := uint64(0)
		flush := func() {
			for _, s := range b.close() {
				recorded += s.counters[0].Packets
				if s.count != s.counters[0].Packets {
					t.Fatalf("%d denials of %d packets", s.count, s.counters[0].Packets)
				}
			}
			if recorded > total {
				t.Fatalf("%d denials are recorded of %d", recorded, total)
			}
		}
		mark := nft.Mark{Verdict: 'D', Direction: policies.Ingress, ID: 0xabc}
		t.Repeat(map[string]func(*rapid.T){
			"deny": func(t *rapid.T) {
				table["ingress4_000000000abc_denied"]++
				total++
				if rapid.Bool().Draw(t, "logged") {
					onTheWay++
				}
			},
			"nobody": func(*rapid.T) { table["egress6_none"]++; total++ },
			"log": func(*rapid.T) {
				if onTheWay > 0 {
					onTheWay--
					b.logged(mark, packet, 1)
				}
			},
			"read": func(*rapid.T) {
				for ; onTheWay > 0; onTheWay-- { // none is on its way for longer than from one reading to the next
					b.logged(mark, packet, 1)
				}
				b.counted(maps.Clone(table), 1, false)
			},
			"flush": func(*rapid.T) { flush() },
			"load anew": func(*rapid.T) {
				for ; onTheWay > 0; onTheWay-- {
					b.logged(mark, packet, 1)
				}
				b.counted(maps.Clone(table), 1, false)
				clear(table)
				b.counted(maps.Clone(table), 1, false)
			},
		})
		for ; onTheWay > 0; onTheWay-- {
			b.logged(mark, packet, 1)
		}
		b.counted(table, 1, true)
		flush()
		if recorded != total || b.counts.Denied != total {
			t.Errorf("%d denials are recorded, and %d counted, of %d", recorded, b.counts.Denied, total)
		}
	})
}

func TestPacketOf(t *testing.T) {
	six := append([]byte{0x60, 0, 0, 0, 0, 24, 0, 64}, make([]byte, 32)...)
	six[23], six[39] = 1, 2
	ports := []byte{0x9c, 0x40, 0, 80}
	four := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	with := func(head []byte, at int, value byte, more ...byte) []byte {
		head = slices.Clone(head)
		head[at] = value
		return append(head, more...)
	}
	for _, tt := range []struct {
		name string
		text []byte
		want string
	}{
		{"UDP", append(slices.Clone(four), ports...), "10.0.0.1 10.0.0.2 UDP 40000 80 40 true"},
		{"a fragment that is not the first", with(four, 7, 1, ports...), "10.0.0.1 10.0.0.2 UDP 0 0 40 true"},
		{"a ping", with(four, 9, 1, 8, 0), "10.0.0.1 10.0.0.2 ICMP 0 2048 40 true"},
		{"cut off behind its head", four, "10.0.0.1 10.0.0.2 UDP 0 0 40 true"},
		{"TCP over IPv6", with(six, 6, 6, ports...), "::1 ::2 TCP 40000 80 64 true"},
		{"behind options for each hop", with(six, 6, 0, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, ports...)...), "::1 ::2 TCP 40000 80 64 true"},
		{"a first fragment", with(six, 6, 44, append([]byte{17, 0, 0, 1, 0, 0, 0, 0}, ports...)...), "::1 ::2 UDP 40000 80 64 true"},
		{"a later fragment", with(six, 6, 44, append([]byte{17, 0, 0, 8, 0, 0, 0, 0}, ports...)...), "::1 ::2 UDP 0 0 64 true"},
		{"nothing", nil, "invalid IP invalid IP 0 0 0 0 false"},
	} {
		p, ok := packetOf(tt.text)
		if got := fmt.Sprint(p.from, p.to, " ", p.protocol, p.sourcePort, p.port, p.size, ok); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzLogEntry(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x05\x0c\x00\x0a\x00D|ingre\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, payload, _, _, err := entryOf(body); err == nil {
			packetOf(payload)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	b := newTestBook(0)
	c, err := b.checkpoint(time.Unix(1, 0)).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c)
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := decodeCheckpoint(text); err == nil {
			c.restore(newTestBook(0))
		}
	})
}
