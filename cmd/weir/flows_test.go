package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListen receives a NetFlow datagram by UDP, is interrupted, and leaves a file.
func TestListen(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	file := filepath.Join(t.TempDir(), "flows.jsonl")
	var out bytes.Buffer
	told, tell := io.Pipe()
	status := make(chan int)
	go func() {
		status <- run(ctx, []string{"weir", "flows", "import", "--listen", "udp://127.0.0.1:0", "--to", file, "-o", "json"}, streams{nil, &out, tell})
	}()

	line, err := bufio.NewReader(told).ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSuffix(line, "; interrupt to end\n"), "listening at udp://")
	if err != nil || !found {
		t.Fatalf("%q, %v", line, err)
	}
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	datagram := make([]byte, 24+48)
	binary.BigEndian.PutUint16(datagram, 5)
	binary.BigEndian.PutUint16(datagram[2:], 1)
	copy(datagram[24:], []byte{10, 0, 1, 5, 10, 0, 2, 7})
	if _, err := conn.Write(datagram); err != nil {
		t.Fatal(err)
	}
	interrupt()

	if got := <-status; got != 0 {
		t.Errorf("status %d", got)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Count(string(text), "\n") > 1 {
		t.Errorf("%q, %v", text, err)
	}
	if !strings.Contains(out.String(), `"kind":"FlowImport"`) && !strings.Contains(out.String(), `"kind": "FlowImport"`) {
		t.Error(out.String())
	}
}
