package report

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// everyPair yields n × n connections, without those of a workload to itself.
func everyPair(n int) iter.Seq[policies.Connection] {
	var peers []*policies.Peer
	for i := range n {
		p := workload(fmt.Sprintf("namespace-%02d/workload-%03d", i%50, i))
		peers = append(peers, &p)
	}
	grants := []*policies.Grant{{Allow: tcp(80)}, {Allow: tcp(8080).Union(udp(53))}, {Allow: tcp(1, 1024)}, {Allow: netset.TransportPorts()}}
	return func(yield func(policies.Connection) bool) {
		for i, from := range peers {
			for j, to := range peers {
				if i != j && !yield(policies.Connection{From: from, To: to, Grant: grants[(i+j)%len(grants)]}) {
					return
				}
			}
		}
	}
}

type countingWriter int

func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}

func BenchmarkReachability(b *testing.B) {
	for _, format := range []Format{Text, JSON, CSV, SVG} {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				var size countingWriter
				if err := WriteReachability(&size, format, everyPair(1000), nil, Style{}); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/999_000, "ns/row")
		})
	}
}

func BenchmarkAppendDecision(b *testing.B) {
	d := denied()
	var line []byte
	b.ReportAllocs()
	for range b.N {
		line = AppendDecision(line[:0], &d)
	}
}

// A row more must not cost memory: what is kept is kept for each peer and set
// of ports.
func TestListingsAreStreamed(t *testing.T) {
	for _, format := range []Format{Text, JSON, CSV} {
		allocations := func(n int) float64 {
			return testing.AllocsPerRun(1, func() {
				if err := WriteReachability(io.Discard, format, everyPair(n), nil, Style{}); err != nil {
					t.Fatal(err)
				}
			})
		}
		if few, many := allocations(20), allocations(100); many > few*5*2 {
			t.Errorf("%s: %v allocations for 380 rows and %v for 9,900", format, few, many)
		}
	}
}

func TestTextMergesTheFamiliesOfOutside(t *testing.T) {
	web, v4, v6 := workload("shop/web"), addresses("0.0.0.0/0"), addresses("::/0")
	none := netset.Ports{}
	for _, c := range []struct {
		name string
		rows []policies.Connection
		want string
	}{
		{"both families alike", []policies.Connection{connection(web, v4, tcp(443), none), connection(web, v6, tcp(443), none)}, "shop/web → outside  TCP/443\n"},
		{
			"other ports",
			[]policies.Connection{connection(web, v4, tcp(443), none), connection(web, v6, tcp(80), none)},
			"shop/web → 0.0.0.0/0  TCP/443\nshop/web → ::/0       TCP/80\n",
		},
		{"one family", []policies.Connection{connection(web, v4, tcp(443), none)}, "shop/web → 0.0.0.0/0  TCP/443\n"},
		{
			"with exceptions",
			[]policies.Connection{connection(web, addresses("0.0.0.0/0", "10.0.0.0/8"), tcp(443), none), connection(web, v6, tcp(443), none)},
			"shop/web → 0.0.0.0/0 except 10.0.0.0/8  TCP/443\nshop/web → ::/0                         TCP/443\n",
		},
		{"from outside", []policies.Connection{connection(v4, web, tcp(443), none), connection(v6, web, tcp(443), none)}, "outside → shop/web  TCP/443\n"},
		{"unknown only", []policies.Connection{connection(v4, web, none, tcp(443))}, "0.0.0.0/0 → shop/web  ?TCP/443\n"},
	} {
		var text strings.Builder
		if err := WriteReachability(&text, Text, slices.Values(c.rows), nil, Style{}); err != nil {
			t.Fatal(err)
		}
		got, _, _ := strings.Cut(text.String(), "\n\n")
		if got+"\n" != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestJSONOfPorts(t *testing.T) {
	for _, c := range []struct {
		ports netset.Ports
		want  string
	}{
		{netset.Ports{}, `[]`},
		{tcp(80), `[{"protocol":"TCP","ports":[[80,80]]}]`},
		{netset.EveryPort(netset.TCP), `[{"protocol":"TCP","ports":[[1,65535]]}]`},
		{tcp(0), `[]`},
		{tcp(80, 90).Union(tcp(443)).Union(udp(53)), `[{"protocol":"TCP","ports":[[80,90],[443,443]]},{"protocol":"UDP","ports":[[53,53]]}]`},
		{netset.TransportPorts(), `[{"protocol":"TCP","ports":[[1,65535]]},{"protocol":"UDP","ports":[[1,65535]]},{"protocol":"SCTP","ports":[[1,65535]]}]`},
	} {
		if got := string(appendPorts(nil, c.ports)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.ports, got, c.want)
		}
	}
}

// hostile are names that no cluster has and that an input may yet hold.
var hostile = []string{
	"a`b", "a|b", "@everyone", "#1", "<script>alert(1)</script>", "</details>", "<!-- -->", "```", "a\nb", "\x1b[31m", "a,b", `a"b`,
	"[x](https://example.com)", "*a*_b_~c~", "\\", "名前", "\u202egnp", "{{.}}", "]]>", "-->|x|", "end", "", "&amp;",
}

func TestHostileNamesStayNames(t *testing.T) {
	var rows []policies.Connection
	for _, name := range hostile {
		rows = append(rows, connection(
			policies.Peer{Namespace: name, Name: name, Kind: "Deployment"},
			policies.Peer{Namespace: "shop", Name: name + "-b", Kind: "Pod"},
			tcp(80), netset.Ports{},
		))
	}
	write := func(format Format) string {
		var text strings.Builder
		if err := WriteReachability(&text, format, slices.Values(rows), nil, Style{}); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	var answer struct {
		Connections []struct{ From policies.Peer }
	}
	if err := json.Unmarshal([]byte(write(JSON)), &answer); err != nil {
		t.Fatalf("json: %v", err)
	}
	for i, c := range answer.Connections {
		if c.From.Name != hostile[i] {
			t.Errorf("json: %q came back as %q", hostile[i], c.From.Name)
		}
	}
	records, err := csv.NewReader(strings.NewReader(write(CSV))).ReadAll()
	if err != nil {
		t.Fatalf("csv: %v", err)
	}
	for i, r := range records[1:] {
		want := hostile[i] + "/" + hostile[i]
		if hostile[i] == "" {
			want = ""
		}
		if len(r) != 6 || r[0] != want {
			t.Errorf("csv: %q came back as %q", want, r)
		}
	}
	if text := write(Text); strings.ContainsAny(text, "\x1b\u202e") || strings.Count(text, "→") != len(hostile) {
		t.Errorf("text: a name steers the terminal, or breaks its line:\n%q", text)
	}
	for _, format := range []Format{SVG, HTML} {
		if text := write(format); strings.Contains(text, "<script") || strings.Contains(text, "\x1b") {
			t.Errorf("%s: a name is markup", format)
		}
	}
	labels := bufio.NewScanner(strings.NewReader(write(Mermaid)))
	for labels.Scan() {
		if line := labels.Text(); strings.Count(line, `"`)%2 != 0 || strings.ContainsAny(line, "`<@") {
			t.Errorf("mermaid: a name breaks its quotes: %s", line)
		}
	}
}
