//go:build linux

package record_test

import (
	"context"
	"encoding/json"
	"fmt"
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

// open is a world in which web may send to ten ports of db.
var open = strings.Replace(shop, "{protocol: UDP, port: 53}", "{protocol: UDP, port: 1000, endPort: 1009}", 1)

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
				load := s.Load(s.web, s.db, 1000)
				var took, busy time.Duration
				lost, many := 0, 3*rate
				for b.Loop() {
					child, counts := s.child(b, level)
					begin := time.Now()
					load.Datagrams(many, rate, true)
					took += time.Since(begin)
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
		c := r.Counts()
		if err := out.Encode(answer{c.Ended, c.Overflows, spent(b)}); err != nil {
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

// BenchmarkRecorderCost opens and closes connections over TCP, with a recorder and without one
// in turn, 5,000 a second.
//
//	cores         how many the recorder takes, and the kernel to tell it, of which two are there
//	ratio         of how many a second, with a recorder to without one; the median of rounds
//	most-ratio    the same, as many as there may be
//	most/s        how many that are without one
func BenchmarkRecorderCost(b *testing.B) {
	netns.Want(b)
	for _, level := range []int{0, 2} {
		b.Run(fmt.Sprintf("level=%d", level), func(b *testing.B) {
			s := newScene(b)
			load := s.Load(s.web, s.db, 6000)
			// What policies cost is measured elsewhere.
			if err := s.kernel.Load(nft.Compile(nft.Input{Judge: s.generation.Input.Judge}, nil)); err != nil {
				b.Fatal(err)
			}
			const many, rate = 5_000, 5_000
			var more, ratios, mosts, alone []float64
			for b.Loop() {
				for range 3 {
					without, with := s.round(b, load, -1, many, rate), s.round(b, load, level, many, rate)
					more = append(more, (with.spent-without.spent).Seconds()/many*rate)
					ratios = append(ratios, with.rate/without.rate)
					without, with = s.round(b, load, -1, 3*many, 0), s.round(b, load, level, 3*many, 0)
					mosts, alone = append(mosts, with.rate/without.rate), append(alone, without.rate)
				}
			}
			b.ReportMetric(median(more), "cores")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(mosts), "most-ratio")
			b.ReportMetric(median(alone), "most/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// round opens connections, with a recorder of a level unless that is below 0, and returns how
// many a second, and the processor's time of this process and of the recorder.
func (s *scene) round(b *testing.B, load *netns.Load, level, many, rate int) (r struct {
	rate  float64
	spent time.Duration
},
) {
	s.Forget()
	end := func() time.Duration { return 0 }
	if level >= 0 {
		child, counts := s.child(b, level)
		end = func() time.Duration {
			s.Forget()
			spent := counts(uint64(many)).Spent
			if err := child.Wait(); err != nil {
				b.Fatal(err)
			}
			return spent
		}
	}
	before, begin := spent(b), time.Now()
	load.Connections(many, rate)
	r.rate = float64(many) / time.Since(begin).Seconds()
	r.spent = spent(b) - before
	r.spent += end()
	return r
}

// spent returns how much of the processor this process took, that of the kernel, too.
func spent(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
