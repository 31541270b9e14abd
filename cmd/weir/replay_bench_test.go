//go:build unix

package main

import (
	"cmp"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/simulator/flowline"
)

var (
	benchFlows = flag.Int("flows", 200_000, "how many flows the month has that BenchmarkReplay replays")
	benchEdges = flag.Int("edges", 67_000, "how many pairs of workloads and ports may talk")
	benchDir   = flag.String("store", "", "a folder to make BenchmarkReplay's store and manifests in, which are kept; a temporary one otherwise")
)

// BenchmarkReplay replays a month of flows from a store, in a process of its own:
// where every tenth namespace closes, and where what leaves the cluster may go to
// some addresses only. MB-resident is the most memory that the process had.
func BenchmarkReplay(b *testing.B) {
	dir := cmp.Or(*benchDir, b.TempDir())
	monthOf(b, dir, *benchFlows)
	for _, change := range []string{"closing", "addresses"} {
		b.Run(change, func(b *testing.B) {
			var used time.Duration
			var most int64
			for b.Loop() {
				c := program(b, "replay", "--flows", dir+"/store", dir+"/open", dir+"/"+change, "-o", "json")
				if err := c.Run(); err != nil {
					b.Fatal(err)
				}
				used += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
				size := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
				if runtime.GOOS == "linux" {
					size <<= 10
				}
				most = max(most, size)
			}
			b.ReportMetric(used.Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(most)/1e6, "MB-resident")
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// monthOf makes a store of a month of flows, and the manifests of their world and
// of its changes.
func monthOf(b *testing.B, dir string, n int) {
	b.Helper()
	const seconds = 30 * 24 * 60 * 60
	g := flows.New(flows.Options{Rate: float64(n) / seconds, Edges: *benchEdges})
	m := g.Model()
	write := func(name string, rules ...policies.Policy) {
		changed := *m
		changed.Policies = rules
		for file, of := range worlds.Files(&changed) {
			path := filepath.Join(dir, name, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(path, of.Data, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	var closing, addresses []policies.Policy
	ports := netset.PortSpan(netset.TCP, 1, 65535).Union(netset.PortSpan(netset.UDP, 1, 65535))
	everywhere := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	for i, ns := range m.Namespaces {
		p := policies.Policy{
			Ref:     policies.Ref{Kind: "NetworkPolicy", Namespace: ns.Name, Name: "weir-bench"},
			Subject: policies.Match{Namespaces: selector.Label(policies.NameLabel, ns.Name), Pods: selector.Everything()},
		}
		if i%10 == 0 {
			p.Governs[policies.Ingress] = true
			p.Rules[policies.Ingress] = []policies.Rule{{Action: policies.ActionAllow, Peers: []policies.Match{p.Subject}, Ports: ports}}
			closing = append(closing, p)
		}
		q := p
		q.Governs, q.Rules = [2]bool{policies.Egress: true}, [2][]policies.Rule{}
		outside := policies.Match{Block: netset.Block{CIDR: netset.AllIPv4, Except: []netip.Prefix{netip.MustParsePrefix("64.0.0.0/3")}}}
		q.Rules[policies.Egress] = []policies.Rule{{Action: policies.ActionAllow, Peers: []policies.Match{everywhere, outside}, Ports: ports}}
		addresses = append(addresses, q)
	}
	write("open")
	write("closing", closing...)
	write("addresses", addresses...)
	if _, err := os.Stat(dir + "/store"); err == nil {
		return
	}
	records, into := io.Pipe()
	importing := program(b, "flows", "import", "-", "--flow-format", "weir", "--store", dir+"/store")
	importing.Stdin = records
	go func() {
		w := flowline.NewWriter(into)
		var err error
		for range n {
			f := g.Next()
			// As where each side reports what it lets go.
			f.EgressOnly = f.Origin.Reporter == policies.SourceSide && f.Verdict == policies.Allow && !f.To.Outside
			err = errors.Join(err, w.Write(f))
		}
		_ = into.CloseWithError(errors.Join(err, w.Flush()))
	}()
	for _, c := range []*exec.Cmd{importing, program(b, "flows", "compact", "--store", dir+"/store")} {
		c.Stdout = os.Stderr
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
	}
}

// program returns weir in a process of its own, of whose memory the benchmark's has
// no part: what a process had resident when it became another one counts as the other's.
func program(b *testing.B, args ...string) *exec.Cmd {
	b.Helper()
	c := exec.CommandContext(b.Context(), must(os.Executable()), args...)
	c.Args[0] = "weir"
	c.Stderr = os.Stderr
	return c
}
