//go:build linux

package kernel

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
)

// Verify counts the elements of every set of the table, and fails where a ruleset has
// other ones: a set that lost some would let through, or keep out, what it should not.
func (k *Kernel) Verify(r *nft.Ruleset) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.verify(r)
}

func (k *Kernel) verify(r *nft.Ruleset) error {
	reader, err := newReader(k.netns, 0)
	if err != nil {
		return fmt.Errorf("read the table back: %w", err)
	}
	return errors.Join(reader.compare(r, k.names), reader.Close())
}

func (r *reader) compare(want *nft.Ruleset, names map[string]string) error {
	var wrong []error
	for i := range want.Sets {
		s := &want.Sets[i]
		n := len(elementsOf(s, s.Elements))
		got, err := r.count(cmp.Or(names[s.Name], s.Name))
		switch {
		case err != nil:
			return fmt.Errorf("read set %s back: %w", s.Name, err)
		case got != n:
			wrong = append(wrong, fmt.Errorf("set %s has %d elements, not %d", s.Name, got, n))
		}
	}
	return errors.Join(wrong...)
}

// count returns how many elements a set has. It starts again where the ruleset
// changes meanwhile.
func (r *reader) count(set string) (int, error) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: append([]byte(nft.Table), 0)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: append([]byte(set), 0)},
	})
	if err != nil {
		return 0, err
	}
	for {
		_, err := r.Send(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(about(unix.NFT_MSG_GETSETELEM)), Flags: netlink.Request | netlink.Dump},
			Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attributes...),
		})
		if err != nil {
			return 0, err
		}
		n, changed, err := r.tally()
		if err != nil || !changed {
			return n, err
		}
	}
}

// tally counts the elements of an answer, to its end.
func (r *reader) tally() (n int, changed bool, err error) {
	for done := false; !done; {
		err := r.read(func(m message) error {
			changed = changed || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.kind == unix.NLMSG_DONE:
				done = true
			case m.kind == unix.NLMSG_ERROR && len(m.body) >= 4:
				return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
			case m.kind == about(unix.NFT_MSG_NEWSETELEM):
				return eachAttribute(m.body, func(kind uint16, value []byte) error {
					if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
						return nil
					}
					return eachAttribute(value, func(uint16, []byte) error {
						n++
						return nil
					})
				})
			}
			return nil
		})
		if err != nil {
			return 0, false, err
		}
	}
	return n, changed, nil
}
