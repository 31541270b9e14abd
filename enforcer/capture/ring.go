//go:build linux

package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/afpacket"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/policies"
)

// source is where packets come from.
type source interface {
	// read returns the next packet, which is good until the next call. It fails with
	// errQuiet where there is none for a moment.
	read() ([]byte, gopacket.CaptureInfo, error)
	// lost is how many packets came faster than they were read, so far.
	lost() uint64
	close()
}

var (
	errQuiet = errors.New("no packet for a moment")
	errGone  = errors.New("the interface went away")
	errNoWay = errors.New("the node has no interface that leads straight to the pod")
)

// device is an interface.
type device struct {
	index int
	name  string
	link  int // bytes in front of IP
}

const (
	blockSize    = 256 << 10
	blockTimeout = 50 * time.Millisecond // until packets in a block that is not full are given
	pollTimeout  = 100 * time.Millisecond
)

// ring is a socket of AF_PACKET with a ring that it shares with the kernel.
type ring struct{ packets *afpacket.TPacket }

// openRing begins to keep the packets of a device that the filters want.
func openRing(namespace int, d device, bytes int, filters []policies.CaptureFilter, snap int) (source, error) {
	program, err := compile(filters, snap, d.link)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return nil, err
	}
	var packets *afpacket.TPacket
	err = inside(namespace, func() (err error) {
		packets, err = afpacket.NewTPacket(
			afpacket.OptInterface(d.name), afpacket.SocketRaw, afpacket.TPacketVersion3, afpacket.OptAddVLANHeader(true),
			afpacket.OptBlockSize(blockSize), afpacket.OptNumBlocks(max(2, bytes/blockSize)),
			afpacket.OptBlockTimeout(blockTimeout), afpacket.OptPollTimeout(pollTimeout),
		)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket at %s: %w", d.name, err)
	}
	r := &ring{packets}
	if err := r.restrict(nothing, raw); err != nil {
		r.close()
		return nil, fmt.Errorf("give the kernel the filter for %s: %w", d.name, err)
	}
	return r, nil
}

// restrict attaches the filter. What came before there was one is thrown away.
func (r *ring) restrict(nothing, program []bpf.RawInstruction) error {
	if err := r.packets.SetBPF(nothing); err != nil {
		return err
	}
	for {
		if _, _, err := r.packets.ZeroCopyReadPacketData(); errors.Is(err, afpacket.ErrTimeout) {
			break
		} else if err != nil {
			return err
		}
	}
	if err := r.packets.InitSocketStats(); err != nil {
		return err
	}
	return r.packets.SetBPF(program)
}

func (r *ring) read() ([]byte, gopacket.CaptureInfo, error) {
	data, info, err := r.packets.ZeroCopyReadPacketData()
	switch {
	case errors.Is(err, afpacket.ErrTimeout):
		err = errQuiet
	case errors.Is(err, afpacket.ErrPoll), errors.Is(err, unix.ENETDOWN):
		err = errGone
	}
	return data, info, err
}

func (r *ring) lost() uint64 {
	_, stats, err := r.packets.SocketStats()
	if err != nil {
		return 0 // of a socket that is open it never fails
	}
	return uint64(stats.Drops())
}

func (r *ring) close() { r.packets.Close() }

// inside calls f in a network namespace; 0 is that of the caller.
func inside(namespace int, f func() error) (err error) {
	if namespace == 0 {
		return f()
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	if err := netns.Set(netns.NsHandle(namespace)); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// find returns the interface by which a node reaches a pod: the one that is named, or
// the one that the node's routes to the pod's addresses lead to. Behind a bridge it is
// the port at which the bridge has seen the pod.
func find(namespace int, p Pod) (d device, err error) {
	err = inside(namespace, func() error {
		link, err := linkOf(p)
		if err == nil {
			d = device{index: link.Attrs().Index, name: link.Attrs().Name}
			if link.Attrs().EncapType == "ether" {
				d.link = 14
			}
		}
		return err
	})
	return d, err
}

func linkOf(p Pod) (netlink.Link, error) {
	if p.Interface != "" {
		link, err := netlink.LinkByName(p.Interface)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			return nil, fmt.Errorf("there is no interface %s: %w", p.Interface, errNoWay)
		}
		return link, err
	}
	if len(p.Addresses) == 0 {
		return nil, fmt.Errorf("the pod has no address yet: %w", errNoWay)
	}
	for _, a := range p.Addresses {
		routes, err := netlink.RouteGet(a.AsSlice())
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask for the route to %s: %w", a, err)
		}
		for _, route := range routes {
			if route.Gw != nil || route.Via != nil || route.Type != unix.RTN_UNICAST {
				continue
			}
			link, err := netlink.LinkByIndex(route.LinkIndex)
			if err != nil {
				return nil, err
			}
			switch {
			case link.Attrs().Flags&net.FlagLoopback != 0:
			case link.Type() == "bridge":
				return portOf(link, a)
			default:
				return link, nil
			}
		}
	}
	return nil, errNoWay
}

// portOf returns the port of a bridge at which it has seen the hardware that answers
// for an address.
func portOf(bridge netlink.Link, a netip.Addr) (netlink.Link, error) {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	neighbours, err := netlink.NeighList(bridge.Attrs().Index, family)
	if err != nil {
		return nil, err
	}
	seen, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	for _, n := range neighbours {
		if at, ok := netip.AddrFromSlice(n.IP); !ok || at.Unmap() != a || len(n.HardwareAddr) == 0 {
			continue
		}
		for _, s := range seen {
			if s.MasterIndex == bridge.Attrs().Index && s.HardwareAddr.String() == n.HardwareAddr.String() && s.LinkIndex != bridge.Attrs().Index {
				return netlink.LinkByIndex(s.LinkIndex)
			}
		}
	}
	return nil, fmt.Errorf("bridge %s has not seen the pod yet: %w", bridge.Attrs().Name, errNoWay)
}
