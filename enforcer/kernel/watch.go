//go:build linux

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
)

// Alarm is why the table may not be what was loaded.
type Alarm string

// The alarms. What is right after each of them is to load again; after Lost it is
// enough where Verify complains.
const (
	Tampered Alarm = "somebody else changed the table"
	Lost     Alarm = "what happened to the table got lost"
)

// own are the transactions of a Kernel whose event is still to come.
type own struct {
	mutex    sync.Mutex // held while a transaction is under way
	watching bool
	expected map[uint32]int // by the number of the socket
}

// Watch calls ready once it sees all that happens to the table, and alarm whenever
// somebody else changes it. It ends with the context, or with the reason why it cannot
// see any more. There is one at a time.
func (k *Kernel) Watch(ctx context.Context, ready func(), alarm func(Alarm)) error {
	r, err := newReader(k.netns, 0)
	if err != nil {
		return fmt.Errorf("watch the table: %w", err)
	}
	err = errors.Join(r.SetReadBuffer(buffer), r.JoinGroup(unix.NFNLGRP_NFTABLES))
	if errors.Is(err, unix.EPERM) {
		err = mayNot(err)
	}
	if err != nil {
		return fmt.Errorf("watch the table: %w", errors.Join(err, r.Close()))
	}
	k.expect(true)
	defer k.expect(false)
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // closing it is all that is left
	defer stop()
	ready()
	touched := false
	for {
		err := r.read(func(m message) error {
			if m.kind != about(unix.NFT_MSG_NEWGEN) {
				touched = touched || m.isAbout(nft.Table)
				return nil
			}
			if touched && !k.takes(m.sender) {
				alarm(Tampered)
			}
			touched = false
			return nil
		})
		switch {
		case errors.Is(err, unix.ENOBUFS):
			touched = false
			k.expect(true)
			alarm(Lost)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.Join(ctx.Err(), r.Close())
		case err != nil:
			return fmt.Errorf("watch the table: %w", errors.Join(err, r.Close()))
		}
	}
}

// isAbout reports whether an event is about a table or something in it: whatever it is
// about, the first kind of attribute is the table's name.
func (m message) isAbout(table string) bool {
	is := false
	err := eachAttribute(m.body, func(kind uint16, value []byte) error {
		is = is || kind == unix.NFTA_TABLE_NAME && string(value) == table+"\x00"
		return nil
	})
	return m.family == unix.NFPROTO_INET && (is || err != nil)
}

// expect begins to tell events of own transactions from others, or ends that.
func (k *Kernel) expect(watching bool) {
	k.own.mutex.Lock()
	defer k.own.mutex.Unlock()
	k.own.watching, k.own.expected = watching, map[uint32]int{}
}

// takes reports whether an event is that of an own transaction.
func (k *Kernel) takes(sender uint32) bool {
	k.own.mutex.Lock()
	defer k.own.mutex.Unlock()
	if k.own.expected[sender] == 0 {
		return false
	}
	k.own.expected[sender]--
	return true
}
