package report

import (
	"bufio"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MarkdownLimit is how many characters a comment on a forge may have.
const MarkdownLimit = 65536

// MarkdownMarker begins the Markdown of a preview, hidden from its readers, so
// that a later run finds the comment to edit.
const MarkdownMarker = "<!-- weir:preview -->"

const (
	longestCode = 120 // characters of a name or place
	longestText = 300 // characters of other words of the input
	mostSaid    = 10  // sentences
	// pictureShare is how much of the comment the picture may take.
	pictureShare = MarkdownLimit / 4
)

// markdownPlain escapes what Markdown, HTML or a forge would take for markup;
// a mention or a reference to an issue is broken by a space without width.
var markdownPlain = strings.NewReplacer(
	"\\", "\\\\", "`", "&#96;", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "|", "\\|", "~", "\\~", "$", "\\$",
	"<", "&lt;", ">", "&gt;", "&", "&amp;", "@", "@\u200b", "#", "#\u200b", "://", ":\u200b//", "www.", "www\u200b.",
)

// codeSpan sets text off as code, in which nothing is markup.
func codeSpan(text string) string {
	text = clip(strings.TrimSpace(clean(text)), longestCode)
	if text != "" && !strings.ContainsAny(text, "`|") {
		return "`" + text + "`"
	}
	var coded strings.Builder
	for _, r := range text {
		if r < utf8.RuneSelf && !isPlain(byte(r)) {
			coded.WriteString("&#" + strconv.Itoa(int(r)) + ";")
		} else {
			coded.WriteRune(r)
		}
	}
	return "<code>" + coded.String() + "</code>"
}

func isPlain(c byte) bool {
	return c == ' ' || c == '/' || c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func markdownPhrase(p phrase) string {
	var text strings.Builder
	for _, f := range p {
		if f.code {
			text.WriteString(codeSpan(f.text))
		} else {
			text.WriteString(markdownPlain.Replace(clip(clean(f.text), longestText)))
		}
	}
	return text.String()
}

// section is a part of the comment that can be shortened: rows after a head.
type section struct {
	title string
	intro string
	head  string // of a table; empty for a list
	rows  []string
	open  int // rows that are not folded
	shown int // rows that fit
	tail  string
}

const wholeElsewhere = "left out here; the json and html reports have them all."

func (s *section) String() string {
	var text strings.Builder
	write := func(parts ...string) {
		for _, p := range parts {
			text.WriteString(p)
		}
	}
	rows := func(rows []string) {
		write(s.head, strings.Join(rows, ""), "\n")
	}
	if s.title != "" {
		write("### ", s.title, "\n\n")
	}
	if s.intro != "" {
		write(s.intro, "\n\n")
	}
	open := min(s.open, s.shown)
	if open > 0 {
		rows(s.rows[:open])
	}
	if s.shown > open {
		write("<details><summary>", grouped(s.shown-open), map[bool]string{true: " more", false: " in all"}[open > 0], "</summary>\n\n")
		rows(s.rows[open:s.shown])
		write("</details>\n\n")
	}
	if left := len(s.rows) - s.shown; left > 0 {
		write("_", grouped(left), " more ", wholeElsewhere, "_\n\n")
	}
	write(s.tail)
	return text.String()
}

// sectionFrame is the most that folding and saying what was left out add to a
// section, beside a second head.
const sectionFrame = 200

// fixed returns how many characters the section takes beside its rows.
func (s *section) fixed() int {
	bare := *s
	bare.shown = 0
	return characters(bare.String()) + characters(s.head) + sectionFrame
}

// show shows rows up to n as far as budget goes, and returns what is left of it.
func (s *section) show(n, budget int) int {
	for s.shown < min(n, len(s.rows)) {
		cost := characters(s.rows[s.shown])
		if cost > budget {
			break
		}
		budget -= cost
		s.shown++
	}
	return budget
}

func characters(text string) int { return utf8.RuneCountInString(text) }

// previewMarkdown fits the report in a comment: first what is shown of each
// section, then the picture, then as many folded rows as there is room for.
func previewMarkdown(p *Preview) string {
	d := documentOf(p)
	picture := &section{}
	sections := []*section{lead(d)}
	var others []*section
	for i := range d.Tables {
		s := tableSection(&d.Tables[i])
		if d.Tables[i].Title == connectionsTitle || d.Tables[i].Title == eachTitle {
			sections = append(sections, s)
		} else {
			others = append(others, s)
		}
	}
	sections = append(sections, exposureSection(d), picture)
	sections = append(sections, others...)
	sections = append(sections, warningSection(d), &section{tail: "<sub>" + markdownPhrase(d.MadeOf) + "</sub>\n"})

	budget := MarkdownLimit
	for _, s := range sections {
		budget -= s.fixed()
	}
	for _, s := range sections {
		budget = s.show(s.open, budget)
	}
	picture.tail = pictureMarkdown(d.Picture, min(budget-sectionFrame, pictureShare))
	budget -= characters(picture.tail)
	for _, s := range sections {
		if s.shown >= s.open {
			budget = s.show(len(s.rows), budget)
		}
	}
	var text strings.Builder
	for _, s := range sections {
		text.WriteString(s.String())
	}
	return text.String()
}

// lead is the verdict, the facts, and what changed in words.
func lead(d *document) *section {
	s := &section{intro: MarkdownMarker + "\n## " + markdownPhrase(d.Headline), open: mostSaid}
	for _, f := range d.Facts {
		s.intro += "\n\n" + markdownPhrase(f)
	}
	for _, said := range foremost(d.Said, mostSaid) {
		s.rows = append(s.rows, "- **"+markdownPhrase(said.Lead)+"** "+markdownPhrase(said.Body)+markdownPhrase(said.AtPhrase())+"\n")
	}
	if more := len(d.Said) - mostSaid; more > 0 {
		s.tail = "and " + grouped(more) + " more in the tables below.\n\n"
	}
	return s
}

func tableSection(t *table) *section {
	s := &section{title: t.Title, intro: markdownPhrase(t.Intro), open: t.Open}
	s.head = "|"
	for _, c := range t.Columns {
		s.head += " " + c + " |"
	}
	s.head += "\n|"
	for i := range t.Columns {
		s.head += map[bool]string{false: " --- |", true: " ---: |"}[slices.Contains(t.Numbers, i)]
	}
	s.head += "\n"
	for _, row := range t.Rows {
		line := "|"
		for _, cell := range row {
			line += " " + markdownPhrase(cell) + " |"
		}
		s.rows = append(s.rows, line+"\n")
	}
	return s
}

func exposureSection(d *document) *section {
	s := &section{title: "Exposure", open: len(d.Exposure)}
	for _, e := range d.Exposure {
		s.rows = append(s.rows, "- "+markdownPhrase(e)+"\n")
	}
	return s
}

func warningSection(d *document) *section {
	s := &section{open: 3}
	if len(d.Warnings) > 0 {
		s.title = "Warnings"
	}
	for _, w := range d.Warnings {
		line := "- "
		if w.Place.File != "" {
			line += codeSpan(w.Place.String()) + " "
		}
		s.rows = append(s.rows, line+markdownPlain.Replace(clip(clean(w.Message), longestText))+"\n")
	}
	return s
}

// pictureMarkdown draws as much as fits in so many characters, or nothing.
func pictureMarkdown(p *picture, room int) string {
	if len(p.edges) == 0 {
		return ""
	}
	for edges := mermaidEdges; edges >= 10; edges /= 2 {
		small := p.atMost(edges)
		var text strings.Builder
		out := bufio.NewWriter(&text)
		out.WriteString("### Picture of the change\n\n```mermaid\n")
		small.mermaid(out)
		out.WriteString("```\n\n")
		for _, line := range slices.Concat(p.legend(), small.notes) {
			out.WriteString("<sub>" + html.EscapeString(line) + "</sub><br>\n")
		}
		out.WriteString("\n")
		if out.Flush() != nil {
			return "" // a Builder takes all it is given
		}
		if characters(text.String()) <= room {
			return text.String()
		}
	}
	return ""
}
