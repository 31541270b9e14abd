// Package flowlisten receives flow exports, IPFIX, NetFlow and sFlow, by UDP.
//
// It owns the socket and the queue behind it; simulator/flowlog decodes.
package flowlisten

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// Options say how to receive. What is zero is chosen.
type Options struct {
	Flows  flowlog.Options // Format may be one of those that come in datagrams
	Queue  int             // how many datagrams may wait to be decoded
	Buffer int             // what the kernel is asked to keep, in bytes; it may keep less
	// Idle, when it is set, is called when all that was received is decoded.
	Idle func() error
}

const (
	defaultQueue  = 1024
	defaultBuffer = 8 << 20
	maxDatagram   = 1 << 16
)

// Listener is an open socket. Run closes it.
type Listener struct {
	conn    *net.UDPConn
	options Options
	kernel  overflow
	dropped atomic.Uint64 // for want of room in the queue
}

// Open opens a socket at an address such as udp://:2055 or udp://127.0.0.1:0.
func Open(address string, o Options) (*Listener, error) {
	host, isUDP := strings.CutPrefix(address, "udp://")
	if !isUDP {
		return nil, fmt.Errorf("listen: %q is no address such as udp://:2055", address)
	}
	at, err := net.ResolveUDPAddr("udp", host)
	if err != nil {
		return nil, fmt.Errorf("listen: %q is no address such as udp://:2055: %w", address, err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if o.Queue == 0 {
		o.Queue = defaultQueue
	}
	if o.Buffer == 0 {
		o.Buffer = defaultBuffer
	}
	l := &Listener{conn: conn, options: o}
	if err := errors.Join(conn.SetReadBuffer(o.Buffer), l.kernel.watch(conn)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), conn.Close())
	}
	return l, nil
}

// Address is where the listener listens.
func (l *Listener) Address() string { return "udp://" + l.conn.LocalAddr().String() }

// Close closes a listener that is not to run.
func (l *Listener) Close() error { return l.conn.Close() }

// datagram is one that waits to be decoded.
type datagram struct {
	bytes    []byte
	exporter netip.Addr
	at       time.Time
}

// Run calls each for every flow that is received until ctx ends, which is no
// error: what was received until then is decoded. It ends early with an error of
// each, of Idle, of the socket, or with Flows.Strict of a bad datagram. What
// the kernel or the queue had no room for counts as lost, a datagram as one.
func (l *Listener) Run(ctx context.Context, each func(policies.Flow) error) (flowlog.Stats, error) {
	defer l.conn.Close() //nolint:errcheck // nothing is written to it
	decoder, err := flowlog.NewDatagrams(context.WithoutCancel(ctx), l.Address(), l.options.Flows, each)
	if err != nil {
		return flowlog.Stats{}, err
	}
	stop := context.AfterFunc(ctx, l.interrupt)
	defer stop()

	queue, failed := make(chan datagram, l.options.Queue), make(chan error, 1)
	go func() {
		defer close(queue)
		failed <- l.receive(ctx, queue)
	}()
	err = l.decode(decoder, queue)
	l.interrupt()
	for range queue { // after an error nothing more is decoded
		l.dropped.Add(1)
	}
	err = errors.Join(err, <-failed)
	decoder.Lost(l.dropped.Load() + l.kernel.dropped)
	return decoder.Finish(), err
}

// interrupt ends receive.
func (l *Listener) interrupt() { l.conn.SetReadDeadline(time.Unix(1, 0)) } //nolint:errcheck // it is open or closed

// receive puts datagrams into the queue until it is interrupted.
func (l *Listener) receive(ctx context.Context, queue chan<- datagram) error {
	buffer, control := make([]byte, maxDatagram), make([]byte, controlSize)
	for {
		n, m, _, from, err := l.conn.ReadMsgUDPAddrPort(buffer, control)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("listen: %w", err)
		}
		l.kernel.note(control[:m])
		select {
		case queue <- datagram{append([]byte(nil), buffer[:n]...), from.Addr(), time.Now()}:
		default:
			l.dropped.Add(1)
		}
	}
}

// decode decodes what is in the queue until that is closed.
func (l *Listener) decode(decoder *flowlog.Datagrams, queue <-chan datagram) error {
	for d := range queue {
		if err := decoder.Decode(d.bytes, d.exporter, d.at); err != nil {
			return err
		}
		if len(queue) == 0 && l.options.Idle != nil {
			if err := l.options.Idle(); err != nil {
				return err
			}
		}
	}
	return nil
}
