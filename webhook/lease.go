package webhook

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Lease is the Leader that holds a Lease. Its identity carries the address of the
// replica that holds it.
type Lease struct {
	Lock  resourcelock.Interface
	Clock func() time.Time

	mutex   sync.Mutex
	leads   bool
	address string
	asked   time.Time
}

// Identity returns the identity of a replica in the lease: a name that no other one
// has, and its address.
func Identity(name, address string) string { return name + "@" + address }

// Lead takes note of whether this replica leads.
func (l *Lease) Lead(leads bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.leads = leads
}

// Leads reports whether this replica leads.
func (l *Lease) Leads() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.leads
}

// For how long an answer about the leader counts, and how often it is asked anew, at
// most.
const (
	leaderCounts = 5 * time.Second
	leaderAnew   = 200 * time.Millisecond
)

// Address returns the address of the replica that holds the lease.
func (l *Lease) Address(ctx context.Context, again bool) (string, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	age := l.Clock().Sub(l.asked)
	if counts := age < leaderCounts && !again; counts && l.address != "" || age < leaderAnew {
		return l.address, l.found()
	}
	record, _, err := l.Lock.Get(ctx)
	if err != nil {
		return "", err
	}
	_, l.address, _ = strings.Cut(record.HolderIdentity, "@")
	l.asked = l.Clock()
	return l.address, l.found()
}

func (l *Lease) found() error {
	if l.address == "" {
		return errors.New("no replica leads yet")
	}
	return nil
}
