package flowstore

import (
	"flag"
	"os"
	"testing"
)

var benchTemp string

func TestMain(m *testing.M) {
	if where := os.Getenv(childStore); where != "" {
		child(where)
		return
	}
	flag.Parse()
	var err error
	if benchTemp, err = os.MkdirTemp("", "weir-bench-*"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(benchTemp)
	os.Exit(status)
}
