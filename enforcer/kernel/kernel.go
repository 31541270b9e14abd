//go:build linux

// Package kernel holds the table of package nft in the kernel.
//
// It owns the table inet weir of one network namespace, and touches nothing else.
// Whatever packets meet, it changes in one transaction: they meet the ruleset before or
// the one after, never a part. Base chains are made once and stay.
package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

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
	mutex sync.Mutex
	names map[string]string // of sets in the table, where they are not those of the ruleset
	line  *line             // to the kernel; nil where there is none
	own   own
	// retired are the counters in the table that nothing counts in any more, see retire.
	retired map[string]time.Time
}

// New returns the kernel of a network namespace by its file descriptor; 0 is the
// namespace of the caller.
func New(netns int) *Kernel { return &Kernel{netns: netns} }

// buffer is how many bytes a socket holds: a whole ruleset going out in one message,
// and an answer to each of its parts coming in.
const buffer = 256 << 20

// line is a connection to the kernel by one socket. It lasts, for to close a socket the
// kernel waits until what was deleted is really gone, tens of milliseconds.
type line struct {
	*nftables.Conn
	socket uint32 // its number
}

func newLine(netns int) (*line, error) {
	l := &line{}
	var err error
	l.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns), nftables.WithSockOptions(func(c *netlink.Conn) (err error) {
		l.socket, err = numberOf(c)
		return errors.Join(err, c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
	}))
	return l, err
}

// hangUp ends the connection: what went wrong with one transaction must not be part of
// the next.
func (k *Kernel) hangUp(why error) error {
	err := errors.Join(why, k.line.CloseLasting())
	k.line = nil
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
	k.mutex.Lock()
	defer k.mutex.Unlock()
	names, err := k.prepare(r)
	if err == nil {
		err = k.transact(names, func(t *transaction) error { return t.replace(r) })
	}
	if err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	k.names = names
	if err := k.retireAllBut(r.Counters); err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	return k.verify(r)
}

// prepare makes the sets with intervals, and the chains they lead to: in a transaction
// of its own, since for a moment such sets seem empty. They get names that nothing in
// the table has, which it returns.
func (k *Kernel) prepare(r *nft.Ruleset) (map[string]string, error) {
	names := map[string]string{}
	return names, k.transact(names, func(t *transaction) error {
		there, err := t.list()
		if err != nil {
			return err
		}
		for i := range r.Chains {
			t.addChain(&r.Chains[i])
		}
		for i := range r.Sets {
			if s := &r.Sets[i]; s.Interval {
				for n := 1; there.sets[t.nameOf(s.Name)]; n++ {
					names[s.Name] = fmt.Sprintf("%s_again%d", s.Name, n)
				}
				t.addSet(s)
			}
		}
		return nil
	})
}

// replace replaces all that is in the table but base chains and what was prepared.
func (t *transaction) replace(r *nft.Ruleset) error {
	there, err := t.list()
	if err != nil {
		return err
	}
	t.conn.FlushTable(t.table)
	keep := map[string]bool{}
	for i := range r.Sets {
		if r.Sets[i].Interval {
			keep[t.nameOf(r.Sets[i].Name)] = true
		}
	}
	for name := range there.sets {
		if !keep[name] {
			t.conn.DelSet(&nftables.Set{Table: t.table, Name: name})
		}
	}
	for i := range r.Chains {
		delete(there.chains, r.Chains[i].Name)
	}
	for name := range there.chains {
		t.conn.DelChain(&nftables.Chain{Table: t.table, Name: name})
	}
	for _, c := range r.Counters {
		t.addCounter(c) // one that is there goes on counting
	}
	for i := range r.Sets {
		if !r.Sets[i].Interval {
			t.addSet(&r.Sets[i])
		}
	}
	for i := range r.Chains {
		t.addRules(&r.Chains[i])
	}
	return nil
}

// Apply carries out a change of the ruleset that is loaded. Where it fails, packets
// meet what they met before, unless the error is ErrUnknown; Load again.
func (k *Kernel) Apply(c *nft.Change) error {
	if c.IsEmpty() {
		return nil
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	err := k.apply(c)
	if err != nil {
		return fmt.Errorf("change the table: %w", err)
	}
	for _, name := range c.DeleteSets {
		delete(k.names, name)
	}
	k.retire(c)
	return nil
}

func (k *Kernel) apply(c *nft.Change) error {
	isInterval := func(s nft.Set) bool { return s.Interval }
	if slices.ContainsFunc(c.AddSets, isInterval) {
		err := k.transact(k.names, func(t *transaction) error {
			for i := range c.AddChains {
				t.addChain(&c.AddChains[i])
			}
			for i := range c.AddSets {
				if isInterval(c.AddSets[i]) {
					t.addSet(&c.AddSets[i])
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := k.transact(k.names, func(t *transaction) error {
		t.apply(c)
		return nil
	})
	if err != nil || !retires(c) {
		return err
	}
	return k.transact(k.names, func(t *transaction) error {
		t.retire(c)
		return nil
	})
}

// Remove takes the table away: nothing is enforced then.
func (k *Kernel) Remove() error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	err := k.transact(nil, func(t *transaction) error {
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
		if !c.AddSets[i].Interval {
			t.addSet(&c.AddSets[i])
		}
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
		if u := c.Update[i]; isOfClasses(&u) {
			u.Delete = nil
			t.update(&u)
		} else {
			t.update(&u)
		}
	}
}

// isOfClasses reports whether elements lead from classes to vectors. None of those gets
// another verdict.
func isOfClasses(u *nft.Update) bool { return u.Key[0] == nft.Class }

// retires reports whether a change takes something away that packets may be on the way
// to.
func retires(c *nft.Change) bool {
	return len(c.DeleteChains)+len(c.DeleteSets)+len(c.DeleteCounters) > 0 ||
		slices.ContainsFunc(c.Update, func(u nft.Update) bool { return isOfClasses(&u) && len(u.Delete) > 0 })
}

// retire takes away what nothing leads to any more: in a transaction of its own, since a
// packet may have got its class before the last one, and looks now where that leads.
func (t *transaction) retire(c *nft.Change) {
	for i := range c.Update {
		if u := c.Update[i]; isOfClasses(&u) {
			u.Add = nil
			t.update(&u)
		}
	}
	for _, name := range c.DeleteChains {
		t.flush(name)
	}
	for _, name := range c.DeleteSets {
		t.conn.DelSet(&nftables.Set{Table: t.table, Name: t.nameOf(name)})
	}
	for _, name := range c.DeleteChains {
		t.conn.DelChain(&nftables.Chain{Table: t.table, Name: name})
	}
}

// transaction gathers what is to change at once.
type transaction struct {
	conn  *line
	table *nftables.Table
	names map[string]string // as Kernel has them
	err   error             // the first of what could not be added
}

// nameOf returns the name that a set of a ruleset has in the table.
func (t *transaction) nameOf(set string) string { return cmp.Or(t.names[set], set) }

// transact carries out at once what gather gathers.
func (k *Kernel) transact(names map[string]string, gather func(*transaction) error) error {
	k.own.mutex.Lock()
	defer k.own.mutex.Unlock()
	if k.line == nil {
		var err error
		if k.line, err = newLine(k.netns); err != nil {
			k.line = nil
			return err
		}
	}
	t := &transaction{conn: k.line, names: names}
	t.table = t.conn.AddTable(&nftables.Table{Name: nft.Table, Family: nftables.TableFamilyINet})
	err := gather(t)
	if err = cmp.Or(err, t.err); err != nil {
		return k.hangUp(err)
	}
	err = t.conn.Flush()
	if k.own.watching && (err == nil || errors.Is(err, unix.ENOBUFS)) {
		k.own.expected[t.conn.socket]++
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOBUFS):
		err = errors.Join(ErrUnknown, err)
	case errors.Is(err, unix.EPERM):
		err = mayNot(err)
	}
	return k.hangUp(err)
}

func mayNot(err error) error {
	return fmt.Errorf("%w; run as root, or with the capability NET_ADMIN", err)
}

// contents is what is in the table, but for rules, base chains and counters.
type contents struct{ sets, chains map[string]bool }

// list returns what is in the table.
func (t *transaction) list() (contents, error) {
	there := contents{map[string]bool{}, map[string]bool{}}
	tables, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil || !slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == nft.Table }) {
		return there, err
	}
	chains, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return there, err
	}
	sets, err := t.conn.GetSets(t.table)
	if err != nil {
		return there, err
	}
	for _, c := range chains {
		if c.Table.Name == nft.Table && c.Hooknum == nil {
			there.chains[c.Name] = true
		}
	}
	for _, s := range sets {
		there.sets[s.Name] = true
	}
	return there, nil
}
