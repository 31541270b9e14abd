package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
)

// TestServe sends what is recorded to a server, ends it as Kubernetes does, and
// looks at what it has stored.
func TestServe(t *testing.T) {
	store := t.TempDir()
	server := exec.CommandContext(t.Context(), "weir", "flows", "serve", "--store", store, "--listen", "127.0.0.1:0", "--grpc", "", "--commit-every", "1ms")
	told, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	server.Stdout = &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Process.Kill() //nolint:errcheck // it has ended already
	lines := bufio.NewScanner(told)
	address := ""
	for address == "" && lines.Scan() {
		_, address, _ = strings.Cut(lines.Text(), "msg=listening address=")
		address, _, _ = strings.Cut(address, " ")
	}
	flows, err := os.Open(filepath.Join(testkit.Root(t), "examples", "shop", "flows.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer flows.Close()
	response, err := http.Post("http://"+address+"/v1/flows", "application/x-ndjson", flows)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != 200 || !strings.Contains(string(answer), `"kind": "FlowIngest"`) {
		t.Fatalf("%s %v: %s", response.Status, err, answer)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	var stats, problems strings.Builder
	if status := run(context.Background(), []string{"weir", "flows", "stats", "--store", store}, streams{nil, &stats, &problems}); status != 0 {
		t.Error(problems.String())
	}
	taken, _, _ := strings.Cut(out.String(), " flows taken, ")
	if want := fmt.Sprintf(" holds %s records of ", taken); taken == "" || !strings.Contains(stats.String(), want) {
		t.Errorf("%q is not in %s", want, stats.String())
	}
}
