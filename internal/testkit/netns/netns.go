//go:build linux

// Package netns builds small networks out of network namespaces, so that tests can
// ask the kernel what it lets through: one namespace is a node, which forwards
// between all others, each of which is a pod or somebody outside.
//
// It wants root, or a user namespace of one's own, and leaves nothing behind.
package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Variable is what `make test-kernel` sets where there is a kernel to ask.
const Variable = "WEIR_KERNEL"

// Want skips a test where nobody asked for the kernel.
func Want(t testing.TB) {
	t.Helper()
	if os.Getenv(Variable) == "" {
		t.Skip("wants a kernel of its own: make test-kernel runs it, as root or in a user namespace")
	}
}

// Lab is a node with its links.
type Lab struct {
	t       testing.TB
	node    netns.NsHandle
	parties []*Party
	sent    int // probes so far
}

// Party is a namespace with some addresses behind the node.
type Party struct {
	lab       *Lab
	handle    netns.NsHandle
	Addresses []netip.Addr
	inbox     *inbox
}

// New makes a node without links.
func New(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t, node: fresh(t)}
	l.Inside(func() {
		l.set("net/ipv4/ip_forward", "1")
		l.set("net/ipv6/conf/all/forwarding", "1")
		l.up("lo", nil)
	})
	return l
}

// Own gives the node addresses of its own, and returns it as a party that has them.
func (l *Lab) Own(addresses ...netip.Addr) *Party {
	l.t.Helper()
	l.Inside(func() { l.up("lo", addresses) })
	return &Party{lab: l, handle: l.node, Addresses: addresses, inbox: newInbox()}
}

// fresh makes a namespace that goes with the test.
func fresh(t testing.TB) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	handle, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace: %v; run as root, or under unshare -Urn", err)
	}
	turn(home)
	closeAfter(t, &handle)
	return handle
}

// inside calls f in a namespace. Sockets that f makes stay there.
func inside(handle netns.NsHandle, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		panic(err)
	}
	if err := netns.Set(handle); err != nil {
		panic(err)
	}
	defer turn(home)
	f()
}

// turn leads the thread home.
func turn(home netns.NsHandle) {
	if err := errors.Join(netns.Set(home), home.Close()); err != nil {
		panic(fmt.Sprintf("this thread is lost in a network namespace: %v", err))
	}
}

// closeAfter closes something at the end of a test.
func closeAfter(t testing.TB, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Inside calls f on the node.
func (l *Lab) Inside(f func()) { inside(l.node, f) }

// Inside calls f where a party is.
func (p *Party) Inside(f func()) { inside(p.handle, f) }

// FD returns the node's namespace.
func (l *Lab) FD() int { return int(l.node) }

func (l *Lab) set(name, value string) {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		l.t.Fatal(err)
	}
}

func (l *Lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// The ends of every link have the same hardware addresses, which both know: nobody
// needs to ask for them, and no filter can keep them from it.
var (
	nodeMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	partyMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	gateways   = [2]netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")}
	everywhere = [2]*net.IPNet{prefix(netip.IPv4Unspecified(), 0), prefix(netip.IPv6Unspecified(), 0)}
)

func prefix(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

// Add links a party with some addresses to the node.
func (l *Lab) Add(addresses ...netip.Addr) *Party {
	l.t.Helper()
	p := &Party{lab: l, handle: fresh(l.t), Addresses: addresses, inbox: newInbox()}
	name := fmt.Sprintf("link%d", len(l.parties))
	l.Inside(func() {
		attributes := netlink.NewLinkAttrs()
		attributes.Name, attributes.HardwareAddr = name, nodeMAC
		l.must(netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attributes, PeerName: "eth0", PeerHardwareAddr: partyMAC, PeerNamespace: netlink.NsFd(p.handle),
		}))
		link := l.up(name, nil)
		for _, a := range addresses {
			l.neighbour(link, a, partyMAC)
			l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link, Dst: prefix(a, a.BitLen()), Scope: netlink.SCOPE_LINK}))
		}
	})
	inside(p.handle, func() {
		l.up("lo", nil)
		link := l.up("eth0", addresses)
		for i, gateway := range gateways {
			l.neighbour(link, gateway, nodeMAC)
			l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link, Dst: everywhere[i], Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}))
		}
	})
	l.parties = append(l.parties, p)
	return p
}

// up brings a link up with some addresses, and returns its index.
func (l *Lab) up(name string, addresses []netip.Addr) int {
	link, err := netlink.LinkByName(name)
	l.must(err)
	if name != "lo" {
		l.set("net/ipv6/conf/"+name+"/accept_dad", "0")
		l.set("net/ipv6/conf/"+name+"/router_solicitations", "0")
	}
	l.must(netlink.LinkSetUp(link))
	for _, a := range addresses {
		const noDuplicateDetection = 0x02
		address := &netlink.Addr{IPNet: prefix(a, a.BitLen())}
		if a.Is6() {
			address.Flags = noDuplicateDetection
		}
		l.must(netlink.AddrAdd(link, address))
	}
	return link.Attrs().Index
}

func (l *Lab) neighbour(link int, a netip.Addr, mac net.HardwareAddr) {
	l.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}))
}

// Forget makes the node forget all connections.
func (l *Lab) Forget() {
	l.t.Helper()
	l.Inside(func() { l.must(netlink.ConntrackTableFlush(netlink.ConntrackTable)) })
}
