package report

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

// WriteCaptures writes how captures are on each node.
func WriteCaptures(w io.Writer, format Format, captures []v1alpha1.PacketCapture, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		capturesText(out, captures, palette(style))
	case JSON:
		o := newObject(out, KindCaptureList)
		children(o, "captures", captures, func(o *object, _ int, c v1alpha1.PacketCapture) {
			o.text("namespace", c.Metadata.Namespace)
			o.text("name", c.Metadata.Name)
			if c.Spec.StartTime != "" {
				o.text("start", c.Spec.StartTime)
			}
			if c.Spec.EndTime != "" {
				o.text("end", c.Spec.EndTime)
			}
			children(o, "nodes", c.Status.Files, captureOnNode)
		})
		o.close()
	default:
		return unsupported(KindCaptureList, format)
	}
	return out.Flush()
}

func captureOnNode(o *object, _ int, f v1alpha1.CaptureFiles) {
	o.text("node", f.Node)
	o.text("state", f.State)
	if f.Message != "" {
		o.text("message", f.Message)
	}
	o.text("directory", f.Directory)
	o.value("fileNames", appendList(nil, f.FileNames, appendString))
	o.number("packets", uint64(max(0, f.Packets)))
	o.number("bytes", uint64(max(0, f.Bytes)))
	o.number("dropped", uint64(max(0, f.Dropped)))
}

func capturesText(out *bufio.Writer, captures []v1alpha1.PacketCapture, paint paint) {
	if len(captures) == 0 {
		out.WriteString("There are no captures.\n")
		return
	}
	var rows [][]string
	var notes []string
	for _, c := range captures {
		name := c.Metadata.Namespace + "/" + c.Metadata.Name
		if len(c.Status.Files) == 0 {
			rows = append(rows, []string{name, "", "no agent has told of it yet", "", "", "", "", c.Spec.EndTime})
		}
		for _, f := range c.Status.Files {
			dropped := ""
			if f.Dropped > 0 {
				dropped = strconv.FormatInt(f.Dropped, 10)
			}
			rows = append(rows, []string{
				name, f.Node, f.State, strconv.FormatInt(f.Packets, 10), byteSize(uint64(max(0, f.Bytes))), dropped, strconv.Itoa(len(f.FileNames)), c.Spec.EndTime,
			})
			if f.Message != "" {
				notes = append(notes, fmt.Sprintf("%s on %s: %s", name, f.Node, strings.ReplaceAll(f.Message, "; ", "\n  ")))
			}
		}
	}
	tableText(out, []string{"capture", "node", "state", "packets", "size", "dropped", "files", "end"}, rows, paint, func(_ int, text string) string { return text })
	for _, n := range notes {
		out.WriteString("\n")
		for line := range strings.Lines(n) {
			out.WriteString(clean(strings.TrimSuffix(line, "\n")) + "\n")
		}
	}
}
