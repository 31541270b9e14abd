//go:build linux

package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// asProcess is set in a process of its own that captures until it is killed.
const asProcess = "WEIR_CAPTURE_IN"

// asBlast is set in a process of its own that sends so many datagrams of so many bytes.
const asBlast = "WEIR_CAPTURE_BLAST"

// blast sends 50,000 datagrams a second.
func blast(order string) error {
	var count, size int
	if _, err := fmt.Sscan(order, &count, &size); err != nil {
		return err
	}
	out, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	to, data, began := &net.UDPAddr{IP: net.IP{10, 0, 0, 2}, Port: 7000}, make([]byte, size), time.Now()
	for sent := 0; sent < count; {
		for due := min(count, int(time.Since(began).Seconds()*50_000)); sent < due; sent++ {
			if _, err := out.WriteTo(data, to); err != nil {
				return err
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil
}

func init() {
	if order := os.Getenv(asBlast); order != "" {
		if err := blast(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(asProcess); dir != "" {
		c, err := New(Options{Netns: 3, Dir: dir, Node: "n1", MinFreeBytes: -1})
		if err == nil {
			c.Set([]Request{wish("c", "db", netip.MustParseAddr("10.0.0.2"))})
			err = c.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func wish(name, pod string, addresses ...netip.Addr) Request {
	r := request(name, 0, 0, pod)
	r.Pods[0].Addresses = addresses
	return r
}

// capturing runs a capturer on the node of a lab until the test ends, or stop is
// called.
func capturing(t testing.TB, lab *netns.Lab, o Options, requests ...Request) (c *Capturer, stop func()) {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Netns, o.Node = lab.FD(), "n1"
	if o.Warn == nil {
		o.Warn = func(err error) { t.Error(err) }
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = -1
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	c.Set(requests)
	go func() { ended <- c.Run(ctx) }()
	once := false
	stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	for _, r := range requests {
		becomes(t, c, r.Ref.Name, v1alpha1.CaptureWaitingForTraffic)
	}
	return c, stop
}

// becomes waits until a capture has a state, with a session where it waits for traffic.
func becomes(t testing.TB, c *Capturer, name, state string) (f v1alpha1.CaptureFiles) {
	t.Helper()
	testkit.Eventually(t, func() error {
		for _, s := range c.States() {
			if f = s.Status.Files[0]; s.Metadata.Name == name && f.State == state && (state != v1alpha1.CaptureWaitingForTraffic || f.Message == "") {
				return nil
			}
		}
		return fmt.Errorf("%s is not %s: %v", name, state, c.States())
	})
	return f
}

// kept counts the packets of a file by their comment; late counts the datagrams of
// streams that arrived too.
func kept(t testing.TB, name string) (comments map[string]int, late int64) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	comments = map[string]int{}
	for {
		data, _, options, err := in.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return comments, late
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		comments[strings.Join(options.Comments, "|")]++
		if p, ok := parse(data, 14); ok && p.protocol == netset.UDP && data[len(data)-1] == 2 {
			late++
		}
	}
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// What was asked for is in the files, to the packet, and nothing else.
func TestRealTraffic(t *testing.T) {
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2")...)
	web6, db6 := lab.Add(addresses("2001:db8::1")...), lab.Add(addresses("2001:db8::2")...)
	asked := []policies.CaptureFilter{
		{Protocol: netset.UDP, Ports: []policies.PortSpan{{First: 6999, Last: 7000}}},
		{Protocol: netset.TCP},
	}
	four, six, whole := wish("four", "db", db.Addresses...), wish("six", "db6", db6.Addresses...), wish("whole", "web", web.Addresses...)
	four.Filters, six.Filters, whole.SnapLength = asked, asked, 64
	c, stop := capturing(t, lab, Options{
		Verdict:     func(Attempt) policies.Verdict { return policies.Allow },
		Connections: func(func(Attempt) bool) error { return nil },
	}, four, six, whole)

	streams := []*netns.Stream{lab.Stream(web, db, 7000, true), lab.Stream(web6, db6, 7000, true), lab.Stream(web, db, 7001, true)}
	becomes(t, c, "four", v1alpha1.CaptureCapturing)
	becomes(t, c, "six", v1alpha1.CaptureCapturing)
	var sent []int64
	for _, s := range streams {
		n, _ := s.Stop()
		sent = append(sent, n)
	}
	talk := lab.Talk(web, db, 7002)
	if !talk.Carries(true, true) {
		t.Fatal("nothing is heard")
	}
	stop()

	folder := filepath.Join(c.options.Dir, "shop")
	comments, late := kept(t, filepath.Join(folder, "four", "db_link1.pcapng"))
	if late != sent[0] {
		t.Errorf("%d datagrams were kept of %d", late, sent[0])
	}
	if len(comments) != 2 || comments["pod shop/db, ingress, allow"] < int(late) || comments["pod shop/db, egress, allow"] == 0 {
		t.Errorf("comments %v", comments)
	}
	comments, late = kept(t, filepath.Join(folder, "six", "db6_link3.pcapng"))
	if late != sent[1] || len(comments) != 1 {
		t.Errorf("%d datagrams were kept of %d, comments %v", late, sent[1], comments)
	}
	comments, late = kept(t, filepath.Join(folder, "whole", "web_link0.pcapng"))
	if late != sent[0]+sent[2] || comments["pod shop/web, egress, allow"] < int(late) {
		t.Errorf("%d datagrams were kept of %d, comments %v", late, sent[0]+sent[2], comments)
	}
	for _, s := range c.States() {
		if f := s.Status.Files[0]; f.Dropped != 0 || len(f.FileNames) != 1 {
			t.Errorf("%+v", f)
		}
	}
	opens(t, filepath.Join(folder, "four", "db_link1.pcapng"), int(c.States()[0].Status.Files[0].Packets))
}

// opens checks that Wireshark's own tools read a file, where they are installed.
func opens(t *testing.T, name string, packets int) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("not tried with tshark, which is not installed")
		return
	}
	out, err := exec.Command(tshark, "-r", name, "-Y", `frame.comment contains "allow"`, "-T", "fields", "-e", "frame.comment", "-e", "frame.interface_name").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Count(string(out), "db, ingress, allow\tlink1\n") + strings.Count(string(out), "db, egress, allow\tlink1\n")
	if lines != packets {
		t.Errorf("tshark shows %d packets of %d", lines, packets)
	}
	if out, err := exec.Command("capinfos", "-c", "-M", "-T", "-r", name).CombinedOutput(); err != nil || !strings.Contains(string(out), strconv.Itoa(packets)) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRealRotation(t *testing.T) {
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2")...)
	r := wish("c", "db", db.Addresses...)
	r.MaxFileBytes, r.MaxFiles = 100_000, 3
	c, stop := capturing(t, lab, Options{}, r)
	stream := lab.Stream(web, db, 7000, true)
	testkit.Eventually(t, func() error {
		if f := c.States()[0].Status.Files[0]; f.Bytes < 600_000 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	stream.Stop()
	stop()
	f := c.States()[0].Status.Files[0]
	if len(f.FileNames) != 3 {
		t.Errorf("%v", f.FileNames)
	}
	var total int64
	for _, name := range f.FileNames {
		info, err := os.Stat(filepath.Join(f.Directory, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
		if comments, _ := kept(t, filepath.Join(f.Directory, name)); info.Size() > 100_000 || len(comments) != 1 {
			t.Errorf("%s has %d bytes, comments %v", name, info.Size(), comments)
		}
	}
	if c.room.used != total {
		t.Errorf("%d bytes are taken for %d in files", c.room.used, total)
	}
}

// A disk that is full ends the capture, whose files stay whole, and nothing else.
func TestRealFullDisk(t *testing.T) {
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2")...)
	for _, row := range []struct {
		name    string
		minFree int64
		want    string
	}{
		{"nothing is left", -1, "no space left on device"},
		{"what must stay free is left", 400_000, "400000 must stay so"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("weir", dir, "tmpfs", 0, "size=1m"); err != nil {
				t.Fatalf("mount a small disk: %v; run as root, or under unshare -Urnm", err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			warn := func(error) {} // the state may have no room either
			c, stop := capturing(t, lab, Options{Dir: dir, MinFreeBytes: row.minFree, Warn: warn}, wish("c", "db", db.Addresses...))
			stream := lab.Stream(web, db, 7000, true)
			f := becomes(t, c, "c", v1alpha1.CaptureError)
			if sent, received := stream.Stop(); sent != received {
				t.Errorf("of %d datagrams %d arrived", sent, received)
			}
			stop()
			if !strings.Contains(f.Message, row.want) {
				t.Error(f.Message)
			}
			if packets, _ := readAll(t, filepath.Join(f.Directory, f.FileNames[0])); int64(packets) != f.Packets || packets == 0 {
				t.Errorf("%d packets in the file, %d told", packets, f.Packets)
			}
			free, err := freeBytes(dir)
			if err != nil || free < row.minFree {
				t.Errorf("%d bytes are free, %v", free, err)
			}
		})
	}
}

// kill -9 leaves files of whole packets, and the next one goes on.
func TestRealKill(t *testing.T) {
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2")...)
	dir := t.TempDir()
	namespace, err := unix.Dup(lab.FD())
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), asProcess+"="+dir)
	process.ExtraFiles = []*os.File{os.NewFile(uintptr(namespace), "netns")}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	stream := lab.Stream(web, db, 7000, true)
	name := filepath.Join(dir, "shop", "c", "db_link1.pcapng")
	testkit.Eventually(t, func() error {
		info, err := os.Stat(name)
		if err == nil && info.Size() < 100_000 {
			err = errors.New("nothing is kept yet")
		}
		return err
	})
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // killed
	before, _ := readAll(t, name)
	if before == 0 {
		t.Error("nothing is kept")
	}
	c, stop := capturing(t, lab, Options{Dir: dir}, wish("c", "db", db.Addresses...))
	becomes(t, c, "c", v1alpha1.CaptureCapturing)
	stream.Stop()
	stop()
	f := c.States()[0].Status.Files[0]
	if len(f.FileNames) != 2 {
		t.Fatal(f.FileNames)
	}
	if after, _ := readAll(t, filepath.Join(f.Directory, f.FileNames[1])); after != before {
		t.Errorf("%d packets were kept before, and are %d now", before, after)
	}
}

func TestRealInterfaces(t *testing.T) {
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2", "2001:db8::2")...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hardware := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	behind := netip.MustParseAddr("10.1.0.9")
	lab.Inside(func() {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "bridge0"
		bridge := &netlink.Bridge{LinkAttrs: attributes}
		must(netlink.LinkAdd(bridge))
		attributes = netlink.NewLinkAttrs()
		attributes.Name, attributes.MasterIndex = "port0", bridge.Index
		must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "pod0"}))
		port, err := netlink.LinkByName("port0")
		must(err)
		must(errors.Join(netlink.LinkSetUp(bridge), netlink.LinkSetUp(port)))
		must(netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.IP{10, 1, 0, 1}, Mask: net.CIDRMask(24, 32)}}))
		must(netlink.NeighSet(&netlink.Neigh{LinkIndex: bridge.Index, State: netlink.NUD_PERMANENT, IP: behind.AsSlice(), HardwareAddr: hardware}))
		must(netlink.NeighAppend(&netlink.Neigh{LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: hardware}))
		must(netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IP{10, 2, 0, 0}, Mask: net.CIDRMask(16, 32)}, Gw: net.IP{10, 1, 0, 7}, LinkIndex: bridge.Index}))
	})
	for _, row := range []struct {
		pod  Pod
		want string
	}{
		{Pod{Addresses: db.Addresses}, "link1"},
		{Pod{Addresses: db.Addresses[1:]}, "link1"},
		{Pod{Interface: "link0", Addresses: db.Addresses}, "link0"},
		{Pod{Addresses: []netip.Addr{behind}}, "port0"},
		{Pod{Addresses: addresses("10.1.0.8")}, "bridge bridge0 has not seen the pod yet"},
		{Pod{Addresses: addresses("10.2.0.8")}, errNoWay.Error()},
		{Pod{Addresses: addresses("192.0.2.1")}, errNoWay.Error()},
		{Pod{Addresses: addresses("127.0.0.1")}, errNoWay.Error()},
		{Pod{Interface: "none"}, "there is no interface none"},
		{Pod{}, "no address yet"},
	} {
		d, err := find(lab.FD(), row.pod)
		if got := fmt.Sprint(d.name, err); !strings.HasPrefix(got, row.want+"<nil>") && (err == nil || !errors.Is(err, errNoWay) || !strings.Contains(got, row.want)) {
			t.Errorf("%v: got %s, want %s", row.pod, got, row.want)
		}
	}

	c, _ := capturing(t, lab, Options{}, wish("c", "db", db.Addresses...))
	stream := lab.Stream(web, db, 7000, true)
	becomes(t, c, "c", v1alpha1.CaptureCapturing)
	stream.Stop()
	lab.Inside(func() {
		link, err := netlink.LinkByName("link1")
		must(err)
		must(netlink.LinkDel(link))
	})
	testkit.Eventually(t, func() error {
		if f := c.States()[0].Status.Files[0]; f.State != v1alpha1.CaptureWaitingForTraffic || !strings.Contains(f.Message, errNoWay.Error()) || f.Packets == 0 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
}

// BenchmarkRealCapture sends 50,000 packets a second, each of some bytes, and reports
// the processor time that keeping one takes, and how many are lost.
func BenchmarkRealCapture(b *testing.B) {
	netns.Want(b)
	for _, row := range []struct {
		name       string
		size, snap int
		filters    []policies.CaptureFilter
	}{
		{"small", 60, 0, nil},
		{"headers of large", 1400, 128, nil},
		{"large", 1400, 0, nil},
		{"filtered out", 1400, 0, []policies.CaptureFilter{{Protocol: netset.TCP}}},
	} {
		b.Run(row.name, func(b *testing.B) {
			lab := netns.New(b)
			web, db := lab.Add(addresses("10.0.0.1")...), lab.Add(addresses("10.0.0.2")...)
			r := wish("c", "db", db.Addresses...)
			r.SnapLength, r.MaxFileBytes, r.Filters = row.snap, 100_000_000, row.filters
			c, stop := capturing(b, lab, Options{Verdict: func(Attempt) policies.Verdict { return policies.Allow }}, r)
			blast := exec.Command(os.Args[0])
			blast.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", asBlast, b.N, row.size))
			blast.Stderr = os.Stderr
			var err error
			db.Inside(func() { _, err = net.ListenUDP("udp", &net.UDPAddr{Port: 7000}) })
			if err != nil {
				b.Fatal(err)
			}
			web.Inside(func() { err = blast.Start() })
			if err != nil {
				b.Fatal(err)
			}
			var before, after unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
			began := time.Now()
			if err := blast.Wait(); err != nil {
				b.Fatal(err)
			}
			took := time.Since(began)
			stop()
			_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
			f := c.States()[0].Status.Files[0]
			cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/packet")
			b.ReportMetric(float64(f.Dropped), "dropped")
			b.ReportMetric(float64(f.Packets), "kept")
			b.ReportMetric(float64(b.N)/took.Seconds(), "packets/s")
		})
	}
}
