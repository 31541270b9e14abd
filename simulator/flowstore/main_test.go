package flowstore

import (
	"os"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
)

var benchTemp string

func TestMain(m *testing.M) {
	if where := os.Getenv(childStore); where != "" {
		child(where)
		return
	}
	var err error
	if benchTemp, err = os.MkdirTemp("", "weir-bench-*"); err != nil {
		panic(err)
	}
	status := testkit.Properties(m, 0)
	os.RemoveAll(benchTemp)
	os.Exit(status)
}
