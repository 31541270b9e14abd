package flowlog

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that zstd data may ask for, unless Options say
// otherwise; it is that of `zstd --long`.
const maxWindow = 128 << 20

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
	return io.NopCloser(head), "", nil
}
