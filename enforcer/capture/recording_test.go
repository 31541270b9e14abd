//go:build linux

package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRecording(t testing.TB) *recording {
	t.Helper()
	dir := t.TempDir()
	return &recording{
		room: &room{dir: dir, most: 1 << 30, evict: func() bool { return false }}, dir: filepath.Join(dir, "shop", "dns"), stem: "web_veth1",
		fileBytes: 1 << 20, rotate: time.Hour, files: 3, about: pcapgo.NgInterface{Name: "veth1", LinkType: layers.LinkTypeEthernet},
		lostSoFar: func() uint64 { return 0 },
	}
}

// add gives a packet of some bytes, so many seconds after the start.
func (r *recording) add(size, seconds int) error {
	data := make([]byte, size)
	info := gopacket.CaptureInfo{Timestamp: start.Add(time.Duration(seconds) * time.Second), CaptureLength: size, Length: size, InterfaceIndex: 7}
	return r.packet(info, data, []string{"pod shop/web, egress, allow"})
}

// readAll returns how many packets a file has, and what the last one's comment is.
func readAll(t testing.TB, name string) (packets int, comment string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for {
		_, _, options, err := in.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return packets, comment
		}
		if err != nil {
			t.Fatalf("%s after %d packets: %v", name, packets, err)
		}
		packets++
		comment = strings.Join(options.Comments, "|")
	}
}

func namesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFilesRotate(t *testing.T) {
	for _, row := range []struct {
		name      string
		fileBytes int64
		rotate    time.Duration
		files     int
		want      string // packets of each file that is left, by name
	}{
		{"by time", 1 << 20, 10 * time.Second, 3, "web_veth1.pcapng 10, …120010 10, …120020 10"},
		{"one file only", 1 << 20, 10 * time.Second, 1, "web_veth1.pcapng 10"},
		{"by size", 40_000, time.Hour, 2, "web_veth1.pcapng 3, …120000 37"},
		{"never", 1 << 20, time.Hour, 2, "web_veth1.pcapng 40"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRecording(t)
			r.fileBytes, r.rotate, r.files = row.fileBytes, row.rotate, row.files
			for i := range 40 {
				if err := r.add(1000, i); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.close(true); err != nil {
				t.Fatal(err)
			}
			var got []string
			var bytes int64
			for _, name := range namesIn(t, r.dir) {
				packets, comment := readAll(t, filepath.Join(r.dir, name))
				if comment != "pod shop/web, egress, allow" {
					t.Errorf("%s: comment %q", name, comment)
				}
				if info, err := os.Stat(filepath.Join(r.dir, name)); err != nil || info.Size() > row.fileBytes {
					t.Errorf("%s has %d bytes, %v", name, info.Size(), err)
				} else {
					bytes += info.Size()
				}
				if _, stamp, ok := strings.Cut(name, "_20260301T"); ok {
					name = "…" + stamp[:6]
				}
				got = append(got, fmt.Sprint(name, " ", packets))
			}
			if text := strings.Join(got, ", "); text != row.want {
				t.Errorf("got  %s\nwant %s", text, row.want)
			}
			if r.room.used != bytes {
				t.Errorf("%d bytes are taken for %d in files", r.room.used, bytes)
			}
		})
	}
}

func TestEarlierFilesStay(t *testing.T) {
	r := newRecording(t)
	for range 3 {
		if err := errors.Join(r.add(100, 0), r.close(true)); err != nil {
			t.Fatal(err)
		}
	}
	if names := namesIn(t, r.dir); len(names) != 3 || names[0] != "web_veth1.pcapng" {
		t.Errorf("%v", names)
	}
	// Files of another interface, or of a pod with a longer name, are not its own.
	for _, other := range []string{"web_veth1_x_20200101T000000.000000000Z.pcapng", "web-1_veth1_20200101T000000.000000000Z.pcapng", "web_veth1_.pcapng"} {
		if err := os.WriteFile(filepath.Join(r.dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.trim(0); err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, r.dir); len(names) != 4 {
		t.Errorf("%v", names)
	}
}

func TestRoomIsBounded(t *testing.T) {
	r := newRecording(t)
	r.room.most = 100_000
	evicted := 0
	r.room.evict = func() bool {
		if evicted++; evicted > 2 {
			return false
		}
		r.room.give(10_000)
		return true
	}
	var err error
	packets := 0
	for err == nil && packets < 1000 {
		if err = r.add(1000, packets); err == nil {
			packets++
		}
		if err == nil {
			err = r.flush()
		}
	}
	if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "may hold 100000") {
		t.Fatal(err)
	}
	missing, err := r.abandon()
	if err != nil || missing != 1 {
		t.Errorf("%d packets are missing, %v", missing, err)
	}
	if got, _ := readAll(t, r.name()); got != packets-1 || evicted != 3 {
		t.Errorf("%d packets in the file, want %d; evicted %d times", got, packets-1, evicted)
	}
}

func TestDiskStaysFree(t *testing.T) {
	r := newRecording(t)
	r.room.minFree = 1 << 60
	if err := r.add(100, 0); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "must stay so") {
		t.Error(err)
	}
}

// What a crash leaves at any moment is mended to the packets that were whole.
func TestFilesAreMended(t *testing.T) {
	r := newRecording(t)
	var sizes []int64
	for i := range 5 {
		if err := errors.Join(r.add(100+i, i), r.flush()); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, r.written)
	}
	if err := r.close(true); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(r.name())
	if err != nil {
		t.Fatal(err)
	}
	for cut := range int64(len(whole)) {
		if cut%4 != 3 && !slices.Contains(sizes, cut) {
			continue
		}
		for _, rest := range []string{"", "\xff\x00\x00\x00\x00\x00\x00\x00", "garbage that is none"} {
			name := filepath.Join(t.TempDir(), "a.pcapng")
			if err := os.WriteFile(name, append(slices.Clone(whole[:cut]), rest...), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := mend(name); err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, size := range sizes {
				if size <= cut {
					want++
				}
			}
			if want == 0 { // nothing, or the headers alone
				continue
			}
			if got, _ := readAll(t, name); got != want {
				t.Fatalf("cut at %d of %v: %d packets, want %d", cut, sizes, got, want)
			}
		}
	}
	empty := filepath.Join(t.TempDir(), "a.pcapng")
	if err := errors.Join(os.WriteFile(empty, []byte("none"), 0o600), mend(empty)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(empty); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file without a block is still there")
	}
}

func FuzzMend(f *testing.F) {
	f.Add([]byte("\x0a\x0d\x0d\x0a\x1c\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "a.pcapng")
		if err := errors.Join(os.WriteFile(name, text, 0o600), mend(name)); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(string(text), string(left)) {
			t.Fatalf("% x became % x, %v", text, left, err)
		}
	})
}
