package flowlog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree takes any value as encoding/json gives it.
func (s *scan) tree() any {
	switch c := s.peek(); {
	case s.err != nil:
		return nil
	case c == '{':
		object := map[string]any{}
		for in := s.object(); in && s.field(); {
			name := string(s.name)
			object[name] = s.tree()
		}
		return object
	case c == '[':
		array := []any{}
		for in := s.array(); in && s.element(); {
			array = append(array, s.tree())
		}
		return array
	case c == '"':
		return string(s.string())
	case c == 't' || c == 'f':
		return s.bool()
	case s.null():
		return nil
	}
	return json.Number(s.word())
}

func texts() []string {
	return []string{
		`{}`, `[]`, ` { "a" : [ 1 , -0.5e+7, "x" ] , "b" : null } `, `{"a":{"a":{}},"a":[[],[{}]]}`, `"\u00e9\ud83d\ude00\ud83d x"`,
		`true`, `false`, `null`, `nul`, `tru`, `-`, `01`, `1.`, `1e`, `.5`, `+1`, `"`, `"\`, `"\u12`, `"\x"`, "\"\x01\"", "\"\xff long enough for eight\"",
		`{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `[,]`, `[1,]`, `[1 2]`, `{"a":1 "b":2}`, `{1:2}`, `{"a":1}}`, `[1]]`, `[1]x`, "", " ", `[`, `{`, `{"a":1`, "\x00", "[1]\x00",
		`{"\u0061":1}`, `"eight or more characters, and a quote: \" and a slash \/"`, strings.Repeat("[", 20), strings.Repeat(`{"a":`, 3) + "1" + strings.Repeat("}", 3),
	}
}

// FuzzScan holds the scan to encoding/json: it takes the same texts, and makes
// of them the same values.
func FuzzScan(f *testing.F) {
	for _, text := range append(texts(), seeds()...) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		wantErr := d.Decode(&want)
		if !json.Valid(text) {
			want = nil
		} else if wantErr != nil {
			t.Fatal(wantErr)
		}
		values := scan{text: text}
		got := values.tree()
		err := values.end()
		if (err == nil) != json.Valid(text) {
			t.Fatalf("%q: scan says %v, encoding/json %v", text, err, wantErr)
		}
		skipped := scan{text: text}
		raw := skipped.raw()
		if (skipped.end() == nil) != (err == nil) {
			t.Fatalf("%q: skipping says %v, taking %v", text, skipped.err, err)
		}
		if err != nil {
			return
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: (-want +got)\n%s", text, d)
		}
		if !bytes.Equal(raw, bytes.Trim(text, " \t\r\n")) {
			t.Errorf("%q stands as %q", text, raw)
		}
	})
}

func TestScanDepth(t *testing.T) {
	for _, depth := range []int{maxDepth, maxDepth + 1} {
		text := []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
		s := scan{text: text}
		s.raw()
		if got := s.end() == nil; got != json.Valid(text) {
			t.Errorf("%d deep: %v, and for encoding/json %v", depth, got, json.Valid(text))
		}
	}
}

func TestScanNumbers(t *testing.T) {
	rows := []struct {
		text string
		most uint64
		want uint64
		err  string
	}{
		{"0", 0, 0, ""},
		{"65535", 65535, 65535, ""},
		{`"443"`, 65535, 443, ""},
		{"null", 65535, 0, ""},
		{"18446744073709551615", 1<<64 - 1, 1<<64 - 1, ""},
		{"65536", 65535, 0, `port "65536" is no whole number from 0 to 65535`},
		{"18446744073709551616", 1<<64 - 1, 0, `port "18446744073709551616" is no whole number from 0 to 18446744073709551615`},
		{"99999999999999999999999", 1<<64 - 1, 0, `port "99999999999999999999999" is no whole number from 0 to 18446744073709551615`},
		{"-1", 65535, 0, `port "-1" is no whole number from 0 to 65535`},
		{"1.5", 65535, 0, `port "1.5" is no whole number from 0 to 65535`},
		{`""`, 65535, 0, `port "" is no whole number from 0 to 65535`},
		{"{}", 65535, 0, "field port cannot be an object"},
		{"true", 65535, 0, "field port cannot be a bool"},
	}
	for _, row := range rows {
		s := scan{text: []byte(row.text), name: []byte("port")}
		got, text := s.uint(row.most), ""
		if err := s.end(); err != nil {
			text = err.Error()
		}
		if got != row.want || text != row.err {
			t.Errorf("%s: %d, error %q, want %d, error %q", row.text, got, text, row.want, row.err)
		}
	}
}

// A record is gone through without a single allocation.
func TestScanAllocates(t *testing.T) {
	text := []byte(forwarded)
	n := testing.AllocsPerRun(10, func() {
		s := scan{text: text}
		s.skip()
		if s.end() != nil {
			t.Fatal(s.err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkScan(b *testing.B) {
	text := []byte(forwarded)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s := scan{text: text}
		s.skip()
		if s.end() != nil {
			b.Fatal(s.err)
		}
	}
}
