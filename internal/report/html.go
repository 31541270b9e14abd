package report

import (
	"bufio"
	"bytes"
	_ "embed"
	"html/template"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"words":   htmlPhrase,
	"grouped": grouped[int],
	"number":  func(t table, column int) bool { return slices.Contains(t.Numbers, column) },
	"sign":    signClass,
	"sub":     func(a, b int) int { return a - b },
	"min":     func(a, b int) int { return min(a, b) },
}).Parse(pageSource))

// mostHTMLRows is how many rows a table of the page has, for a browser must
// still like it.
const mostHTMLRows = 5000

// pageData is what the page shows.
type pageData struct {
	Title    string
	Preview  *document // nil for a reachability
	Verdict  string    // danger, notice or fine
	Picture  template.HTML
	Warnings []policies.Warning
	MostRows int
}

// longestUnbroken is how many characters of a name or place stay on one line of
// a table; what is longer breaks where a path or a list does.
const longestUnbroken = 24

var breakable = strings.NewReplacer("/", "/<wbr>", ",", ",<wbr>")

func htmlPhrase(p phrase) template.HTML {
	var text strings.Builder
	for _, f := range p {
		escaped := template.HTMLEscapeString(clean(f.text))
		switch {
		case f.code && utf8.RuneCountInString(f.text) > longestUnbroken:
			escaped = `<code class="long">` + breakable.Replace(escaped) + "</code>"
		case f.code:
			escaped = "<code>" + escaped + "</code>"
		}
		text.WriteString(escaped)
	}
	return template.HTML(text.String()) // every fragment is escaped above
}

// signClass names the class of a row that begins with a sign.
func signClass(cell phrase) string {
	for _, c := range []class{adds, removes, unknown} {
		if cell.plain() == c.sign() {
			return string(c)
		}
	}
	return ""
}

func inlineSVG(p *picture) (template.HTML, error) {
	var drawn bytes.Buffer
	out := bufio.NewWriter(&drawn)
	p.svg(out)
	if err := out.Flush(); err != nil {
		return "", err
	}
	return template.HTML(drawn.String()), nil // the drawing escapes its texts
}

func previewHTML(w io.Writer, p *Preview) error {
	d := documentOf(p)
	drawn, err := inlineSVG(d.Picture.atMost(svgEdges))
	if err != nil {
		return err
	}
	if len(d.Picture.edges) == 0 {
		drawn = ""
	}
	verdict := "fine"
	for _, s := range d.Said {
		if s.Level == "error" || len(p.Failed) > 0 {
			verdict = "danger"
			break
		}
		verdict = "notice"
	}
	return page.Execute(w, pageData{
		Title: "Preview: " + d.Headline.plain(), Preview: d, Verdict: verdict, Picture: drawn,
		Warnings: d.Warnings, MostRows: mostHTMLRows,
	})
}

func reachabilityHTML(w io.Writer, p *picture, warnings []policies.Warning) error {
	drawn, err := inlineSVG(p)
	if err != nil {
		return err
	}
	return page.Execute(w, pageData{Title: "Who reaches whom", Picture: drawn, Warnings: warnings})
}
