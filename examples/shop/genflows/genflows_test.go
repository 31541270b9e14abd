package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"
)

// The records in the repository are the ones that this program writes.
func TestRecordsAreCurrent(t *testing.T) {
	file, err := os.Open("../flows.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := io.ReadAll(unzip)
	if err != nil {
		t.Fatal(err)
	}

	var made bytes.Buffer
	if err := writeFlows(&made); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(kept, made.Bytes()) {
		return
	}
	is, want := bytes.Split(kept, []byte("\n")), bytes.Split(made.Bytes(), []byte("\n"))
	for i := range min(len(is), len(want)) {
		if !bytes.Equal(is[i], want[i]) {
			t.Errorf("flows.jsonl.gz:%d:\n%s\nwant\n%s", i+1, is[i], want[i])
			break
		}
	}
	t.Errorf("flows.jsonl.gz has %d lines that are not the %d of today; run\n\tgo run ./examples/shop/genflows > examples/shop/flows.jsonl.gz", len(is), len(want))
}
