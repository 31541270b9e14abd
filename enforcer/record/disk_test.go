//go:build linux

package record

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// What each level leaves out of the records of two connections.
func TestLevels(t *testing.T) {
	for level, want := range [][]string{
		{"shop/db-0 10.0.0.1 to 192.0.2.1 TCP/80 from 40000: 1", "shop/db-0 10.0.0.1 to 192.0.2.1 TCP/80 from 40001: 1"},
		{"shop/db-0 10.0.0.1 to 192.0.2.1 TCP/80 from 0: 2"},
		{"shop/db-0 invalid IP to public TCP/80 from 0: 2"},
		{"shop/db-0 invalid IP to public TCP/0 from 0: 2"},
	} {
		b := newTestBook(Level(level))
		from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
		for _, port := range []uint16{40000, 40001} {
			b.begin(&conntrack.Connection{
				Original: conntrack.Tuple{Source: from, Destination: to, Protocol: netset.TCP, SourcePort: port, DestinationPort: 80},
				Reply:    conntrack.Tuple{Source: to, Destination: from, Protocol: netset.TCP, SourcePort: 80, DestinationPort: port},
			}, 1)
		}
		got := map[string]bool{}
		for l, s := range b.close() {
			f := flowOf(l, s)
			far := f.To.Network.String()
			if f.To.Address.IsValid() {
				far = f.To.Address.String()
			}
			got[fmt.Sprintf("%s/%s %s to %s %s/%d from %d: %d", f.From.Namespace, f.From.Pod, f.From.Address, far, f.Protocol, f.Port, f.SourcePort, f.Count)] = true
		}
		wanted := map[string]bool{}
		for _, line := range want {
			wanted[line] = true
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("level %d (-want +got)\n%s", level, diff)
		}
	}
}

// The files never take more than they may; what went to make room is counted, and all
// that is left is whole.
func TestDiskIsBounded(t *testing.T) {
	const most = 200_000
	o := Options{Dir: t.TempDir(), MaxBytes: most, Node: "n1", Clock: time.Now, Log: func(err error) { t.Error(err) }}
	d := newDisk(o)
	if c, err := d.open(); err != nil || c != nil {
		t.Fatal(c, err)
	}
	s := &story{flow: policies.Flow{Protocol: netset.UDP, Verdict: policies.Allow}}
	s.told = s
	for i := range 60 {
		u := &unit{at: time.Unix(int64(i), 0), checkpoint: &checkpoint{}}
		for n := range 500 {
			random := uint64(i*500+n) * 0x9e3779b97f4a7c15
			u.records = append(u.records, record{line{s, uint16(random)}, sum{first: int64(random >> 20), last: int64(random >> 19), count: 1, counters: [2]conntrack.Counters{{Packets: 1, Bytes: random >> 40}}}})
		}
		if err := d.write(u); err != nil {
			t.Fatal(err)
		}
		spent := int64(0)
		names, err := filepath.Glob(filepath.Join(o.Dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			spent += info.Size()
		}
		if spent > most {
			t.Fatalf("%d bytes of %d after %d windows", spent, most, i+1)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	again := newDisk(o)
	c, err := again.open()
	if err != nil {
		t.Fatal(err)
	}
	read, known := uint64(0), uint64(0)
	for _, f := range c.Files {
		known += f.Records
		file, err := os.Open(filepath.Join(o.Dir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		stats, err := flowlog.Read(t.Context(), file, f.Name, flowlog.Options{Strict: true}, func(policies.Flow) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		read += stats.Flows
	}
	counts := Counts{Lost: map[string]uint64{}}
	d.count(&counts)
	if counts.Records != 30_000 || counts.Removed == 0 || read != known || read+counts.Removed != counts.Records {
		t.Errorf("%d are read, %d known; counts %+v", read, known, counts)
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
}
