package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// FlowStore is what a store of recorded flows holds.
type FlowStore struct {
	Where       string
	Records     uint64
	Flows       uint64 // aggregates counted by what they stand for
	First, Last time.Time
	Hours       int // with any flows
	Compacted   int // of those
	Files       int
	Bytes       uint64
	FlowBytes   uint64     // of those, of the flows themselves
	Work        *StoreWork // what was done, where something was to be
	Verified    bool
	Problems    []string      // what Verified found
	Database    *FlowDatabase // where it is one; Files are parts of tables then
}

// FlowDatabase is what a store has that is a database.
type FlowDatabase struct {
	Server   string        // its version
	Cluster  string        // empty where there is one server
	Tables   uint32        // their version
	Imported int           // files that were
	Keep     time.Duration // after what time flows go; 0 where that is not known
}

// StoreWork is what was done to a store.
type StoreWork struct {
	Hours, Days int    // that were compacted
	Records     uint64 // in them
	Open        int    // hours that are left as they are, for records may still come
	Forgotten   int    // hours that were removed, being too old or too many
	Removed     int    // files that nobody needs any more
}

// WriteFlowStore writes what a store of flows holds, and what was done to it.
func WriteFlowStore(w io.Writer, format Format, s *FlowStore, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		flowStoreText(out, s, palette(style))
	case JSON:
		flowStoreJSON(newObject(out, KindFlowStore), s)
	default:
		return unsupported(KindFlowStore, format)
	}
	return out.Flush()
}

func flowStoreText(out *bufio.Writer, s *FlowStore, paint paint) {
	if w := s.Work; w != nil {
		fmt.Fprintf(out, "%s compacted, with %s", counted(w.Hours, "hour"), counted(w.Records, "record"))
		if w.Open > 0 {
			fmt.Fprintf(out, "; %s still open", counted(w.Open, "hour"))
		}
		out.WriteString(".\n")
		if w.Forgotten > 0 {
			fmt.Fprintf(out, "%s removed.\n", counted(w.Forgotten, "hour"))
		}
		out.WriteByte('\n')
	}
	if s.Records == 0 {
		fmt.Fprintf(out, "%s holds no flows.\n", paint.bold(clean(s.Where)))
	} else {
		fmt.Fprintf(out, "%s holds %s of %s.\n", paint.bold(clean(s.Where)), counted(s.Records, "record"), counted(s.Flows, "flow"))
		kept := "file"
		if fmt.Fprintf(out, "From %s to %s; ", s.First.UTC().Format(time.DateTime), s.Last.UTC().Format(time.DateTime)); s.Database != nil {
			kept = "part"
			fmt.Fprintf(out, "%s.\n", counted(s.Hours, "hour"))
		} else {
			fmt.Fprintf(out, "%s of %s compacted.\n", grouped(s.Compacted), counted(s.Hours, "hour"))
		}
		fmt.Fprintf(out, "%s in %s; %s a record.\n", byteSize(s.Bytes), counted(s.Files, kept), bytesEach(s))
	}
	if d := s.Database; d != nil {
		flowDatabaseText(out, d)
	}
	switch {
	case len(s.Problems) > 0:
		fmt.Fprintf(out, "\n%s:\n", paint.bold(counted(len(s.Problems), "problem")))
		for _, p := range s.Problems {
			out.WriteString("  " + clean(p) + "\n")
		}
	case s.Verified:
		out.WriteString("All of it is as it was written.\n")
	}
}

func flowDatabaseText(out *bufio.Writer, d *FlowDatabase) {
	fmt.Fprintf(out, "ClickHouse %s", clean(d.Server))
	if d.Cluster != "" {
		fmt.Fprintf(out, ", cluster %s", clean(d.Cluster))
	}
	fmt.Fprintf(out, "; tables of version %d; %s imported", d.Tables, counted(d.Imported, "file"))
	if d.Keep > 0 {
		fmt.Fprintf(out, "; flows go after %s", ageText(d.Keep))
	}
	out.WriteString(".\n")
}

// ageText prints days where there are whole ones.
func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return counted(int(d/day), "day")
	}
	return d.String()
}

func bytesEach(s *FlowStore) string {
	return strconv.FormatFloat(float64(s.FlowBytes)/float64(s.Records), 'f', 1, 64) + " bytes"
}

func flowStoreJSON(o *object, s *FlowStore) {
	o.text("store", s.Where)
	o.number("records", s.Records)
	o.number("flows", s.Flows)
	o.value("seen", appendSeen([]byte{}, s.First, s.Last))
	o.number("hours", uint64(s.Hours))
	o.number("compacted", uint64(s.Compacted))
	o.number("files", uint64(s.Files))
	o.number("bytes", s.Bytes)
	o.number("flowBytes", s.FlowBytes)
	if w := s.Work; w != nil {
		b := appendNumber([]byte{'{'}, "hours", uint64(w.Hours))
		b = appendNumber(b, "days", uint64(w.Days))
		b = appendNumber(b, "records", w.Records)
		b = appendNumber(b, "open", uint64(w.Open))
		b = appendNumber(b, "forgotten", uint64(w.Forgotten))
		o.value("work", append(appendNumber(b, "removedFiles", uint64(w.Removed)), '}'))
	}
	if d := s.Database; d != nil {
		b := appendSome(appendMember([]byte{'{'}, "server", d.Server), "cluster", d.Cluster)
		b = appendNumber(b, "tables", uint64(d.Tables))
		b = appendNumber(b, "imported", uint64(d.Imported))
		o.value("database", append(appendNumber(b, "keepSeconds", uint64(d.Keep/time.Second)), '}'))
	}
	if s.Verified {
		list(o, "problems", slices.Values(s.Problems), appendString)
	}
	o.close()
}
