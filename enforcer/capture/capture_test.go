//go:build linux

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// wire is a source that gives what it is told to.
type wire struct {
	packets chan gopacket.CaptureInfo
	gone    chan struct{}
	data    []byte
}

func (w *wire) read() ([]byte, gopacket.CaptureInfo, error) {
	select {
	case info := <-w.packets:
		return w.data, info, nil
	default:
	}
	select {
	case info := <-w.packets:
		return w.data, info, nil
	case <-w.gone:
		return nil, gopacket.CaptureInfo{}, errGone
	case <-time.After(time.Millisecond):
		return nil, gopacket.CaptureInfo{}, errQuiet
	}
}

func (*wire) lost() uint64 { return 3 }
func (*wire) close()       {}

// bench is a capturer with a clock and wires of its own.
type bench struct {
	*Capturer
	t     *testing.T
	mutex sync.Mutex
	now   time.Time
	wires map[string]*wire // by interface
	ways  map[string]device
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: start, wires: map[string]*wire{}, ways: map[string]device{}}
	c, err := New(Options{Dir: t.TempDir(), Node: "n1", MinFreeBytes: -1, MaxInterfaces: 2, Clock: b.clock, Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	c.find = func(_ int, p Pod) (device, error) {
		d, ok := b.ways[p.Ref.Name]
		if !ok {
			return d, errNoWay
		}
		return d, nil
	}
	c.open = func(_ int, d device, _ int, filters []policies.CaptureFilter, _ int) (source, error) {
		if len(filters) > 0 {
			return nil, errors.New("the kernel takes no filter")
		}
		w := &wire{packets: make(chan gopacket.CaptureInfo, 100), gone: make(chan struct{}), data: udp("10.0.0.1:5000", "10.0.0.2:53")}
		b.wires[d.name] = w
		return w, nil
	}
	b.Capturer = c
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, k := range c.captures {
			k.end(b.now)
		}
	})
	return b
}

func (b *bench) clock() time.Time {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.now
}

// at moves the clock to so many seconds after the start, and lets the capturer look.
func (b *bench) at(seconds int) *bench {
	b.mutex.Lock()
	b.now = start.Add(time.Duration(seconds) * time.Second)
	b.mutex.Unlock()
	b.step()
	return b
}

// send gives an interface packets of now.
func (b *bench) send(name string, n int) {
	for range n {
		b.wires[name].packets <- gopacket.CaptureInfo{Timestamp: b.clock(), CaptureLength: len(b.wires[name].data), Length: len(b.wires[name].data)}
	}
}

// is fails unless the one capture comes to be as a text says.
func (b *bench) is(want string) {
	b.t.Helper()
	testkit.Eventually(b.t, func() error {
		b.step()
		if got := b.text(); got != want {
			return fmt.Errorf("at %s: got %q, want %q", b.clock().Format(time.TimeOnly), got, want)
		}
		return nil
	})
}

func (b *bench) text() string {
	var all []string
	for _, s := range b.States() {
		f := s.Status.Files[0]
		text := fmt.Sprint(s.Metadata.Name, " ", f.State, " ", f.Packets)
		if f.Message != "" {
			text += ": " + f.Message
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func request(name string, from, to int, pods ...string) Request {
	r := Request{Capture: policies.Capture{Ref: policies.Ref{Kind: "PacketCapture", Namespace: "shop", Name: name}}}
	if from != 0 {
		r.Start = start.Add(time.Duration(from) * time.Second)
	}
	if to != 0 {
		r.End = start.Add(time.Duration(to) * time.Second)
	}
	for _, p := range pods {
		r.Pods = append(r.Pods, Pod{Ref: policies.Ref{Kind: "Pod", Namespace: "shop", Name: p}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	}
	return r
}

func TestTimes(t *testing.T) {
	for _, row := range []struct {
		from, to, now int
		want          string
	}{
		{0, 0, 5, "Capturing"},
		{-9, 0, 5, "Capturing"},
		{9, 0, 5, "Scheduled"},
		{5, 0, 5, "Capturing"},
		{0, 9, 5, "Capturing"},
		{0, 5, 5, "Finished"},
		{-9, -1, 5, "Finished"},
		{9, 10, 5, "Scheduled"},
		{9, 4, 5, "Finished"},
	} {
		r := request("c", row.from, row.to)
		if got := timed(r.Start, r.End, start.Add(time.Duration(row.now)*time.Second)); got != row.want {
			t.Errorf("from %d to %d: at %d it is %s, want %s", row.from, row.to, row.now, got, row.want)
		}
	}
}

func TestCaptureFollowsItsTimes(t *testing.T) {
	b := newBench(t)
	b.ways["web"] = device{1, "veth1", 14}
	b.Set([]Request{request("c", 10, 20, "web")})
	b.at(0).is("c Scheduled 0")
	b.at(10).is("c WaitingForTraffic 0")
	b.send("veth1", 3)
	b.is("c Capturing 3")
	b.at(20).is("c Finished 3")

	b.Set([]Request{request("c", 10, 40, "web")}) // the end is moved
	b.at(21).is("c Capturing 3")
	b.send("veth1", 2)
	b.is("c Capturing 5")
	b.Set([]Request{request("c", 30, 40, "web")}) // so is the start: it stops and waits
	b.at(22).is("c Scheduled 5")
	b.at(31).is("c WaitingForTraffic 5")
	b.send("veth1", 1)
	b.is("c Capturing 6")
	b.Set([]Request{request("c", 30, 31, "web")}) // the end is past
	b.at(32).is("c Finished 6")
	if names := namesIn(t, b.folder(request("c", 0, 0).Ref)); len(names) != 2 {
		t.Errorf("files %v", names)
	}
	b.Set(nil)
	b.at(33).is("")
	if _, err := os.Stat(b.folder(request("c", 0, 0).Ref)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the files of a capture that is not wanted any more are still there")
	}
	if b.room.used != 0 {
		t.Errorf("%d bytes are taken by nothing", b.room.used)
	}
}

func TestPodsComeAndGo(t *testing.T) {
	b := newBench(t)
	b.Set([]Request{request("c", 0, 0)})
	b.at(0).is("c WaitingForTraffic 0: no pod of this node is selected")
	b.Set([]Request{request("c", 0, 0, "web")})
	b.at(1).is("c WaitingForTraffic 0: pod web: " + errNoWay.Error())
	b.ways["web"] = device{1, "veth1", 14}
	b.at(2).is("c WaitingForTraffic 0")
	b.send("veth1", 2)
	b.is("c Capturing 2")
	close(b.wires["veth1"].gone)
	delete(b.ways, "web")
	b.at(5).is("c WaitingForTraffic 2: pod web: " + errNoWay.Error())
	b.ways["web"] = device{2, "veth2", 14} // it is there again
	b.at(6).is("c Capturing 2")
	b.send("veth2", 2)
	b.is("c Capturing 4")
	b.ways["web"] = device{3, "veth3", 14} // its address moves
	b.at(9).at(10).is("c Capturing 4")
	b.send("veth3", 1)
	b.is("c Capturing 5")
	b.ways["db"], b.ways["cart"] = device{4, "veth4", 14}, device{5, "veth5", 14}
	b.Set([]Request{request("c", 0, 0, "web", "db", "cart")})
	b.at(12).is("c Capturing 5: pod cart: 2 interfaces are captured already, the most at a time")
	b.Set([]Request{request("c", 0, 0, "db")})
	b.at(13).is("c WaitingForTraffic 5")
	want := []string{"web_veth1.pcapng", "web_veth2.pcapng", "web_veth3.pcapng"}
	if diff := cmp.Diff(want, namesIn(t, b.folder(request("c", 0, 0).Ref))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestEnough(t *testing.T) {
	b := newBench(t)
	b.ways["web"] = device{1, "veth1", 14}
	r := request("c", 0, 0, "web")
	r.MaxPackets = 5
	b.Set([]Request{r})
	b.at(0).is("c WaitingForTraffic 0")
	b.send("veth1", 3)
	b.is("c Capturing 3")
	close(b.wires["veth1"].gone) // what was kept counts
	old := b.wires["veth1"]
	b.at(3)
	testkit.Eventually(t, func() error {
		if b.step(); b.wires["veth1"] == old {
			return errors.New("it has not begun again")
		}
		return nil
	})
	b.send("veth1", 9)
	b.is("c Finished 5")
	r.MaxPackets = 2
	b.Set([]Request{r}) // another wish: from the beginning
	b.at(6).is("c WaitingForTraffic 5")
	b.send("veth1", 9)
	b.is("c Finished 7")
}

func TestErrors(t *testing.T) {
	b := newBench(t)
	b.ways["web"] = device{1, "veth1", 14}
	filtered := request("filtered", 0, 0, "web")
	filtered.Filters = []policies.CaptureFilter{{Protocol: netset.TCP}}
	host := request("host", 0, 0)
	host.Refused = []string{"pod proxy is on the host's network"}
	b.Set([]Request{filtered, host})
	b.at(0).is("filtered Error 0: pod web: the kernel takes no filter, host Error 0: pod proxy is on the host's network")
	odd := request("odd", 0, 0, "../web")
	b.ways["../web"] = device{1, "veth1", 14}
	b.Set([]Request{odd})
	b.at(1).is(`odd Error 0: pod ../web: "../web" is no name that a file can have`)
	b.room.most = 3000
	b.Set([]Request{request("c", 0, 0, "web")})
	b.at(2)
	for range 90 {
		b.send("veth1", 1)
	}
	b.at(4)
	testkit.Eventually(t, func() error {
		b.step()
		if got := b.text(); !strings.HasPrefix(got, "c Error") || !strings.Contains(got, "no room: captures hold") {
			return errors.New(got)
		}
		return nil
	})
}

func TestLongNames(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("a", 253)
	b.ways[long] = device{1, "veth1", 14}
	b.Set([]Request{request("c", 0, 0, long)})
	b.at(0)
	b.send("veth1", 1)
	b.is("c Capturing 1")
	b.Set([]Request{request("c", 0, 1, long)})
	b.at(2).is("c Finished 1")
	if names := namesIn(t, b.folder(request("c", 0, 0).Ref)); len(names) != 1 || len(names[0])+len("_"+stampLayout) > 255 {
		t.Errorf("%v", names)
	}
	if short(long) == short(long[1:]+"b") {
		t.Error("two pods share a file")
	}
}

// What nobody declares any more goes first where there is no room.
func TestOrphansGo(t *testing.T) {
	b := newBench(t)
	b.ways["web"] = device{1, "veth1", 14}
	orphan := filepath.Join(b.options.Dir, "shop", "old")
	if err := errors.Join(os.MkdirAll(orphan, 0o700), os.WriteFile(filepath.Join(orphan, "x"+v1alpha1.CaptureFileSuffix), make([]byte, 5000), 0o600)); err != nil {
		t.Fatal(err)
	}
	b.room.used, b.room.most = 5000, 6000
	b.Set([]Request{request("c", 0, 0, "web")})
	b.at(0)
	b.send("veth1", 20)
	b.at(2).is("c Capturing 20")
	testkit.Eventually(t, func() error {
		if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) {
			return errors.New("the orphan is still there")
		}
		return nil
	})
}

func TestRequests(t *testing.T) {
	pod := func(namespace, name, app string, host bool, addresses ...netip.Addr) policies.Pod {
		return policies.Pod{
			Ref: policies.Ref{Kind: "Pod", Namespace: namespace, Name: name}, Labels: map[string]string{"app": app}, HostNetwork: host, Addresses: addresses,
			Node: "n1",
		}
	}
	one := netip.MustParseAddr("10.0.0.1")
	w := &policies.World{Pods: []policies.Pod{
		pod("shop", "web-2", "web", false, one), pod("shop", "web-1", "web", false), pod("shop", "proxy", "web", true, one),
		pod("shop", "db", "db", false, one), pod("ops", "web", "web", false, one),
		{Ref: policies.Ref{Kind: "Deployment", Namespace: "shop", Name: "web"}, Labels: map[string]string{"app": "web"}, Node: "n1"},
		{Ref: policies.Ref{Kind: "Pod", Namespace: "shop", Name: "far"}, Labels: map[string]string{"app": "web"}, Node: "n2"},
	}}
	c := policies.Capture{Ref: policies.Ref{Namespace: "shop", Name: "c"}, Pods: selector.Label("app", "web")}
	all := Requests([]policies.Capture{c}, w, func(p *policies.Pod) bool { return p.Node == "n1" })
	var got []string
	for _, p := range all[0].Pods {
		got = append(got, fmt.Sprintf("%s%s", p.Ref, p.Addresses))
	}
	if text := strings.Join(got, " "); len(all) != 1 || text != "shop/web-1[] shop/web-2[10.0.0.1]" || len(all[0].Refused) != 1 || !strings.Contains(all[0].Refused[0], "pod proxy is on the host's network") {
		t.Errorf("%s, refused %v", text, all[0].Refused)
	}
}

// frame puts IPv4 around a message.
func frame(protocol netset.Protocol, from, to netip.Addr, message []byte) []byte {
	packet := append(make([]byte, 12), 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, byte(protocol), 0, 0)
	return slices.Concat(packet, from.AsSlice(), to.AsSlice(), message, make([]byte, 20))
}

func ports(from, to netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port())
}

func udp(from, to string) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return frame(netset.UDP, a.Addr(), b.Addr(), ports(a, b))
}

func tcp(from, to string, flags byte) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return frame(netset.TCP, a.Addr(), b.Addr(), append(ports(a, b), 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags))
}

func icmp(from, to string, kind byte) []byte {
	return frame(netset.ICMP, netip.MustParseAddr(from), netip.MustParseAddr(to), []byte{kind, 0})
}

func TestComments(t *testing.T) {
	const pod, far, dns = "10.0.0.1:5000", "10.0.0.9:6000", "10.0.0.2:53"
	allowed := true
	age := uint64(0)
	fresh := func() *commenter {
		return &commenter{
			pod: "p", addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, link: 14, age: func() uint64 { return age },
			verdict: func(a Attempt) policies.Verdict {
				if a.To.Addr() == netip.MustParseAddr("10.0.0.1") || !allowed {
					return policies.Deny // nobody reaches the pod
				}
				return policies.Allow
			},
		}
	}
	known := func(c *commenter, open ...Attempt) *commenter {
		err := c.learn(func(yield func(Attempt) bool) error {
			for _, a := range open {
				yield(a)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return c
	}
	const syn, ack = 2, 16
	for _, row := range []struct {
		name    string
		c       *commenter
		packets [][]byte
		want    string // of the last one
	}{
		{"a SYN says who opens", fresh(), [][]byte{tcp(pod, far, syn)}, "p, egress, allow"},
		{"and so does its answer", fresh(), [][]byte{tcp(far, pod, syn|ack)}, "p, ingress, allow"},
		{"a reply is as allowed as its connection", fresh(), [][]byte{tcp(pod, far, syn), tcp(far, pod, ack)}, "p, ingress, allow"},
		{"an attempt from outside", fresh(), [][]byte{tcp(far, pod, syn)}, "p, ingress, deny"},
		{"in the middle nobody knows", fresh(), [][]byte{tcp(far, pod, ack)}, "p, ingress, unknown"},
		{"nor with what was open told", known(fresh()), [][]byte{tcp(far, pod, ack)}, "p, ingress, unknown"},
		{"but for what was told", known(fresh(), Attempt{netip.MustParseAddrPort(pod), netip.MustParseAddrPort(far), netset.TCP}), [][]byte{tcp(far, pod, ack)}, "p, ingress, allow"},
		{"ports are used again", fresh(), [][]byte{tcp(far, pod, syn), tcp(pod, far, syn), tcp(far, pod, ack)}, "p, ingress, allow"},
		{"a datagram may be a reply", fresh(), [][]byte{udp(dns, pod)}, "p, ingress, unknown"},
		{"unless all that were open are told", known(fresh()), [][]byte{udp(dns, pod)}, "p, ingress, deny"},
		{"then the first one asks", known(fresh()), [][]byte{udp(pod, dns), udp(dns, pod)}, "p, ingress, allow"},
		{"a ping", fresh(), [][]byte{icmp("10.0.0.1", "10.0.0.9", 8)}, "p, egress, allow"},
		{"and its reply", fresh(), [][]byte{icmp("10.0.0.1", "10.0.0.9", 8), icmp("10.0.0.9", "10.0.0.1", 0)}, "p, ingress, allow"},
		{"and another one's", fresh(), [][]byte{icmp("10.0.0.9", "10.0.0.1", 8), icmp("10.0.0.1", "10.0.0.9", 0)}, "p, egress, deny"},
		{"an error", fresh(), [][]byte{icmp("10.0.0.9", "10.0.0.1", 3)}, "p, ingress"},
		{"no IP", fresh(), [][]byte{make([]byte, 60)}, "p, direction unknown"},
		{"nothing", fresh(), [][]byte{nil}, "p, direction unknown"},
		{"ARP", fresh(), [][]byte{slices.Concat(make([]byte, 12), []byte{8, 6}, make([]byte, 14), []byte{10, 0, 0, 1}, make([]byte, 20))}, "p, egress"},
	} {
		got := ""
		for _, packet := range row.packets {
			got = strings.Join(row.c.comments(packet), "|")
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
	c := fresh()
	c.comments(tcp(pod, far, syn))
	allowed = false
	before := strings.Join(c.comments(tcp(pod, far, ack)), "|")
	age++
	if after := strings.Join(c.comments(tcp(pod, far, ack)), "|"); before != "p, egress, allow" || after != "p, egress, deny" {
		t.Errorf("before the policies change %q, then %q", before, after)
	}
	for i := range mostConversations + 10 {
		c.comments(udp(fmt.Sprintf("10.0.0.1:%d", 1+i), dns))
	}
	if len(c.spoken) > mostConversations {
		t.Errorf("%d conversations are remembered", len(c.spoken))
	}
}

// FuzzComments reads what is no packet at all.
func FuzzComments(f *testing.F) {
	f.Add(udp("10.0.0.1:1", "10.0.0.2:2"), 14)
	f.Add(slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, 44, 64}, make([]byte, 32), []byte{6, 0, 0, 0, 0, 0, 0, 0, 0, 53}), 0)
	f.Fuzz(func(t *testing.T, packet []byte, link int) {
		c := &commenter{pod: "p", addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, link: 14 * (link & 1), age: func() uint64 { return 0 }}
		if got := c.comments(packet); len(got) != 1 || !strings.HasPrefix(got[0], "p, ") {
			t.Errorf("% x: %q", packet, got)
		}
	})
}
