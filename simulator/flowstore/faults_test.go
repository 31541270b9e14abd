package flowstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

// bucketServer is S3 on loopback. While failing is above zero, each request is
// answered with status instead, and takes one off.
type bucketServer struct {
	*httptest.Server
	failing atomic.Int64
	status  int
	blind   bool // does not look at conditions
}

func serveBucket(t *testing.T) *bucketServer {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("flows"); err != nil {
		t.Fatal(err)
	}
	s3 := gofakes3.New(backend, gofakes3.WithAutoBucket(false)).Server()
	s := &bucketServer{status: http.StatusInternalServerError}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.failing.Add(-1) >= 0 {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(s.status)
			return
		}
		if s.blind {
			r.Header.Del("If-None-Match")
		}
		s3.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *bucketServer) options() Options {
	return Options{S3: S3{Endpoint: s.URL, Region: "eu-west-1", Retries: 3}}
}

func TestBucket(t *testing.T) {
	server := serveBucket(t)
	made := generate(small(4), 4_000)
	s := openStore(t, "s3://flows/cluster/a", server.options())
	add(t, s, made[:2_000]...)
	other := openStore(t, "s3://flows/cluster/a", server.options())
	add(t, other, made[2_000:]...)
	for range 2 {
		verify(t, s)
		if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
			t.Fatal(diff)
		}
		r := recordedOf(t, s, Range{})
		if diff := gocmp.Diff(sidesOf(countRows(made)), tuplesOf(t, r)); diff != "" {
			t.Fatal(diff)
		}
		checkFlowsOf(t, r, made)
		compact(t, other, long)
		if done := compact(t, s, long.Add(time.Hour)); done.Hours > 0 {
			t.Errorf("%d hours were compacted twice", done.Hours)
		}
	}
}

func TestBucketThatFails(t *testing.T) {
	server := serveBucket(t)
	made := generate(small(5), 500)
	s := openStore(t, "s3://flows/cluster", server.options())
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		server.status = status
		server.failing.Store(2)
		add(t, s, made...) // tries again
		server.failing.Store(1 << 30)
		w := s.NewWriter()
		if err := w.Add(t.Context(), &made[0]); err != nil {
			t.Fatal(err)
		}
		err := w.Commit(t.Context())
		if err == nil || !strings.Contains(err.Error(), "s3://flows/cluster") {
			t.Errorf("status %d: %v", status, err)
		}
		server.failing.Store(0)
	}
	if got := len(all(t, s, simulator.Filter{})); got != 3*len(made) {
		t.Errorf("%d flows instead of %d", got, 3*len(made))
	}
}

func TestBucketThatIsNoGood(t *testing.T) {
	server := serveBucket(t)
	for _, c := range []struct{ where, want string }{
		{"s3://nowhere/x", "there is no bucket nowhere"},
		{"s3://", "it names no bucket"},
	} {
		_, err := Open(t.Context(), c.where, server.options())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.where, err)
		}
	}
	o := server.options()
	o.ReadOnly = true
	if _, err := Open(t.Context(), "s3://flows/empty", o); err == nil || !strings.Contains(err.Error(), "there is no flow store") {
		t.Error(err)
	}
	server.blind = true
	if _, err := Open(t.Context(), "s3://flows/x", server.options()); err == nil || !strings.Contains(err.Error(), "If-None-Match") {
		t.Error(err)
	}
}

// fullDisk is a folder on a disk that is full after some files.
type fullDisk struct {
	*folder
	left int
}

func (f *fullDisk) spool() (*os.File, error) {
	if f.left--; f.left < 0 {
		link := filepath.Join(f.root, spoolFolder, "full.tmp") // it is removed afterwards
		if err := os.Symlink("/dev/full", link); err != nil {
			return nil, err
		}
		return os.OpenFile(link, os.O_WRONLY, 0)
	}
	return f.folder.spool()
}

func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no /dev/full")
	}
	made := generate(small(6), 3_000)
	where := t.TempDir()
	s := openStore(t, where, Options{})
	add(t, s, made...)
	disk := &fullDisk{folder: s.blobs.(*folder)}
	for left := range 3 {
		disk.left = left
		full, err := open(t.Context(), disk, s.options)
		if err != nil {
			t.Fatal(err)
		}
		_, err = full.Compact(t.Context(), long, nil)
		if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "free some space") && left != 2 {
			t.Errorf("after %d files: %v", left, err)
		}
		w := full.NewWriter()
		if err := w.Add(t.Context(), &made[0]); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); !errors.Is(err, ErrNoSpace) {
			t.Errorf("after %d files: %v", left, err)
		}
		verify(t, s)
		if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
			t.Fatal(diff)
		}
	}
	compact(t, s, long)
	if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Fatal(diff)
	}
}

func TestDamage(t *testing.T) {
	made := generate(small(7), 2_000)
	for _, c := range []struct {
		name, what string
		damage     func(data []byte) []byte
	}{
		{"cut off", "bytes instead of", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", "0 bytes instead of", func([]byte) []byte { return nil }},
		{"without an end", "it is damaged", func(b []byte) []byte { clear(b[len(b)-8:]); return b }},
		{"one bit", "it was changed", func(b []byte) []byte { b[len(b)/2] ^= 4; return b }},
		{"no Parquet", "it is damaged", func(b []byte) []byte { copy(b[len(b)-4:], "JSON"); return b }},
	} {
		t.Run(c.name, func(t *testing.T) {
			where := t.TempDir()
			s := openStore(t, where, Options{})
			add(t, s, made...)
			compact(t, s, long)
			files, err := filepath.Glob(filepath.Join(where, "v1/flows/*/*/sorted-*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			data, err := os.ReadFile(files[0])
			if err == nil {
				err = os.WriteFile(files[0], c.damage(data), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			errs := s.Verify(t.Context(), time.Now(), nil)
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), files[0]) {
				t.Errorf("%v", errs)
			}
			err = s.Scan(t.Context(), &simulator.Filter{}, func(*policies.Flow) error { return nil })
			if err == nil || !strings.Contains(err.Error(), files[0]) || !strings.Contains(err.Error(), c.what) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	where := t.TempDir()
	s := openStore(t, where, Options{})
	add(t, s, generate(small(7), 10)...)
	files, _ := filepath.Glob(filepath.Join(where, "v1/flows/*/*/*"))
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	errs := s.Verify(t.Context(), time.Now(), nil)
	if len(errs) != len(files) || !strings.Contains(errs[0].Error(), "the file is missing") {
		t.Errorf("%v", errs)
	}
}

func TestWrongSchema(t *testing.T) {
	where := t.TempDir()
	s := openStore(t, where, Options{})
	add(t, s, generate(small(7), 100)...)
	compact(t, s, long)
	st, err := s.refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range st.files {
		if f.Kind != hourly && f.Kind != daily {
			continue
		}
		b, err := s.openFile(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newFlowReader(b, newTable()); err == nil || !strings.Contains(err.Error(), "columns instead of") {
			t.Error(err)
		}
	}
}

// importFlows imports made flows as a file of some text; read fails after some.
func importFlows(s *Store, text string, made []policies.Flow, failAfter int) (Imported, error) {
	return s.Import(context.Background(), "flows.jsonl", "as ever", strings.NewReader(text), func(each func(policies.Flow) error) (bool, error) {
		for i, f := range made {
			if i == failAfter {
				return false, errCut
			}
			if err := each(f); err != nil {
				return false, err
			}
		}
		return false, nil
	})
}

var errCut = errors.New("the data is cut off")

func TestImportAgain(t *testing.T) {
	made := generate(small(8), 6_000)
	s := openStore(t, t.TempDir(), Options{Memory: 1 << 18})
	for _, c := range []struct {
		name      string
		text      string
		flows     int
		failAfter int
		want      Imported
		err       error
	}{
		{"the data is cut off", "abc", 3_000, 1_000, Imported{Added: 1_000}, errCut},
		{"the same file, whole this time", "abc", 3_000, -1, Imported{Added: 2_000, Known: 1_000}, nil},
		{"and again", "abc", 3_000, -1, Imported{Known: 3_000}, nil},
		{"it has grown", "abcdef", 4_000, -1, Imported{Added: 1_000, Known: 3_000}, nil},
		{"grown further, and cut off", "abcdefghi", 6_000, 5_000, Imported{Added: 1_000, Known: 4_000}, errCut},
		{"the rest", "abcdefghi", 6_000, -1, Imported{Added: 1_000, Known: 5_000}, nil},
	} {
		got, err := importFlows(s, c.text, made[:c.flows], c.failAfter)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
		compact(t, s, long)
	}
	if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
}

func TestImportInAnotherWay(t *testing.T) {
	made := generate(small(17), 3)
	s := openStore(t, t.TempDir(), Options{})
	for _, c := range []struct {
		name, how, text string
		flows           int
		partly          bool
		want            Imported
		err             string
	}{
		{"some of it", "one way", "abc", 2, true, Imported{Added: 2}, ""},
		{"otherwise", "another way", "abc", 3, false, Imported{}, "a: 2 of its flows are stored, read one way, which left lines"},
		{"as before", "one way", "abc", 2, true, Imported{Known: 2}, ""},
		{"grown, otherwise", "another way", "abcd", 3, false, Imported{}, "read it as before, or import it into another store"},
		{"grown", "one way", "abcd", 3, true, Imported{Known: 2, Added: 1}, ""},
		{"another file", "one way", "xyz", 3, false, Imported{Added: 3}, ""},
		{"of which nothing is left to read", "another way", "xyz", 3, false, Imported{Known: 3}, ""},
	} {
		got, err := s.Import(t.Context(), "a", c.how, strings.NewReader(c.text), func(each func(policies.Flow) error) (bool, error) {
			for _, f := range made[:c.flows] {
				if err := each(f); err != nil {
					return false, err
				}
			}
			return c.partly, nil
		})
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
}

func TestOneFileImportedTwiceAtATime(t *testing.T) {
	made := generate(small(9), 2_000)
	s := openStore(t, t.TempDir(), Options{})
	_, err := s.Import(t.Context(), "a", "as ever", strings.NewReader("abc"), func(each func(policies.Flow) error) (bool, error) {
		if _, err := importFlows(s, "abc", made, -1); err != nil {
			return false, err
		}
		for _, f := range made {
			if err := each(f); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if !errors.Is(err, errOvertaken) {
		t.Error(err)
	}
	if got := len(all(t, s, simulator.Filter{})); got != len(made) {
		t.Errorf("%d flows instead of %d", got, len(made))
	}
}

func TestInterruptedImportAddsNothingUnsaid(t *testing.T) {
	made := generate(small(10), 6_000)
	s := openStore(t, t.TempDir(), Options{Memory: 1 << 18}) // commits every 2,500 flows or so
	ctx, interrupt := context.WithCancel(t.Context())
	_, err := s.Import(ctx, "a", "as ever", strings.NewReader("abc"), func(each func(policies.Flow) error) (bool, error) {
		for i, f := range made {
			if i == 4_000 {
				interrupt()
				return false, ctx.Err()
			}
			if err := each(f); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got, err := importFlows(s, "abc", made, -1)
	if err != nil || got.Known == 0 || got.Added+got.Known != uint64(len(made)) {
		t.Errorf("%+v %v", got, err)
	}
	if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
}

func TestRetain(t *testing.T) {
	made := generate(small(11), 40_000)
	last := made[len(made)-1].First
	for _, c := range []struct {
		name string
		keep func(bytes int64) Keep
		left func(f policies.Flow) bool
	}{
		{"by age", func(int64) Keep { return Keep{Since: last.Truncate(time.Hour)} }, func(f policies.Flow) bool { return !f.First.Before(last.Truncate(time.Hour)) }},
		{"by size, all", func(int64) Keep { return Keep{Bytes: 1} }, func(policies.Flow) bool { return false }},
		{"by size, none", func(n int64) Keep { return Keep{Bytes: n} }, func(policies.Flow) bool { return true }},
		{"by nothing", func(int64) Keep { return Keep{} }, func(policies.Flow) bool { return true }},
	} {
		for _, compacted := range []bool{false, true} {
			where := t.TempDir()
			s := openStore(t, where, Options{Grace: time.Nanosecond})
			add(t, s, made...)
			if compacted {
				compact(t, s, long)
			}
			st, err := s.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Retain(t.Context(), long, c.keep(st.Bytes)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Retain(t.Context(), long.Add(time.Hour), Keep{}); err != nil {
				t.Fatal(err)
			}
			var want []policies.Flow
			for _, f := range made {
				if c.left(f) {
					want = append(want, f)
				}
			}
			verify(t, s)
			if diff := gocmp.Diff(sidesOf(countRows(want)), tuplesOf(t, recordedOf(t, s, Range{}))); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
			st, err = s.Stats(t.Context())
			if err != nil || st.Records != uint64(len(want)) {
				t.Errorf("%s: %+v %v", c.name, st.Records, err)
			}
			if files, _ := filepath.Glob(filepath.Join(where, "v1/*/*/*.parquet")); len(want) == 0 && len(files) > 0 {
				t.Errorf("%s: %v are left", c.name, files)
			}
		}
	}
}

func TestOddFlows(t *testing.T) {
	labels := map[string]string{}
	var odd []policies.Flow
	for i, f := range generate(small(12), 300) {
		for range 3 {
			labels[strings.Repeat("k", 90)+string(rune('a'+i%26))+time.Duration(i).String()] = strings.Repeat("v", 63)
		}
		f.From.Labels = map[string]string{}
		for k, v := range labels {
			f.From.Labels[k] = v
		}
		switch i % 5 {
		case 0: // a clock that jumps
			f.First, f.Last = f.First.AddDate(73, 0, 0), f.Last.AddDate(73, 0, 0)
		case 1: // late by an hour
			f.First, f.Last = f.First.Add(-time.Hour), f.Last.Add(-time.Hour)
		case 2: // no time at all
			f.First, f.Last = time.Time{}, time.Time{}
		case 3:
			f.Count, f.Bytes = 1<<40, 1<<62
		}
		odd = append(odd, f)
	}
	s := openStore(t, t.TempDir(), Options{})
	add(t, s, odd...)
	for range 2 {
		if diff := gocmp.Diff(ordered(odd), all(t, s, simulator.Filter{}), equal); diff != "" {
			t.Fatal(diff)
		}
		if diff := gocmp.Diff(sidesOf(countRows(odd)), tuplesOf(t, recordedOf(t, s, Range{}))); diff != "" {
			t.Fatal(diff)
		}
		compact(t, s, long)
		verify(t, s)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Compacted == st.Hours {
		t.Errorf("hours of the future have closed: %+v %v", st, err)
	}
}

func TestManifestIsSummedUp(t *testing.T) {
	where := t.TempDir()
	s := openStore(t, where, Options{Grace: time.Nanosecond})
	stale := openStore(t, where, Options{})
	made := generate(small(14), 3*summaryEvery)
	for i := range made {
		add(t, s, made[i])
	}
	compact(t, s, time.Now())
	if entries, _ := filepath.Glob(filepath.Join(where, "v1/manifest/*")); len(entries) > summaryEvery {
		t.Errorf("%d entries are left", len(entries))
	}
	for _, s := range []*Store{stale, openStore(t, where, Options{})} {
		if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
			t.Error(diff)
		}
		add(t, s, made[0])
		made = append(made, made[0])
	}
}

func TestANewerStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "v2", logFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil || err.Error() != dir+" is a flow store of a newer version, v2; this weir knows v1" {
		t.Error(err)
	}
	dir = t.TempDir()
	add(t, openStore(t, dir, Options{}), generate(small(1), 10)...)
	entry := filepath.Join(dir, "v1", fmt.Sprintf(logName, 1))
	text, err := os.ReadFile(entry)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(entry, bytes.Replace(text, []byte(`"raw"`), []byte(`"woven"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), `"woven" is no kind of file that this version of weir knows; a newer one wrote it`) {
		t.Error(err)
	}
}

func TestNoStore(t *testing.T) {
	_, err := Open(t.Context(), filepath.Join(t.TempDir(), "none"), Options{ReadOnly: true})
	if err == nil || !strings.Contains(err.Error(), "there is no flow store at") {
		t.Error(err)
	}
}

func TestFilesThatNoCommitNames(t *testing.T) {
	where := t.TempDir()
	s := openStore(t, where, Options{})
	made := generate(small(15), 20)
	add(t, s, made[:10]...)
	add(t, s, made[10:]...)
	if err := os.Remove(filepath.Join(where, "v1/manifest/0000000000000002.json")); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, where, Options{})
	if errs := s.Verify(t.Context(), time.Now(), nil); len(errs) > 0 {
		t.Errorf("what may be about to be committed is told: %v", errs)
	}
	errs := s.Verify(t.Context(), time.Now().Add(time.Hour), nil)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "no commit names it") || !strings.Contains(errs[0].Error(), "v1/manifest were removed") {
		t.Error(errs)
	}
}

func TestAGrowingFileIsRememberedOnce(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	made := generate(small(16), 6)
	for n := range made {
		if _, err := importFlows(s, strings.Repeat("x", n+1), made[:n+1], -1); err != nil {
			t.Fatal(err)
		}
	}
	// A copy of what it was lately is known.
	if got, err := importFlows(s, "xxx", made[:3], -1); err != nil || got != (Imported{Known: 3}) {
		t.Errorf("%+v %v", got, err)
	}
	if n := len(s.known.Load().sources); n != len(made) {
		t.Errorf("%d sources instead of %d", n, len(made))
	}
	compact(t, s, time.Now().Add(remembered+time.Hour))
	if n := len(openStore(t, t.TempDir(), Options{}).known.Load().sources); n != 0 {
		t.Errorf("a new store knows %d sources", n)
	}
	left := s.known.Load().sources
	if len(left) != 1 {
		t.Errorf("%d sources are left", len(left))
	}
	for key := range left {
		if key.Size != int64(len(made)) {
			t.Errorf("what is left has %d bytes", key.Size)
		}
	}
	if got, err := importFlows(s, "xxxxxx", made, -1); err != nil || got != (Imported{Known: 6}) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestBlocksOfABucketAreBounded(t *testing.T) {
	c := blockCache{most: 2}
	has := func(file string, at int64) bool { _, ok := c.get(blockKey{file, at}); return ok }
	c.put(blockKey{"a", 0}, []byte("a0"))
	c.put(blockKey{"b", 0}, []byte("b0"))
	if !has("a", 0) {
		t.Error("a block is gone before its time")
	}
	c.put(blockKey{"b", 1}, []byte("b1"))
	c.put(blockKey{"b", 1}, []byte("b1"))
	if has("b", 0) || !has("a", 0) || !has("b", 1) || len(c.blocks) != 2 || c.recent.Len() != 2 {
		t.Errorf("it keeps %v", c.blocks)
	}
}
