package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies/invariant"
)

// Pack is a policy pack, as it is listed.
type Pack struct {
	Name, Title string
	Invariants  []invariant.Invariant
}

// WritePacks writes what packs hold.
func WritePacks(w io.Writer, format Format, packs []Pack, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		packsText(out, packs, palette(style))
	case JSON:
		o := newObject(out, KindPackList)
		list(o, "packs", slices.Values(packs), appendPack)
		o.close()
	default:
		return unsupported(KindPackList, format)
	}
	return out.Flush()
}

func packsText(out *bufio.Writer, packs []Pack, paint paint) {
	for k, p := range packs {
		if k > 0 {
			out.WriteByte('\n')
		}
		title := ""
		if p.Title != "" {
			title = ": " + p.Title
		}
		fmt.Fprintf(out, "%s%s\n", paint.bold(clean(p.Name)), clean(title))
		longest := 0
		for i := range p.Invariants {
			longest = max(longest, len(p.Invariants[i].Ref.Name))
		}
		for i := range p.Invariants {
			v := &p.Invariants[i]
			line := fmt.Sprintf("  %-*s  %-5s  %-8s  %s", longest, clean(v.Ref.Name), v.Severity, v.Form, clean(v.Description))
			out.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
}

func appendPack(b []byte, p Pack) []byte {
	b = appendMember(append(b, '{'), "name", p.Name)
	b = appendSome(b, "title", p.Title)
	return append(appendList(appendName(b, "invariants"), p.Invariants, func(b []byte, i invariant.Invariant) []byte {
		b = appendMember(append(b, '{'), "name", i.Ref.Name)
		b = appendSome(b, "description", i.Description)
		b = appendSome(b, "owner", i.Owner)
		b = appendMember(b, "severity", i.Severity.String())
		b = appendMember(b, "form", i.Form.String())
		b = appendList(appendName(b, "links"), i.Links, appendString)
		return append(appendMember(b, "at", i.FormPlace.String()), '}')
	}), '}')
}
