//go:build linux

package kernel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
)

// Verify counts the elements of every set of the table, and fails where a ruleset has
// other ones: a set that lost some would let through, or keep out, what it should not. It
// takes counters away that nothing has counted in for a minute.
func (k *Kernel) Verify(r *nft.Ruleset) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return errors.Join(k.verify(r), k.deleteRetired(time.Now()))
}

func (k *Kernel) verify(r *nft.Ruleset) error {
	reader, err := newReader(k.netns, 0)
	if err != nil {
		return fmt.Errorf("read the table back: %w", err)
	}
	return errors.Join(reader.compare(r, k.names), reader.Close())
}

func (r *reader) compare(want *nft.Ruleset, names map[string]string) error {
	sizes, err := r.sizes()
	if err != nil {
		return fmt.Errorf("read the sets back: %w", err)
	}
	var wrong []error
	for i := range want.Sets {
		s := &want.Sets[i]
		name := cmp.Or(names[s.Name], s.Name)
		got, known := sizes[name]
		if !known || s.Interval { // of which the kernel counts ranges as it likes
			if got, err = r.count(name); err != nil {
				return fmt.Errorf("read set %s back: %w", name, err)
			}
		}
		if n := sizeOf(s); got != n {
			wrong = append(wrong, fmt.Errorf("set %s has %d elements, not %d", name, got, n))
		}
	}
	return errors.Join(wrong...)
}

// sizeAttribute says how many elements a set has. Kernels before 6.16 leave it out.
const sizeAttribute = 20

// sizes returns how many elements the sets have of which the kernel says so.
func (r *reader) sizes() (map[string]int, error) {
	sizes := map[string]int{}
	err := r.dump(unix.NFT_MSG_GETSET, []netlink.Attribute{{Type: unix.NFTA_SET_TABLE, Data: append([]byte(nft.Table), 0)}}, func(m message) error {
		name, size := "", -1
		err := eachAttribute(m.body, func(kind uint16, value []byte) error {
			switch {
			case kind == unix.NFTA_SET_NAME:
				name = string(bytes.TrimRight(value, "\x00"))
			case kind == sizeAttribute && len(value) == 4:
				size = int(binary.BigEndian.Uint32(value))
			}
			return nil
		})
		if size >= 0 {
			sizes[name] = size
		}
		return err
	})
	return sizes, err
}

// count returns how many elements a set has, one by one.
func (r *reader) count(set string) (int, error) {
	n := 0
	err := r.dump(unix.NFT_MSG_GETSETELEM, []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: append([]byte(nft.Table), 0)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: append([]byte(set), 0)},
	}, func(m message) error {
		return eachAttribute(m.body, func(kind uint16, value []byte) error {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return eachAttribute(value, func(uint16, []byte) error {
				n++
				return nil
			})
		})
	})
	return n, err
}

// dump asks for all there is of something, and passes on the answer.
func (r *reader) dump(kind uint16, of []netlink.Attribute, each func(message) error) error {
	attributes, err := netlink.MarshalAttributes(of)
	if err != nil {
		return err
	}
	_, err = r.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(about(kind)), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attributes...),
	})
	for done := false; !done && err == nil; {
		err = r.read(func(m message) error {
			switch {
			case m.kind == unix.NLMSG_DONE:
				done = true
				return nil
			case m.kind == unix.NLMSG_ERROR && len(m.body) >= 4:
				return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
			}
			return each(m)
		})
	}
	return err
}
