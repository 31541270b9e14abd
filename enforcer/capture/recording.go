//go:build linux

package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

const (
	// stampLayout is how a finished file's name says when its first packet came. The
	// names sort by time.
	stampLayout = "20060102T150405.000000000Z"
	// mostOfBlock is how much a packet takes in a file beside its data and comment, and
	// statistics at the end.
	mostOfBlock = 128
	bufferSize  = 512 << 10
)

// recording is the files of one pod's packets. What is in a file are whole blocks, at
// any moment: the kernel is given nothing else.
type recording struct {
	room      *room
	dir, stem string
	fileBytes int64
	rotate    time.Duration
	files     int
	about     pcapgo.NgInterface
	lostSoFar func() uint64

	file    *os.File
	buffer  *bufio.Writer
	out     *pcapgo.NgWriter
	written int64     // bytes in the file
	begun   time.Time // when its first packet came
	last    time.Time
	packets uint64 // given to the file
	inFile  uint64 // and there
	lost    uint64 // of all files before
	total   int64  // bytes of all files
}

// name is that of the file that is being written.
func (r *recording) name() string { return filepath.Join(r.dir, r.stem+v1alpha1.CaptureFileSuffix) }

// packet adds a packet.
func (r *recording) packet(ci gopacket.CaptureInfo, data []byte, comments []string) error {
	need := len(data) + mostOfBlock
	for _, c := range comments {
		need += len(c)
	}
	if r.file != nil && r.packets > 0 && (r.size()+int64(need)+mostOfBlock > r.fileBytes || ci.Timestamp.Sub(r.begun) >= r.rotate) {
		if err := r.rotateFile(); err != nil {
			return err
		}
	}
	if r.file == nil {
		if err := r.open(ci.Timestamp); err != nil {
			return err
		}
	}
	if r.buffer.Available() < need+mostOfBlock {
		if err := r.flush(); err != nil {
			return err
		}
	}
	ci.InterfaceIndex = 0 // of the file
	r.packets++
	r.last = ci.Timestamp
	return r.out.WritePacketWithOptions(ci, data, pcapgo.NgPacketOptions{Comments: comments})
}

func (r *recording) size() int64 { return r.written + int64(r.buffer.Buffered()) }

// open begins a file. One of an earlier run is put aside.
func (r *recording) open(now time.Time) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("begin a capture: %w", err)
	}
	if info, err := os.Stat(r.name()); err == nil {
		if err := r.putAside(info.ModTime()); err != nil {
			return err
		}
	}
	if err := r.trim(r.files - 1); err != nil {
		return err
	}
	file, err := os.OpenFile(r.name(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("begin a capture: %w", err)
	}
	r.file, r.begun, r.written, r.packets, r.inFile = file, now, 0, 0, 0
	r.buffer = bufio.NewWriterSize(intoFile{r}, bufferSize)
	r.out, err = pcapgo.NewNgWriterInterface(r.buffer, r.about, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "weir-agent"},
	})
	if err != nil {
		return err
	}
	return r.flush()
}

// flush gives the kernel what there is.
func (r *recording) flush() error {
	if r.file == nil {
		return nil
	}
	err := r.buffer.Flush()
	if err == nil {
		r.inFile = r.packets
	}
	return err
}

// intoFile writes whole blocks to the file, or nothing.
type intoFile struct{ r *recording }

func (w intoFile) Write(blocks []byte) (int, error) {
	r := w.r
	if err := r.room.take(int64(len(blocks))); err != nil {
		return 0, err
	}
	n, err := r.file.Write(blocks)
	if err != nil {
		r.room.give(int64(len(blocks)))
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w: %w; delete what is not needed there", errFull, err)
		}
		_, back := r.file.Seek(r.written, io.SeekStart)
		return 0, errors.Join(fmt.Errorf("write packets: %w", err), r.file.Truncate(r.written), back)
	}
	r.written += int64(n)
	r.total += int64(n)
	return n, nil
}

// close ends the file, which keeps its name, with how many packets were lost
// meanwhile. What could not be written is not missed by those who read it.
func (r *recording) close(sync bool) error {
	if r.file == nil {
		return nil
	}
	lost := r.lostSoFar()
	err := r.out.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{
		LastUpdate: r.last, StartTime: r.begun, EndTime: r.last,
		PacketsReceived: r.packets + lost - r.lost, PacketsDropped: lost - r.lost,
	})
	r.lost = lost
	if err == nil {
		err = r.flush()
	}
	if err == nil && sync {
		err = r.file.Sync()
	}
	err = errors.Join(err, r.file.Close())
	r.file = nil
	return err
}

func (r *recording) rotateFile() error {
	begun := r.begun
	if err := r.close(false); err != nil {
		return err
	}
	return r.putAside(begun)
}

// putAside gives the file its final name.
func (r *recording) putAside(begun time.Time) error {
	for {
		name := filepath.Join(r.dir, r.stem+"_"+begun.UTC().Format(stampLayout)+v1alpha1.CaptureFileSuffix)
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			return os.Rename(r.name(), name)
		}
		begun = begun.Add(1) // the clock was set back
	}
}

// trim removes all but the newest finished files.
func (r *recording) trim(keep int) error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		stamp, ours := strings.CutPrefix(strings.TrimSuffix(e.Name(), v1alpha1.CaptureFileSuffix), r.stem+"_")
		if _, err := time.Parse(stampLayout, stamp); ours && err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	for len(names) > max(keep, 0) {
		if err := r.room.remove(filepath.Join(r.dir, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// mend cuts a file back to its last whole block, which it may lack after a crash, and
// removes it where there is none.
func mend(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	whole, err := wholeBlocks(bufio.NewReaderSize(file, 1<<16))
	if err == nil {
		err = file.Truncate(whole)
	}
	if err = errors.Join(err, file.Close()); err == nil && whole == 0 {
		err = os.Remove(name)
	}
	return err
}

// wholeBlocks is how many bytes of a file are whole blocks of pcapng.
func wholeBlocks(in *bufio.Reader) (size int64, err error) {
	for {
		head, err := in.Peek(8)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		length := binary.LittleEndian.Uint32(head[4:])
		if length < 12 || length%4 != 0 || length > bufferSize {
			return size, nil
		}
		if _, err := in.Discard(int(length) - 4); errors.Is(err, io.EOF) {
			return size, nil
		} else if err != nil {
			return size, err
		}
		var tail [4]byte
		if _, err := io.ReadFull(in, tail[:]); err != nil || binary.LittleEndian.Uint32(tail[:]) != length {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return size, err
			}
			return size, nil
		}
		size += int64(length)
	}
}

// abandon closes the file as it is, and returns how many packets are not in it.
func (r *recording) abandon() (missing uint64, err error) {
	if r.file == nil {
		return 0, nil
	}
	err = r.file.Close()
	r.file = nil
	return r.packets - r.inFile, err
}
