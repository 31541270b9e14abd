// Command genflows writes the recorded flows of the shop: one day of them, in
// the JSON lines that Hubble exports, gzipped, to standard output. The same
// lines come out on every run.
//
//	go run ./examples/shop/genflows > examples/shop/flows.jsonl.gz
package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "genflows:", err)
		os.Exit(2)
	}
}

func run(w io.Writer) error {
	zip, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeFlows(zip); err != nil {
		return err
	}
	return zip.Close()
}
