//go:build linux

package record_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/enforcer/record"
	"github.com/weir-policy/weir/internal/testkit/netns"
)

// open is a world in which web may send to some thousand ports of db.
var open = strings.Replace(shop, "{protocol: UDP, port: 53}", "{protocol: UDP, port: 1000, endPort: 9999}", 1)

// sender sends datagrams, each of which is a connection of its own.
type sender struct {
	fd     int
	packet []byte
	sent   int
	to     unix.SockaddrInet4
}

func newSender(b *testing.B, from *netns.Party, to netip.Addr) *sender {
	b.Helper()
	s := &sender{packet: make([]byte, 20+8+64)}
	from.Inside(func() {
		var err error
		if s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() { unix.Close(s.fd) })
	s.packet[0], s.packet[8], s.packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(s.packet[12:], from.Addresses[0].AsSlice())
	copy(s.packet[16:], to.AsSlice())
	binary.BigEndian.PutUint16(s.packet[24:], 8+64)
	s.to.Addr = to.As4()
	return s
}

func (s *sender) send(b *testing.B) {
	binary.BigEndian.PutUint16(s.packet[20:], uint16(1024+s.sent%50000))
	binary.BigEndian.PutUint16(s.packet[22:], uint16(1000+s.sent/50000%9000))
	s.sent++
	if err := unix.Sendto(s.fd, s.packet, 0, &s.to); err != nil {
		b.Fatal(err)
	}
}

// pace sends so many at a rate, and returns how long that took.
func (s *sender) pace(b *testing.B, many, rate int) time.Duration {
	begin := time.Now()
	for n := range many {
		if due := begin.Add(time.Duration(n) * time.Second / time.Duration(rate)); n%32 == 0 && time.Until(due) > 0 {
			time.Sleep(time.Until(due))
		}
		s.send(b)
	}
	return time.Since(begin)
}

const benched = "WEIR_RECORD_FOR_BENCHMARK"

// Connections of one packet begin at a rate, and then all end at once, which is the
// worst there is. A recorder of its own process records them.
//
//	lost/op          connections that are not recorded
//	us/connection    processor time of the recorder for beginning and end
//	achieved/s       how many began a second
func BenchmarkRecorder(b *testing.B) {
	if text := os.Getenv(benched); text != "" {
		recordForBenchmark(b, text)
		return
	}
	netns.Want(b)
	for _, level := range []int{0, 2} {
		for _, rate := range []int{5_000, 50_000} {
			b.Run(fmt.Sprintf("level=%d/rate=%d", level, rate), func(b *testing.B) {
				s := newSceneOf(b, open)
				sender := newSender(b, s.web, s.db.Addresses[0])
				var took, busy time.Duration
				lost, many := 0, 3*rate
				for b.Loop() {
					child, counts := s.child(b, level)
					took += sender.pace(b, many, rate)
					s.Forget()
					c := counts(uint64(many))
					if err := child.Wait(); err != nil {
						b.Fatal(err)
					}
					busy += c.Spent
					lost += many - int(c.Ended)
					b.ReportMetric(float64(c.Overflows), "overflows")
				}
				b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
				b.ReportMetric(float64(busy.Microseconds())/float64(many*b.N), "us/connection")
				b.ReportMetric(float64(many*b.N)/took.Seconds(), "achieved/s")
			})
		}
	}
}

// child starts a recorder. The function that it returns waits until so many connections
// have ended, stops it, and returns what it says of itself, with the processor's time that it took since it began.
func (s *scene) child(b *testing.B, level int) (*exec.Cmd, func(ended uint64) answer) {
	b.Helper()
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(program, "-test.run=^$", "-test.bench=^BenchmarkRecorder$", "-test.benchtime=1x")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", benched, level))
	child.ExtraFiles = []*os.File{s.file()}
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	answers := json.NewDecoder(stdout)
	next := func() (c answer) {
		if err := answers.Decode(&c); err != nil {
			b.Fatal(err)
		}
		return c
	}
	before := next()
	return child, func(ended uint64) answer {
		last, still := before, 0
		for still < 20 {
			if err := child.Process.Signal(unix.SIGUSR1); err != nil {
				b.Fatal(err)
			}
			now := next()
			if now.Ended >= ended {
				still = 20
			} else if now.Ended == last.Ended && now.Ended > 0 {
				still++
			}
			last = now
			time.Sleep(50 * time.Millisecond)
		}
		if err := child.Process.Signal(unix.SIGTERM); err != nil {
			b.Fatal(err)
		}
		last = next()
		// What the process did not do for the recorder was done before.
		last.Spent -= before.Spent
		return last
	}
}

// answer is what a recorder of its own process says of itself.
type answer struct {
	Ended, Overflows uint64
	Spent            time.Duration
}

// recordForBenchmark says what it did for each signal, and at its end.
func recordForBenchmark(b *testing.B, text string) {
	var level int
	fmt.Sscan(text, &level)
	const inherited = 3
	r, err := record.New(record.Options{
		Netns: inherited, Node: "n1", LogGroup: 5, Dir: b.TempDir(), Window: 2 * time.Second, Level: record.Level(level),
		Log: func(err error) { fmt.Fprintln(os.Stderr, err) },
	})
	if err != nil {
		b.Fatal(err)
	}
	r.Enforce(generationOf(b, open))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	out := json.NewEncoder(os.Stdout)
	say := func() {
		var usage unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		c, spent := r.Counts(), time.Duration(usage.Utime.Nano()+usage.Stime.Nano())
		if err := out.Encode(answer{c.Ended, c.Overflows, spent}); err != nil {
			b.Fatal(err)
		}
	}
	for r.Counts().Dumps == 0 {
		time.Sleep(time.Millisecond)
	}
	say()
	for {
		select {
		case <-asked:
			say()
		case err := <-done:
			say()
			stop()
			if err != nil {
				b.Fatal(err)
			}
			os.Exit(0)
		}
	}
}

// BenchmarkRecorderCost opens and closes connections over TCP, one after the other, with
// a recorder and without one in turn.
//
//	ratio     of how many a second, with a recorder to without one; the median of rounds
//	alone/s   how many without one
func BenchmarkRecorderCost(b *testing.B) {
	netns.Want(b)
	s := newScene(b)
	var listener *net.TCPListener
	s.db.Inside(func() {
		var err error
		if listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.db.Addresses[0], 6000))); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	// What policies cost is measured elsewhere.
	if err := s.kernel.Load(nft.Compile(nft.Input{Judge: s.generation.Input.Judge}, nil)); err != nil {
		b.Fatal(err)
	}
	round := func() float64 {
		n, begin := 0, time.Now()
		s.web.Inside(func() {
			for time.Since(begin) < time.Second/2 {
				n++
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				if err := errors.Join(err, unix.Connect(fd, &unix.SockaddrInet4{Port: 6000, Addr: s.db.Addresses[0].As4()}), unix.Close(fd)); err != nil {
					b.Fatal(err)
				}
			}
		})
		return float64(n) / time.Since(begin).Seconds()
	}
	var ratios, alone []float64
	for b.Loop() {
		for range 5 {
			without := round()
			child, counts := s.child(b, 2)
			with := round()
			s.Forget()
			counts(1)
			if err := child.Wait(); err != nil {
				b.Fatal(err)
			}
			ratios, alone = append(ratios, with/without), append(alone, without)
		}
	}
	slices.Sort(ratios)
	slices.Sort(alone)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(alone[len(alone)/2], "alone/s")
}
