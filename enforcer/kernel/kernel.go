//go:build linux

// Package kernel holds the table of package nft in the kernel.
//
// It owns the table inet weir of one network namespace, and touches nothing else.
// Whatever it changes, it changes in one transaction: packets meet the ruleset before
// or the one after, never a part. Base chains are made once and stay.
package kernel

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
)

// ErrUnknown is wrapped where it is not known whether a transaction went through: the
// kernel's answer got lost. Load again.
var ErrUnknown = errors.New("the kernel's answer got lost, so what is loaded is not known; load again")

// Kernel is the table of one network namespace.
type Kernel struct {
	netns int
	own   own
}

// New returns the kernel of a network namespace by its file descriptor; 0 is the
// namespace of the caller.
func New(netns int) *Kernel { return &Kernel{netns: netns} }

// buffer is how many bytes a socket holds: a whole ruleset going out in one message,
// and an answer to each of its parts coming in.
const buffer = 256 << 20

// connect makes a connection of its own: what went wrong with one transaction must not
// be part of the next.
func (t *transaction) connect(netns int) (err error) {
	t.conn, err = nftables.New(nftables.WithNetNSFd(netns), nftables.WithSockOptions(func(c *netlink.Conn) error {
		number, err := numberOf(c)
		t.socket = number
		return errors.Join(err, c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
	}))
	return err
}

// numberOf returns the number of a socket, as events name it.
func numberOf(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var address unix.Sockaddr
	var failed error
	err = raw.Control(func(fd uintptr) { address, failed = unix.Getsockname(int(fd)) })
	if at, ok := address.(*unix.SockaddrNetlink); ok {
		return at.Pid, nil
	}
	return 0, errors.Join(err, failed)
}

// Load makes the table what a ruleset says, whatever is there: that of a process
// before, too, which is replaced without a gap. It reads back how many elements each
// set has, and fails where that is not what was sent.
func (k *Kernel) Load(r *nft.Ruleset) error {
	err := k.transact(func(t *transaction) error {
		if err := t.clear(); err != nil {
			return err
		}
		for _, c := range r.Counters {
			t.addCounter(c)
		}
		for i := range r.Chains {
			t.addChain(&r.Chains[i])
		}
		for i := range r.Sets {
			t.addSet(&r.Sets[i])
		}
		for i := range r.Chains {
			t.addRules(&r.Chains[i])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	return k.Verify(r)
}

// Apply carries out a change of the ruleset that is loaded. Where it fails, nothing
// has changed, unless the error is ErrUnknown.
func (k *Kernel) Apply(c *nft.Change) error {
	if c.IsEmpty() {
		return nil
	}
	err := k.transact(func(t *transaction) error {
		t.apply(c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("change the table: %w", err)
	}
	return nil
}

// Remove takes the table away: nothing is enforced then.
func (k *Kernel) Remove() error {
	err := k.transact(func(t *transaction) error {
		t.conn.DelTable(t.table)
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove the table: %w", err)
	}
	return nil
}

func (t *transaction) apply(c *nft.Change) {
	for _, name := range c.AddCounters {
		t.addCounter(name)
	}
	for i := range c.AddChains {
		t.addChain(&c.AddChains[i])
	}
	for i := range c.AddSets {
		t.addSet(&c.AddSets[i])
	}
	for _, chain := range c.Rewrite {
		t.flush(chain.Name)
	}
	for i := range c.AddChains {
		t.addRules(&c.AddChains[i])
	}
	for i := range c.Rewrite {
		t.addRules(&c.Rewrite[i])
	}
	for i := range c.Update {
		t.update(&c.Update[i])
	}
	// What is not wanted any more may only go once nothing leads there.
	for _, name := range c.DeleteChains {
		t.flush(name)
	}
	for _, name := range c.DeleteSets {
		t.conn.DelSet(&nftables.Set{Table: t.table, Name: name})
	}
	for _, name := range c.DeleteChains {
		t.conn.DelChain(&nftables.Chain{Table: t.table, Name: name})
	}
	for _, name := range c.DeleteCounters {
		t.conn.DeleteObject(&nftables.CounterObj{Table: t.table, Name: name})
	}
}

// transaction gathers what is to change at once.
type transaction struct {
	conn   *nftables.Conn
	table  *nftables.Table
	socket uint32 // the number of the last one that was opened
	err    error  // the first of what could not be added
}

// transact carries out at once what gather gathers.
func (k *Kernel) transact(gather func(*transaction) error) error {
	k.own.mutex.Lock()
	defer k.own.mutex.Unlock()
	t := &transaction{}
	if err := t.connect(k.netns); err != nil {
		return err
	}
	t.table = t.conn.AddTable(&nftables.Table{Name: nft.Table, Family: nftables.TableFamilyINet})
	if err := gather(t); err != nil {
		return err
	}
	if t.err != nil {
		return t.err
	}
	err := t.conn.Flush()
	if k.own.watching && (err == nil || errors.Is(err, unix.ENOBUFS)) {
		k.own.expected[t.socket]++
	}
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return errors.Join(ErrUnknown, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w; run as root, or with the capability NET_ADMIN", err)
	}
	return err
}

// clear takes away all that is in the table but base chains.
func (t *transaction) clear() error {
	tables, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	there := false
	for _, table := range tables {
		there = there || table.Name == nft.Table
	}
	if !there {
		return nil
	}
	chains, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	sets, err := t.conn.GetSets(t.table)
	if err != nil {
		return err
	}
	objects, err := t.conn.GetObjects(t.table)
	if err != nil {
		return err
	}
	t.conn.FlushTable(t.table)
	for _, s := range sets {
		t.conn.DelSet(&nftables.Set{Table: t.table, Name: s.Name})
	}
	for _, c := range chains {
		if c.Table.Name == nft.Table && c.Hooknum == nil {
			t.conn.DelChain(&nftables.Chain{Table: t.table, Name: c.Name})
		}
	}
	for _, o := range objects {
		if c, ok := o.(*nftables.CounterObj); ok {
			t.conn.DeleteObject(&nftables.CounterObj{Table: t.table, Name: c.Name})
		}
	}
	return nil
}
