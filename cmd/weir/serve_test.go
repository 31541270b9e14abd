package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// serve starts a server on a store, and returns what ends it and its address.
func serve(t *testing.T, store string, out io.Writer) (server *exec.Cmd, address string) {
	t.Helper()
	server = exec.CommandContext(t.Context(), "weir", "flows", "serve", "--store", store, "--listen", "127.0.0.1:0", "--grpc", "", "--commit-every", "1ms")
	told, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	server.Stdout = out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(told)
	for address == "" && lines.Scan() {
		_, address, _ = strings.Cut(lines.Text(), "msg=listening address=")
		address, _, _ = strings.Cut(address, " ")
	}
	go io.Copy(io.Discard, told)
	return server, "http://" + address + "/v1/flows"
}

// TestServeBucket has one server after another store flows in S3: a batch that is sent
// to both is there once.
func TestServeBucket(t *testing.T) {
	store := "s3://flows/served?region=eu-west-1&endpoint=" + serveBucket(t)
	flows, err := os.ReadFile(filepath.Join(testkit.Root(t), "examples", "shop", "flows.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		server, address := serve(t, store, io.Discard)
		request, err := http.NewRequest(http.MethodPost, address, bytes.NewReader(flows))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Weir-Batch", "shop/1")
		response, err := http.DefaultClient.Do(request)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", response, err)
		}
		response.Body.Close()
		if err := errors.Join(server.Process.Signal(syscall.SIGTERM), server.Wait()); err != nil {
			t.Error(err)
		}
		opened, err := flowstore.Open(t.Context(), store, flowstore.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if stats, err := opened.Stats(t.Context()); err != nil || stats.Records != 5176 {
			t.Errorf("%d records: %v", stats.Records, err)
		}
	}
}

// TestServe sends what is recorded to a server, ends it as Kubernetes does, and
// looks at what it has stored.
func TestServe(t *testing.T) {
	store := t.TempDir()
	var out strings.Builder
	server, address := serve(t, store, &out)
	flows, err := os.Open(filepath.Join(testkit.Root(t), "examples", "shop", "flows.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer flows.Close()
	response, err := http.Post(address, "application/x-ndjson", flows)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(answer), `"kind": "FlowIngest"`) {
		t.Fatalf("%s %v: %s", response.Status, err, answer)
	}
	if err := errors.Join(server.Process.Signal(syscall.SIGTERM), server.Wait()); err != nil {
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

// TestServeKilled kills servers at any moment. Their senders send again what was
// not acknowledged, and now and then what was: all of it is there once.
func TestServeKilled(t *testing.T) {
	store := t.TempDir()
	random := rand.New(rand.NewPCG(3, 4))
	const senders = 3
	var sent [senders]uint64 // are acknowledged
	send := func(address string, sender int, n uint64) bool {
		flow := fmt.Sprintf(`{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-10T08:00:00Z",`+
			`"from":{"namespace":"shop","pod":"web-%d"},"to":{"namespace":"shop","pod":"db-0"},"protocol":"TCP","port":%d}`, sender, n)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(flow))
		if err != nil {
			t.Error(err)
			return false
		}
		request.Header.Set("Weir-Batch", fmt.Sprintf("node-%d/%d", sender, n))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	for range 5 {
		server, address := serve(t, store, io.Discard)
		timer := time.AfterFunc(time.Duration(20+random.IntN(150))*time.Millisecond, func() { server.Process.Kill() })
		var group sync.WaitGroup
		for sender := range senders {
			group.Go(func() {
				for send(address, sender, sent[sender]+1) && (sent[sender] == 0 || send(address, sender, sent[sender])) {
					sent[sender]++
				}
			})
		}
		group.Wait()
		server.Wait() // it was killed
		timer.Stop()
	}
	server, address := serve(t, store, io.Discard)
	for sender := range senders {
		for again := range sent[sender] + 1 {
			if !send(address, sender, again+1) {
				t.Errorf("sender %d cannot send batch %d", sender, again+1)
			}
		}
	}
	if err := errors.Join(server.Process.Signal(syscall.SIGTERM), server.Wait()); err != nil {
		t.Error(err)
	}
	opened, err := flowstore.Open(t.Context(), store, flowstore.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	err = opened.Scan(t.Context(), &simulator.Filter{}, func(f *policies.Flow) error { found[fmt.Sprint(f.From.Pod, " ", f.Port)]++; return nil })
	if err = errors.Join(append(opened.Verify(t.Context(), time.Now(), nil), err)...); err != nil {
		t.Error(err)
	}
	want := map[string]int{}
	for sender, n := range sent {
		for i := range n + 1 {
			want[fmt.Sprint("web-", sender, " ", i+1)] = 1
		}
	}
	if diff := cmp.Diff(want, found); diff != "" || len(want) <= senders {
		t.Errorf("%d batches: %s", len(want), diff)
	}
}
