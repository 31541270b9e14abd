package flowlog

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that zstd data may ask for, unless Options say
// otherwise; it is that of `zstd --long`.
const maxWindow = 128 << 20

// foreign are the first bytes of data that is no text, and of which nothing can be
// read: what it is, and how it becomes what can.
var foreign = []struct{ magic, cure string }{
	{"BZh", "bzip2 data; unpack it, as in bzcat FILE | weir flows import -"},
	{"\xfd7zX", "xz data; unpack it, as in xzcat FILE | weir flows import -"},
	{"PK\x03\x04", "a zip archive; unpack it, as in unzip -p FILE | weir flows import -"},
	{"\x04\x22\x4d\x18", "lz4 data; unpack it, as in lz4cat FILE | weir flows import -"},
	{"\xff\xfe", "text in UTF-16; make it UTF-8, as in iconv -f UTF-16 -t UTF-8"},
	{"\xfe\xff", "text in UTF-16; make it UTF-8, as in iconv -f UTF-16 -t UTF-8"},
}

// unpack returns r's bytes as they were before compression, and its name.
func unpack(r io.Reader, window uint64) (plain io.ReadCloser, packing string, err error) {
	head := bufio.NewReader(r)
	magic, err := head.Peek(4)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(head)
		if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
			return nil, "", errors.New("gzip data ends within its header")
		}
		return z, "gzip", err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(head, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return nil, "", err
		}
		return z.IOReadCloser(), "zstd", nil
	}
	for _, f := range foreign {
		if strings.HasPrefix(string(magic), f.magic) {
			return nil, "", errors.New("it is " + f.cure)
		}
	}
	return io.NopCloser(head), "", nil
}

// Unpacked returns what a file holds, as Read would unpack it, so that a file is
// known again after it was packed. Where it is damaged, what stands before is all.
func Unpacked(file io.ReadSeeker, o Options) (io.ReadSeeker, error) {
	plain, packing, err := unpack(file, cmp.Or(o.Window, maxWindow))
	if err == nil {
		defer plain.Close()
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err != nil || packing == "" {
		return file, nil //nolint:nilerr // Read tells
	}
	return &unpacked{file: file, window: cmp.Or(o.Window, maxWindow)}, nil
}

// unpacked is the plain bytes of a packed file.
type unpacked struct {
	file   io.ReadSeeker
	window uint64
	plain  io.ReadCloser // nil at the start
}

func (u *unpacked) Read(b []byte) (int, error) {
	if u.plain == nil {
		plain, _, err := unpack(u.file, u.window)
		if err != nil {
			return 0, io.EOF
		}
		u.plain = plain
	}
	n, err := u.plain.Read(b)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// Seek goes back to the start, and nowhere else.
func (u *unpacked) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekStart {
		return 0, errors.New("packed data is read from its start only")
	}
	if u.plain != nil {
		u.plain.Close()
		u.plain = nil
	}
	return u.file.Seek(0, io.SeekStart)
}
