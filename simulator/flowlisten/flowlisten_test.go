package flowlisten

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// netflow5 is a datagram of one flow, 10.0.1.5:43210 to 10.0.2.7 and a port.
func netflow5(sequence uint32, port uint16) []byte {
	b := make([]byte, 24+48)
	binary.BigEndian.PutUint16(b, 5)
	binary.BigEndian.PutUint16(b[2:], 1)
	binary.BigEndian.PutUint32(b[8:], 1772359200)
	binary.BigEndian.PutUint32(b[16:], sequence)
	record := b[24:]
	copy(record, []byte{10, 0, 1, 5, 10, 0, 2, 7})
	binary.BigEndian.PutUint16(record[32:], 43210)
	binary.BigEndian.PutUint16(record[34:], port)
	record[38] = 6
	return b
}

func open(t *testing.T, o Options) (*Listener, net.Conn) {
	t.Helper()
	l, err := Open("udp://127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	to, err := net.Dial("udp", strings.TrimPrefix(l.Address(), "udp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	return l, to
}

func send(t *testing.T, to net.Conn, datagrams ...[]byte) {
	t.Helper()
	for _, b := range datagrams {
		if _, err := to.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListen(t *testing.T) {
	idle := 0
	l, to := open(t, Options{Idle: func() error { idle++; return nil }})
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	send(t, to, netflow5(0, 80), []byte("noise"), netflow5(3, 443))

	var ports []uint16
	stats, err := l.Run(ctx, func(f policies.Flow) error {
		if ports = append(ports, f.Port); f.Port == 443 {
			interrupt()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := flowlog.Stats{Flows: 2, Lost: 2, LeftOut: map[string]uint64{"packet that is no flow export": 1}}
	if d := cmp.Diff(want, stats); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]uint16{80, 443}, ports); d != "" || idle == 0 {
		t.Errorf("idle %d times, ports %s", idle, d)
	}
}

func TestListenEndsWithAnError(t *testing.T) {
	full := errors.New("the disk is full")
	l, to := open(t, Options{})
	send(t, to, netflow5(0, 80))
	if stats, err := l.Run(context.Background(), func(policies.Flow) error { return full }); !errors.Is(err, full) || stats.Flows != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestNothingIsLostUnseen sends more than the queue and the socket have room for
// while the first flow is looked at: every datagram is a flow or is lost.
func TestNothingIsLostUnseen(t *testing.T) {
	const sent = 2000
	l, to := open(t, Options{Queue: 4, Buffer: 4096})
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	send(t, to, netflow5(0, 1))
	first := true
	// NetFlow's own numbers would count the loss too, so each datagram restarts them.
	stats, err := l.Run(ctx, func(f policies.Flow) error {
		if first {
			first = false
			for i := range uint32(sent) {
				send(t, to, netflow5(i<<22, 2))
			}
			// The kernel tells of a loss with the next datagram that it has room for.
			go func() {
				for ctx.Err() == nil {
					to.Write(netflow5(0, 3))
				}
			}()
		}
		if f.Port == 3 {
			interrupt()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := stats.Flows + stats.Lost; got < 1+sent {
		t.Errorf("%d flows and %d lost are less than the %d that were sent", stats.Flows, stats.Lost, 1+sent)
	}
	if stats.Lost == 0 {
		t.Error("nothing was lost, so nothing was tested")
	}
}

func TestWhereNobodyCanListen(t *testing.T) {
	for address, want := range map[string]string{
		"2055":                 `listen: "2055" is no address such as udp://:2055`,
		"tcp://:2055":          `listen: "tcp://:2055" is no address such as udp://:2055`,
		"udp://127.0.0.1:port": `listen: "udp://127.0.0.1:port" is no address such as udp://:2055: `,
		"udp://192.0.2.1:2055": "listen: listen udp 192.0.2.1:2055: ",
	} {
		if _, err := Open(address, Options{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
