package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
)

// TestListen receives a NetFlow datagram by UDP, is interrupted, and leaves a file
// or a store.
func TestListen(t *testing.T) {
	for _, to := range []string{"--to", "--store"} {
		t.Run(to, func(t *testing.T) { listenTo(t, to) })
	}
}

func listenTo(t *testing.T, to string) {
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	where := filepath.Join(t.TempDir(), "flows")
	var out bytes.Buffer
	told, tell := io.Pipe()
	status := make(chan int)
	go func() {
		status <- run(ctx, []string{"weir", "flows", "import", "--listen", "udp://127.0.0.1:0", to, where, "-o", "json"}, streams{nil, &out, tell})
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
		t.Errorf("%s: status %d", to, got)
	}
	var answer struct {
		Kind    string
		Reading struct{ Records int }
		Stored  *struct{ Added int }
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.Kind != "FlowImport" {
		t.Errorf("%s: %v in %s", to, err, out.String())
	}
	// Whether the datagram came before the interrupt is not known.
	if to == "--store" {
		if answer.Stored == nil || answer.Stored.Added != answer.Reading.Records {
			t.Errorf("of what was received, not all is stored: %s", out.String())
		}
	} else if text, err := os.ReadFile(where); err != nil || strings.Count(string(text), "\n") != answer.Reading.Records {
		t.Errorf("%q, %v", text, err)
	}
}

// slowStore is a store that fails for a while.
type slowStore struct {
	failing         int
	waiting, stored uint64
}

func (s *slowStore) Add(context.Context, *policies.Flow) error { s.waiting++; return nil }

func (s *slowStore) Commit(context.Context) error {
	if s.failing > 0 {
		s.failing--
		return errors.New("no such store")
	}
	s.stored += s.waiting
	s.waiting = 0
	return nil
}

func TestWhatIsReceivedWaitsForTheStore(t *testing.T) {
	slow, failed := &slowStore{failing: 3}, make(chan error, 3)
	into := steady{writer: slow, failed: func(err error) { failed <- err }}
	if err := into.add(t.Context(), &policies.Flow{}); err != nil {
		t.Fatal(err)
	}
	stop := into.commitEvery(t.Context(), time.Millisecond)
	for range 3 {
		if err := <-failed; err.Error() != "no such store" {
			t.Error(err)
		}
	}
	stop()
	if err := into.commit(t.Context()); err != nil || slow.stored != 1 || into.waiting != 0 {
		t.Errorf("%d stored, %d wait: %v", slow.stored, into.waiting, err)
	}
}

// serveBucket serves S3 on loopback, with a bucket called flows, and returns its
// address. Where it has troubles, which may change, each request may meet one.
func serveBucket(t *testing.T, troubles ...func(http.ResponseWriter) bool) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "")
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("flows"); err != nil {
		t.Fatal(err)
	}
	s3 := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, trouble := range troubles {
			if trouble(w) {
				return
			}
		}
		s3.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestBucketInTrouble has a bucket that refuses many requests, as S3 does under load,
// and then all of them.
func TestBucketInTrouble(t *testing.T) {
	var requests atomic.Int64
	var refuses atomic.Bool
	statuses := []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}
	server := serveBucket(t, func(w http.ResponseWriter) bool {
		n := requests.Add(1)
		if !refuses.Load() && n%16 != 0 {
			return false
		}
		w.WriteHeader(statuses[n%3])
		return true
	})
	weir := func(args ...string) (status int, out, told string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		status = run(t.Context(), append([]string{"weir"}, args...), streams{strings.NewReader(""), &stdout, &stderr})
		return status, stdout.String(), stderr.String()
	}
	flows := filepath.Join(testkit.Root(t), "examples/shop/flows.jsonl.gz")
	address := "s3://flows/shop?endpoint=" + server + "&region=eu-west-1&path-style=true"
	for _, c := range []struct {
		want string
		args []string
	}{
		{"5,176 flows read, 5,176 added.", []string{"import", flows, "--store", address}},
		{"24 hours compacted, with 5,176 records.", []string{"compact", "--store", address}},
		{"All of it is as it was written.", []string{"verify", "--store", address}},
		{"4,213 flows in 5,176 records", []string{"top", "--flows", address}},
	} {
		if status, out, told := weir(append([]string{"flows"}, c.args...)...); status != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s %s", c.args, status, out, told)
		}
	}
	refuses.Store(true)
	if status, _, told := weir("flows", "list", "--flows", address); status != 2 || !strings.Contains(told, "s3://flows/shop") {
		t.Errorf("%d %s", status, told)
	}
}

// TestBucket names S3 by its address, by flags and by the environment, in verbs
// that write, look and decide.
func TestBucket(t *testing.T) {
	server, root := serveBucket(t), testkit.Root(t)
	weir := func(want int, args ...string) (out, told string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), append([]string{"weir"}, args...), streams{strings.NewReader(""), &stdout, &stderr}); got != want {
			t.Errorf("%s: status %d, want %d: %s", args, got, want, stderr.String())
		}
		return stdout.String(), stderr.String()
	}
	flows, deploy := filepath.Join(root, "examples/shop/flows.jsonl.gz"), filepath.Join(root, "examples/shop/deploy")
	address := "s3://flows/shop?endpoint=" + server + "&region=eu-west-1&path-style=true"
	if out, _ := weir(0, "flows", "import", flows, "--store", address); !strings.HasPrefix(out, "5,176 flows read, 5,176 added.") {
		t.Error(out)
	}
	if out, _ := weir(0, "flows", "import", flows, "--store", "s3://flows/shop", "--s3-endpoint", server, "--s3-region", "eu-west-1"); !strings.Contains(out, "5,176 were in the store before") && !strings.Contains(out, "0 added") {
		t.Error(out)
	}
	weir(0, "flows", "compact", "--store", address)
	weir(0, "flows", "verify", "--store", address)
	byAddress, _ := weir(0, "flows", "top", "--flows", address)
	decided, _ := weir(0, "replay", "--flows", address, deploy)
	t.Setenv("AWS_ENDPOINT_URL_S3", server)
	t.Setenv("AWS_DEFAULT_REGION", "eu-west-1")
	byEnvironment, _ := weir(0, "flows", "top", "--flows", "s3://flows/shop")
	if !strings.Contains(byAddress, "4,213 flows in 5,176 records") || byAddress != byEnvironment || !strings.Contains(decided, "4,213 flows") {
		t.Errorf("%s\n%s\n%s", byAddress, byEnvironment, decided)
	}
	for address, want := range map[string]string{
		"s3://flows/none":                  "there is no flow store at s3://flows/none",
		"s3://flows/shop?style=path":       `parameter "style" is none of endpoint, region, path-style`,
		"s3://flows/shop?endpoint=host":    `endpoint "host" is not of the form https://host:port`,
		"s3://flows/shop?path-style=maybe": "path-style=maybe is neither true nor false",
		"s3://none/shop":                   "there is no bucket none; make it first",
	} {
		if _, told := weir(2, "flows", "list", "--flows", address); !strings.Contains(told, want) {
			t.Errorf("%s: %s", address, told)
		}
	}
}
