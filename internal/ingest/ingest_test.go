package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// testClock stands still. What waits goes on when the test says so, or at once
// where it is eager.
type testClock struct {
	eager bool
	wait  chan time.Time
}

func (c *testClock) Now() time.Time { return time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC) }

func (c *testClock) After(d time.Duration) <-chan time.Time {
	if c.eager && d == time.Second { // the wait for other batches
		now := make(chan time.Time, 1)
		now <- c.Now()
		return now
	}
	return c.wait
}

// faultyStore fails, or waits, where it is told to.
type faultyStore struct {
	*flowstore.Store
	mu      sync.Mutex
	fail    error
	lose    error         // is the answer though the commit was made
	entered chan struct{} // unless nil, takes one for each commit that begins
	let     chan struct{} // unless nil, gives one for each commit that may go on
	commits int
	kept    chan flowstore.Keep
}

func (f *faultyStore) CommitBatches(ctx context.Context, now time.Time, batches []*flowstore.Batch) ([]flowstore.Fate, error) {
	if f.entered != nil {
		f.entered <- struct{}{}
	}
	if f.let != nil {
		select {
		case <-f.let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	f.commits++
	fates, err := f.Store.CommitBatches(ctx, now, batches)
	return fates, errors.Join(err, f.lose)
}

func (f *faultyStore) Retain(ctx context.Context, now time.Time, keep flowstore.Keep) (int, error) {
	if f.kept != nil {
		f.kept <- keep
	}
	return f.Store.Retain(ctx, now, keep)
}

func (f *faultyStore) set(fail, lose error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.lose = fail, lose
}

// running is a server that runs for a test.
type running struct {
	*Server
	store  *faultyStore
	clock  *testClock
	addr   string
	stop   context.CancelFunc
	ended  chan error
	where  string
	client *http.Client
	scheme string
}

func newStore(t *testing.T, where string) *flowstore.Store {
	t.Helper()
	s, err := flowstore.Open(t.Context(), where, flowstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, config Config, change func(*running)) *running {
	t.Helper()
	r := &running{where: t.TempDir(), clock: &testClock{eager: true, wait: make(chan time.Time)}, ended: make(chan error, 1), client: &http.Client{}, scheme: "http"}
	r.store = &faultyStore{Store: newStore(t, r.where)}
	if change != nil {
		change(r)
	}
	r.Server = New(config, r.store, r.clock)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx, listener) }()
	t.Cleanup(func() { stop(); r.client.CloseIdleConnections() })
	return r
}

// end stops the server and returns why it ended.
func (r *running) end() error {
	r.stop()
	return <-r.ended
}

type answer struct {
	status     int
	retryAfter string
	text       string
}

// post sends a body and returns the answer; headers are pairs.
func (r *running) post(t *testing.T, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.scheme+"://"+r.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{response.StatusCode, response.Header.Get("Retry-After"), string(text)}
}

func (r *running) get(t *testing.T, path string) answer {
	t.Helper()
	response, err := r.client.Get(r.scheme + "://" + r.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, text: string(text)}
}

// stored returns the source ports of the flows in a store, which tests use to
// tell them apart, each with how often it is there.
func stored(t *testing.T, where string) map[uint16]int {
	t.Helper()
	found := map[uint16]int{}
	s := newStore(t, where)
	err := s.Scan(t.Context(), &simulator.Filter{}, func(f *policies.Flow) error { found[f.SourcePort]++; return nil })
	for _, problem := range append(s.Verify(t.Context(), time.Now(), nil), err) {
		if problem != nil {
			t.Error(problem)
		}
	}
	return found
}

func once(ports ...uint16) map[uint16]int {
	all := map[uint16]int{}
	for _, p := range ports {
		all[p] = 1
	}
	return all
}

// lines are flows with these source ports.
func lines(ports ...uint16) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-10T08:00:00Z","last":"2026-03-10T08:00:01Z",`+
			`"from":{"namespace":"shop","pod":"web-0"},"to":{"namespace":"shop","pod":"db-0"},"protocol":"TCP","sourcePort":%d,"port":5432,"verdict":"allow"}`+"\n", p)
	}
	return b.String()
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, text)
	w.Close()
	return b.Bytes()
}

func zstdOf(t *testing.T, text string) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll([]byte(text), nil)
}

func TestBodies(t *testing.T) {
	const most = 8 << 20
	r := start(t, Config{MaxBody: most}, nil)
	bomb := gzipped(strings.Repeat("\n", 2*most))
	hubble, err := os.ReadFile(filepath.Join("..", "..", "examples", "shop", "flows.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		path    string
		body    []byte
		headers []string
		status  int
		want    string
	}{
		{"plain", "", []byte(lines(1, 2)), nil, 200, `"stored": {"added":2,"known":0}`},
		{"gzip", "", gzipped(lines(3)), []string{"Content-Encoding", "gzip"}, 200, `"added":1`},
		{"gzip without saying so", "", gzipped(lines(4)), nil, 200, `"added":1`},
		{"zstd", "", zstdOf(t, lines(5)), []string{"Content-Encoding", "zstd"}, 200, `"added":1`},
		{"another format", "", hubble, []string{"Content-Type", "application/x-ndjson"}, 200, `"kind": "FlowIngest"`},
		{"the format said", "?format=weir", []byte(lines(6)), nil, 200, `"added":1`},
		{"some bad", "", []byte(lines(7) + "what is this\n" + lines(8)), nil, 200, `{"records":2,"bad":1,"problems":["body:2: `},
		{"nothing", "", nil, nil, 200, `"added":0`},
		{"all bad", "", []byte("<html>\n"), nil, 400, "no record could be read, as in: body:1: "},
		{"of another format", "?format=hubble", []byte(lines(9)), nil, 400, "this is no hubble record"},
		{"an unknown format", "?format=morse", []byte(lines(9)), nil, 400, `"message":"format \"morse\" is none of `},
		{"an unknown encoding", "", []byte(lines(9)), []string{"Content-Encoding", "br"}, 415, `none of gzip, zstd`},
		{"cut off", "", gzipped(lines(9, 10, 11))[:40], nil, 400, "gzip data ends or is damaged here"},
		{"JSON cut off", "", []byte("[" + strings.ReplaceAll(lines(9), "\n", ",")), nil, 400, "not valid JSON from here on"},
		{"too large", "", bytes.Repeat([]byte("\n"), most+1), nil, 413, "larger than 8388608 bytes"},
		{"too large once uncompressed", "", bomb, nil, 413, "larger than 8388608 bytes"},
		{"a bad name", "", []byte(lines(9)), []string{"Weir-Batch", "node-7"}, 400, "not of the form SENDER/NUMBER"},
		{"no sender", "", []byte(lines(9)), []string{"Weir-Batch", "/7"}, 400, "not of the form SENDER/NUMBER"},
		{"from a page on another site", "", []byte(lines(9)), []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross-origin"},
	} {
		got := r.post(t, "/v1/flows"+c.path, bytes.NewReader(c.body), c.headers...)
		if got.status != c.status || !strings.Contains(got.text, c.want) {
			t.Errorf("%s: %d %s", c.name, got.status, got.text)
		}
	}
	// Of unknown length: nobody can refuse it by its header.
	if got := r.post(t, "/v1/flows", io.MultiReader(strings.NewReader(strings.Repeat("\n", 2*most)))); got.status != 413 {
		t.Errorf("too large and of unknown length: %+v", got)
	}
	found := stored(t, r.where)
	for port, n := range once(1, 2, 3, 4, 5, 6, 7, 8) {
		if found[port] != n {
			t.Errorf("flow %d is there %d times", port, found[port])
		}
	}
	if n := found[9] + found[10]; n > 0 {
		t.Errorf("%d flows of bodies that were refused are there", n)
	}
	if in := r.budget.inUse(); in != 0 {
		t.Errorf("%d bytes are still held", in)
	}
	if got := r.get(t, "/metrics").text; !strings.Contains(got, `weir_ingest_rejected_total{reason="too_large"} 3`) || !strings.Contains(got, "weir_ingest_bad_records_total 1\n") {
		t.Error(got)
	}
}

// sizeOf returns what a batch takes.
func sizeOf(t *testing.T, text string) int64 {
	t.Helper()
	b := flowstore.NewBatch(flowstore.BatchKey{})
	_, err := flowlog.Read(t.Context(), strings.NewReader(text), "body", flowlog.Options{}, func(f policies.Flow) error { b.Add(&f); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.Size()
}

func TestManySendersOneCommit(t *testing.T) {
	// The eighth batch makes it enough; nobody waits for the clock.
	r := start(t, Config{CommitSize: 7*sizeOf(t, lines(1)) + 1}, func(r *running) { r.clock.eager = false })
	var group sync.WaitGroup
	for n := range uint16(8) {
		group.Go(func() {
			if got := r.post(t, "/v1/flows", strings.NewReader(lines(n+1)), "Weir-Batch", fmt.Sprintf("node-%d/1", n)); got.status != 200 {
				t.Error(got)
			}
		})
	}
	group.Wait()
	if r.store.commits != 1 {
		t.Errorf("%d commits", r.store.commits)
	}
	if diff := cmp.Diff(once(1, 2, 3, 4, 5, 6, 7, 8), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
}

func TestAcknowledgedMeansStored(t *testing.T) {
	r := start(t, Config{}, func(r *running) { r.clock.eager = false })
	answered := make(chan answer, 1)
	go func() { answered <- r.post(t, "/v1/flows", strings.NewReader(lines(1))) }()
	r.clock.wait <- r.clock.Now() // taken only by a batch that waits
	if got := <-answered; got.status != 200 {
		t.Error(got)
	}
	if diff := cmp.Diff(once(1), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
}

func TestRetriedBatchesAreStoredOnce(t *testing.T) {
	r := start(t, Config{}, nil)
	send := func(n int, key string) answer {
		return r.post(t, "/v1/flows", strings.NewReader(lines(uint16(n))), "Weir-Batch", key)
	}
	// The store fails: nothing is there, and the batch may come again.
	r.store.set(errors.New("s3: code 500"), nil)
	if got := send(1, "node-7/1"); got.status != 503 || got.retryAfter != "1" || strings.Contains(got.text, "s3") {
		t.Errorf("%+v", got)
	}
	r.store.set(fmt.Errorf("write: %w", flowstore.ErrNoSpace), nil)
	if got := send(1, "node-7/1"); got.status != 507 || got.retryAfter != "1" || !strings.Contains(got.text, "disk of the store is full") {
		t.Errorf("%+v", got)
	}
	// The commit is made, and its answer is lost.
	r.store.set(nil, errors.New("connection reset"))
	if got := send(1, "node-7/1"); got.status != 503 {
		t.Errorf("%+v", got)
	}
	r.store.set(nil, nil)
	for range 2 {
		if got := send(1, "node-7/1"); got.status != 200 || !strings.Contains(got.text, `"stored": {"added":0,"known":1}`) {
			t.Errorf("%+v", got)
		}
	}
	send(2, "node-7/2")
	send(3, "node-8/1")
	if diff := cmp.Diff(once(1, 2, 3), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
	// Another server on the same store knows it too.
	other := start(t, Config{}, func(o *running) { o.store = &faultyStore{Store: newStore(t, r.where)} })
	if got := other.post(t, "/v1/flows", strings.NewReader(lines(2)), "Weir-Batch", "node-7/2"); !strings.Contains(got.text, `"known":1`) {
		t.Errorf("%+v", got)
	}
	// Without a name it is another batch.
	for range 2 {
		send(4, "")
	}
	if got := stored(t, r.where)[4]; got != 2 {
		t.Errorf("%d of 2 without a name", got)
	}
	if _, all := r.Taken(); all.Added != 4 || all.Known != 2 {
		t.Errorf("%+v", all)
	}
}

func TestForgottenBatches(t *testing.T) {
	r := start(t, Config{}, nil)
	for n := 2; n < 400; n += 4 { // so many gaps are not remembered
		r.post(t, "/v1/flows", strings.NewReader(lines(1)), "Weir-Batch", fmt.Sprintf("node-7/%d", n))
	}
	if got := r.post(t, "/v1/flows", strings.NewReader(lines(2)), "Weir-Batch", "node-7/1"); got.status != 409 || !strings.Contains(got.text, "number batches upwards") {
		t.Errorf("%+v", got)
	}
	if n := stored(t, r.where)[2]; n != 0 {
		t.Error("it was added nevertheless")
	}
}

func TestFullQueue(t *testing.T) {
	r := start(t, Config{Queue: 6 << 20, MaxBody: 64 << 20}, func(r *running) {
		r.store.entered, r.store.let = make(chan struct{}), make(chan struct{})
	})
	first := make(chan answer, 1)
	go func() { first <- r.post(t, "/v1/flows", strings.NewReader(lines(1))) }()
	<-r.store.entered // it waits for the store
	// A body that stops half way holds memory while it is read.
	half, more := io.Pipe()
	slow := make(chan answer, 1)
	go func() { slow <- r.post(t, "/v1/flows", half) }()
	io.WriteString(more, lines(2)+strings.Repeat(" ", 3<<20)+"\n")
	for r.budget.inUse() < 5<<20 {
		r.get(t, "/livez") // until the server has read it
	}
	got := r.post(t, "/v1/flows", strings.NewReader(lines(3)))
	if got.status != 429 || got.retryAfter != "1" || !strings.Contains(got.text, "send it again later") {
		t.Errorf("%+v", got)
	}
	if used := r.budget.inUse(); used > 6<<20 {
		t.Errorf("%d bytes are held", used)
	}
	more.Close()
	r.store.let <- struct{}{}
	<-r.store.entered
	r.store.let <- struct{}{}
	for _, a := range []answer{<-first, <-slow} {
		if a.status != 200 {
			t.Errorf("%+v", a)
		}
	}
	if got := r.post(t, "/v1/flows", strings.NewReader(strings.Repeat("\n", 7<<20))); got.status != 413 || !strings.Contains(got.text, "more memory than there is for all (6 MiB)") {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(once(1, 2), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
	if used := r.budget.inUse(); used != 0 {
		t.Errorf("%d bytes are still held", used)
	}
}

func TestSlowSender(t *testing.T) {
	r := start(t, Config{ReadTimeout: 50 * time.Millisecond}, nil)
	connection, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /v1/flows HTTP/1.1\r\nHost: weir\r\nContent-Length: 100\r\n\r\n{")
	text, _ := io.ReadAll(connection)
	if !strings.HasPrefix(string(text), "HTTP/1.1 408 ") || !strings.Contains(string(text), "did not arrive within 50ms") {
		t.Errorf("%s", text)
	}
}

func TestStopCommitsWhatIsAccepted(t *testing.T) {
	r := start(t, Config{}, func(r *running) {
		r.clock.eager = false
		r.store.entered, r.store.let = make(chan struct{}), make(chan struct{})
	})
	if got := r.get(t, "/readyz"); got.status != 200 {
		t.Errorf("%+v", got)
	}
	// One batch is being committed, and another has begun to arrive.
	answers := make(chan answer, 2)
	go func() { answers <- r.post(t, "/v1/flows", strings.NewReader(lines(1))) }()
	r.clock.wait <- r.clock.Now()
	<-r.store.entered
	half, more := io.Pipe()
	go func() { answers <- r.post(t, "/v1/flows", half) }()
	io.WriteString(more, lines(2))
	for r.budget.inUse() < readerSize {
		r.get(t, "/livez") // until the server has begun to read it
	}
	r.stop()
	<-r.draining
	io.WriteString(more, lines(3))
	more.Close()
	r.store.let <- struct{}{}
	<-r.store.entered
	r.store.let <- struct{}{}
	for range 2 {
		if got := <-answers; got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(once(1, 2, 3), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("it still listens")
	}
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	r := start(t, Config{}, func(r *running) {
		r.clock.eager = false
		r.store.entered, r.store.let = make(chan struct{}), make(chan struct{})
	})
	acknowledged := make(chan bool, 1)
	go func() {
		response, err := r.client.Post("http://"+r.addr+"/v1/flows", "", strings.NewReader(lines(1)))
		if err == nil {
			response.Body.Close()
		}
		acknowledged <- err == nil && response.StatusCode == http.StatusOK
	}()
	r.clock.wait <- r.clock.Now()
	<-r.store.entered // and it never answers
	r.stop()
	<-r.draining
	r.clock.wait <- r.clock.Now()
	if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "did not end within 20s") {
		t.Error(err)
	}
	if <-acknowledged {
		t.Error("a batch that is not stored was acknowledged")
	}
	if diff := cmp.Diff(map[uint16]int{}, stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
}

func TestUpkeep(t *testing.T) {
	r := start(t, Config{CompactEvery: time.Hour, Keep: 90 * 24 * time.Hour, KeepBytes: 1e9}, func(r *running) {
		r.store.kept = make(chan flowstore.Keep)
	})
	<-r.store.kept // at once
	r.post(t, "/v1/flows", strings.NewReader(lines(1, 2)))
	r.clock.wait <- r.clock.Now()
	want := flowstore.Keep{Since: r.clock.Now().Add(-90 * 24 * time.Hour), Bytes: 1e9}
	if diff := cmp.Diff(want, <-r.store.kept); diff != "" {
		t.Error(diff)
	}
	r.clock.wait <- r.clock.Now() // taken when the first round is over
	<-r.store.kept
	stats, err := r.store.Stats(t.Context())
	if err != nil || stats.Compacted != 1 {
		t.Errorf("%d hours compacted, %v", stats.Compacted, err)
	}
}

func TestJSONOfAnswers(t *testing.T) {
	r := start(t, Config{}, nil)
	schema := testkit.Schema(t, "flowingest")
	for _, text := range []string{lines(1), lines(2) + "bad\n", ""} {
		got := r.post(t, "/v1/flows", strings.NewReader(text))
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(got.text))
		if err = errors.Join(err, schema.Validate(value)); err != nil {
			t.Error(err)
		}
	}
}
