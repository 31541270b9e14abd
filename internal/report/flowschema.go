package report

import (
	"bufio"
	"io"
	"slices"
)

// FlowSchema is how a database is made ready for flows.
type FlowSchema struct {
	Where      string
	Statements []string // in the order in which they are run
}

// WriteFlowSchema writes the statements; as text, a script of them.
func WriteFlowSchema(w io.Writer, format Format, s *FlowSchema) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		for _, statement := range s.Statements {
			out.WriteString(statement + ";\n\n")
		}
	case JSON:
		o := newObject(out, KindFlowSchema)
		o.text("store", s.Where)
		list(o, "statements", slices.Values(s.Statements), appendString)
		o.close()
	default:
		return unsupported(KindFlowSchema, format)
	}
	return out.Flush()
}
