//go:build linux

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	route "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
)

// Connections yields all connections that the kernel tracks, until yield returns false.
// What it yields is good until yield returns.
func (k *Kernel) Connections(yield func(*conntrack.Connection) bool) error {
	r, err := newReader(k.netns, 0)
	if err != nil {
		return fmt.Errorf("look at connections: %w", err)
	}
	defer r.Close() //nolint:errcheck // it was only read
	_, err = r.Send(netlink.Message{
		Header: netlink.Header{Type: conntrack.Get, Flags: netlink.Request | netlink.Dump},
		Data:   conntrack.DumpRequest(nil),
	})
	var c conntrack.Connection
	wanted := true
	for done := false; !done && err == nil; {
		err = r.read(func(m message) error {
			switch {
			case m.kind == unix.NLMSG_DONE:
				done = true
				return nil
			case m.kind == unix.NLMSG_ERROR:
				return m.answer()
			}
			if err := conntrack.Decode(m.body, &c); err != nil {
				return err
			}
			wanted = wanted && yield(&c)
			done = done || !wanted
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("look at connections: %w", err)
	}
	return nil
}

// Revoke cuts connections off, both ways, until Restore; and returns how many of them:
// those that ended meanwhile need no end. A connection that is older than the table, and
// so has no label, is put in the place of by one that has.
func (k *Kernel) Revoke(all []conntrack.Connection) (int, error) {
	return k.relabel(all, nft.Bit(nft.RevokedBit))
}

// Restore takes back what Revoke did.
func (k *Kernel) Restore(all []conntrack.Connection) (int, error) {
	return k.relabel(all, nft.Bits{})
}

// relabel sets or clears the bit that revokes.
func (k *Kernel) relabel(all []conntrack.Connection, label nft.Bits) (done int, err error) {
	if len(all) == 0 {
		return 0, nil
	}
	r, err := newReader(k.netns, 0)
	if err != nil {
		return 0, fmt.Errorf("relabel connections: %w", err)
	}
	defer r.Close() //nolint:errcheck // all was answered
	if err := r.SetReadBuffer(buffer); err != nil {
		return 0, fmt.Errorf("relabel connections: %w", err)
	}
	update := func(c *conntrack.Connection) netlink.Message {
		return request(conntrack.New, 0, conntrack.LabelUpdate(nil, c, label, nft.Bit(nft.RevokedBit)))
	}
	var failed []error
	for some := range slices.Chunk(all, 256) {
		messages := make([]netlink.Message, len(some))
		for i := range some {
			messages[i] = update(&some[i])
		}
		answers, err := r.ask(messages)
		if err != nil {
			return done, fmt.Errorf("relabel connections: %w", err)
		}
		for i, err := range answers {
			if errors.Is(err, unix.ENOSPC) {
				err = r.replace(&some[i], label, update)
			}
			switch {
			case err == nil:
				done++
			case !errors.Is(err, unix.ENOENT):
				failed = append(failed, fmt.Errorf("relabel connection %s: %w", some[i].Original, err))
			}
		}
	}
	return done, errors.Join(failed...)
}

// replace puts a connection with a label in the place of one that can have none. Where a
// packet was faster, there is a new one, which can have a label.
func (r *reader) replace(c *conntrack.Connection, label nft.Bits, update func(*conntrack.Connection) netlink.Message) error {
	answers, err := r.ask([]netlink.Message{
		request(conntrack.Delete, 0, conntrack.DeleteRequest(nil, c)),
		request(conntrack.New, netlink.Create|netlink.Excl, conntrack.CreateRequest(nil, c, label)),
	})
	if err != nil {
		return err
	}
	if err := answers[1]; !errors.Is(err, unix.EEXIST) {
		return errors.Join(ignore(answers[0], unix.ENOENT), err)
	}
	born := *c
	if answers, err = r.ask([]netlink.Message{update(&born)}); err == nil && !errors.Is(answers[0], unix.ENOENT) {
		return answers[0]
	}
	// The packet came from the other end.
	born.Original = c.Reply
	if answers, err = r.ask([]netlink.Message{update(&born)}); err == nil {
		err = answers[0]
	}
	return err
}

func ignore(err error, but unix.Errno) error {
	if errors.Is(err, but) {
		return nil
	}
	return err
}

func request(kind uint16, flags netlink.HeaderFlags, body []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags}, Data: body}
}

// ask sends requests and returns the kernel's answer to each.
func (r *reader) ask(all []netlink.Message) ([]error, error) {
	sent, err := r.SendMessages(all)
	if err != nil {
		return nil, err
	}
	at := make(map[uint32]int, len(sent))
	for i, m := range sent {
		at[m.Header.Sequence] = i
	}
	answers := make([]error, len(sent))
	for len(at) > 0 && err == nil {
		err = r.read(func(m message) error {
			if i, asked := at[m.sequence]; asked && m.kind == unix.NLMSG_ERROR {
				answers[i] = m.answer()
				delete(at, m.sequence)
			}
			return nil
		})
	}
	return answers, err
}

// answer returns what an answer says of a request; nil is yes.
func (m message) answer() error {
	if len(m.body) < 4 {
		return errors.New("an answer of the kernel is cut off")
	}
	if number := -int32(binary.NativeEndian.Uint32(m.body)); number != 0 {
		return unix.Errno(number)
	}
	return nil
}

// Counters returns how many packets each counter of the table counted since it was added
// to it. Those that nothing counts in any more are there for a minute longer.
func (k *Kernel) Counters() (map[string]uint64, error) {
	l, err := newLine(k.netns)
	if err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	objects, err := l.GetObjects(&nftables.Table{Name: nft.Table, Family: nftables.TableFamilyINet})
	if err := errors.Join(err, l.CloseLasting()); err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	all := make(map[string]uint64, len(objects))
	for _, o := range objects {
		if c, ok := o.(*nftables.CounterObj); ok {
			all[c.Name] = c.Packets
		}
	}
	return all, nil
}

// Addresses returns the addresses that the node has itself.
func (k *Kernel) Addresses() ([]netip.Addr, error) {
	at := netns.NsHandle(k.netns)
	if k.netns == 0 {
		at = netns.None()
	}
	h, err := route.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("look at the node's addresses: %w", err)
	}
	defer h.Close()
	found, err := h.AddrList(nil, route.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("look at the node's addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range found {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			all = append(all, ip.Unmap())
		}
	}
	return all, nil
}
