//go:build linux

package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/internal/ingest"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowline"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// Whatever goes wrong on the way, a server gets each record once, or it is counted as
// lost.
func TestEachRecordIsSentOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "sent")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		server := &oddServer{T: t, taken: map[string]int{}, bodies: map[string][]byte{}}
		o := Options{
			Dir: dir, MaxBytes: 200_000, Node: "n1", Clock: time.Now, Log: func(err error) { t.Log(err) },
			Server: "http://flows", Client: &http.Client{Transport: server},
		}
		lost, written, restarts := uint64(0), uint64(0), 0 // lost at most
		d := newSending(t, o)
		end := func() {
			lost += d.written.Lost[lostUnsent] + d.written.Lost[lostRefused]
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "send", "send", "restart"}).Draw(t, "step") {
			case "write":
				n := rapid.SampledFrom([]int{1, 10, 500, 3000}).Draw(t, "records")
				if err := d.write(unitOf(written, n)); err != nil {
					t.Fatal(err)
				}
				written += uint64(n)
			case "send":
				d.sender.most = rapid.SampledFrom([]int64{1, 100_000, mostText}).Draw(t, "size")
				server.faults = rapid.SliceOfN(rapid.SampledFrom(faults), 0, 4).Draw(t, "faults")
				ctx, cancel := context.WithCancel(context.Background())
				server.cancel = cancel
				d.sender.sendAll(ctx)
				cancel()
			case "restart":
				end()
				restarts++
				d = newSending(t, o)
			}
		}
		server.faults = nil
		d.sender.sendAll(context.Background())
		unsent := Counts{}
		d.sender.add(&unsent)
		end()
		taken := uint64(0)
		for line, times := range server.taken {
			if taken++; times > 1 {
				t.Fatalf("%d times: %s", times, line)
			}
		}
		switch {
		case unsent.Unsent > 0:
			t.Fatalf("%d bytes are not sent", unsent.Unsent)
		case taken+lost < written || taken > written:
			t.Fatalf("%d of %d records are taken, and %d told to be lost", taken, written, lost)
		case restarts == 0 && !server.unsure && taken+lost != written:
			t.Fatalf("%d of %d records are taken, and %d lost", taken, written, lost)
		}
	})
}

func newSending(t interface{ Fatal(...any) }, o Options) *disk {
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := r.sender
	s.client.RetryWaitMin, s.client.RetryWaitMax = 0, 0
	if _, err := r.disk.open(); err != nil {
		t.Fatal(err)
	}
	if s.unpack, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
		t.Fatal(err)
	}
	s.begin()
	return r.disk
}

// unitOf is some records, no two of them alike.
func unitOf(first uint64, n int) *unit {
	s := &story{flow: policies.Flow{Protocol: netset.UDP, Verdict: policies.Allow}}
	s.told = s
	u := &unit{at: time.Unix(int64(first), 0), checkpoint: &checkpoint{}}
	for i := range uint64(n) {
		number := first + i
		u.records = append(u.records, record{line{s, uint16(number)}, sum{first: int64(number), last: int64(number), count: 1, counters: [2]conntrack.Counters{{Packets: 1, Bytes: number * 0x9e3779b97f4a7c15 >> 40}}}})
	}
	return u
}

// What may go wrong with a request.
const (
	unreached = "it does not arrive"
	unheard   = "its answer is lost"
	later     = "the server has no room now"
	foreign   = "something else answers"
	missing   = "something else says that there is no such page"
	killed    = "the sender is stopped before it arrives"
	cutOff    = "the sender is stopped before it hears"
	refused   = "the server cannot read it"
	small     = "the server takes no more than so much"
)

var faults = []string{unreached, unheard, later, foreign, missing, killed, cutOff, refused, small}

// oddServer takes records as weir flows serve does, unless something goes wrong.
type oddServer struct {
	*rapid.T
	faults []string
	cancel context.CancelFunc
	taken  map[string]int    // how often, by line
	bodies map[string][]byte // by batch, of those that were taken
	unsure bool              // whether it took what its sender was not told of
}

func (o *oddServer) RoundTrip(r *http.Request) (*http.Response, error) {
	fault := ""
	if len(o.faults) > 0 {
		fault, o.faults = o.faults[0], o.faults[1:]
	}
	answer := func(status int, text string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}, Request: r}, nil
	}
	switch fault {
	case unreached:
		return nil, errors.New("no route to host")
	case later:
		return answer(http.StatusTooManyRequests, "{}")
	case foreign:
		return answer(http.StatusOK, "<html>")
	case missing:
		return answer(http.StatusNotFound, "<html>")
	case killed:
		o.cancel()
		return nil, r.Context().Err()
	case refused:
		return answer(http.StatusBadRequest, `{"kind":"Error","message":"it cannot be read"}`)
	case small:
		return answer(http.StatusRequestEntityTooLarge, `{"kind":"Error","message":"it is too large"}`)
	}
	frames, err := io.ReadAll(r.Body)
	if err != nil {
		o.Fatal(err)
	}
	if name := r.Header.Get("Weir-Batch"); o.bodies[name] == nil {
		o.bodies[name] = frames
		o.take(frames)
	} else if !bytes.Equal(frames, o.bodies[name]) {
		o.Fatalf("%s is another batch than before", name)
	}
	switch fault {
	case unheard:
		o.unsure = true
		return nil, errors.New("connection reset by peer")
	case cutOff:
		o.unsure = true
		o.cancel()
		return nil, r.Context().Err()
	}
	return answer(http.StatusOK, `{"kind":"FlowIngest"}`)
}

func (o *oddServer) take(frames []byte) {
	unpack, err := zstd.NewReader(bytes.NewReader(frames))
	if err != nil {
		o.Fatal(err)
	}
	defer unpack.Close()
	text, err := io.ReadAll(unpack)
	if err != nil {
		o.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !flowline.IsLoss(line) {
			o.taken[string(line)]++
		}
	}
}

// A real server stores what is sent, once, over a restart of both.
func TestWhatIsSentIsStored(t *testing.T) {
	where := t.TempDir()
	store, err := flowstore.Open(t.Context(), where, flowstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := ingest.New(ingest.Config{CommitEvery: time.Millisecond}, store, clock.RealClock{})
	go func() { ended <- server.Run(ctx, listener) }()
	o := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, Node: "n1", Clock: time.Now, Log: func(err error) { t.Error(err) }, Server: "http://" + listener.Addr().String()}
	for i := range 3 {
		d := newSending(t, o)
		if err := d.write(unitOf(uint64(i)*100, 100)); err != nil {
			t.Fatal(err)
		}
		d.sender.sendAll(t.Context())
		counts := Counts{Lost: map[string]uint64{}}
		d.sender.add(&counts)
		if counts.Sent != 100 || counts.Unsent != 0 {
			t.Errorf("%+v", counts)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	}
	if stop(); <-ended != nil {
		t.Error("the server fails")
	}
	stats, err := store.Stats(t.Context())
	if err != nil || stats.Flows != 300 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// What is sent wants files.
func TestSendingWantsAFolder(t *testing.T) {
	if _, err := New(Options{Server: "http://flows"}); err == nil || !strings.Contains(err.Error(), "no folder") {
		t.Error(err)
	}
}
