// Package flowsql answers questions in SQL about recorded flows.
//
// It is SQLite, with the table flows over whatever hands flows over one by one;
// nothing is written anywhere but what SQLite puts into temporary files to sort.
package flowsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Scan calls each for the flows of a time, from since, included, to until,
// excluded; a zero time is no bound. It may hand over others too. The flow is
// valid until each returns.
type Scan func(ctx context.Context, since, until time.Time, each func(*policies.Flow) error) error

// Options bound what a question may take. A zero field is the bound that the
// command line has.
type Options struct {
	MaxRows int // of the answer, 100,000
	MaxText int // bytes of one text that is made, 16 MiB
}

// Answer is the rows of an answer. Values are nil, int64, float64 or string.
type Answer struct {
	Columns []string
	Rows    [][]any
}

// Ask answers one SELECT about the table flows. Its errors say where in the
// question they are, as far as that can be told.
func Ask(ctx context.Context, scan Scan, question string, o Options) (*Answer, error) {
	if o.MaxRows == 0 {
		o.MaxRows = 100_000
	}
	if o.MaxText == 0 {
		o.MaxText = 16 << 20
	}
	if strings.TrimSpace(question) == "" {
		return nil, errors.New("the question is empty; ask as in: SELECT verdict, sum(flows) FROM flows GROUP BY verdict")
	}
	if err := check(question); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	table := &table{ctx: ctx, scan: scan, columns: flowrow.FlowColumns()}
	d := &sqlite.Driver{}
	if err := d.RegisterModule("recorded", module{table}); err != nil {
		return nil, fmt.Errorf("prepare SQL: %w", err)
	}
	db := sql.OpenDB(connector{d})
	defer db.Close() //nolint:errcheck // it holds nothing
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare SQL: %w", err)
	}
	defer c.Close() //nolint:errcheck // as above
	if err := restrict(ctx, c, o); err != nil {
		return nil, fmt.Errorf("prepare SQL: %w", err)
	}
	a, err := ask(ctx, c, question, o)
	switch {
	case err == nil:
		return a, nil
	case table.failed != nil: // SQLite knows no more than that there was an error
		return nil, table.failed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, explain(question, err)
}

type connector struct{ driver *sqlite.Driver }

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(":memory:") }
func (c connector) Driver() driver.Driver                        { return c.driver }

// restrict makes the table, and then lets nothing through but reading it.
func restrict(ctx context.Context, c *sql.Conn, o Options) error {
	if _, err := c.ExecContext(ctx, "CREATE VIRTUAL TABLE temp.flows USING recorded"); err != nil {
		return err
	}
	if _, err := sqlite.Limit(c, sqlite3.SQLITE_LIMIT_LENGTH, o.MaxText); err != nil {
		return err
	}
	// Without attached databases, no statement has a file to read or write.
	if _, err := sqlite.Limit(c, sqlite3.SQLITE_LIMIT_ATTACHED, 0); err != nil {
		return err
	}
	_, err := c.ExecContext(ctx, "PRAGMA query_only = ON")
	return err
}

// check fails on what is not one statement that reads.
func check(question string) error {
	rest := skipBlank(question)
	word := rest[:len(rest)-len(strings.TrimLeft(rest, letters))]
	if !slices.ContainsFunc([]string{"SELECT", "WITH", "VALUES"}, func(verb string) bool { return strings.EqualFold(verb, word) }) {
		return fmt.Errorf("SQL:%s this does not begin with SELECT, WITH or VALUES, and nothing else reads flows", placeOf(question, len(question)-len(rest)))
	}
	for rest != "" {
		switch c := rest[0]; {
		case c == ';' && skipBlank(rest[1:]) != "":
			return fmt.Errorf("SQL:%s there are several statements; ask one question at a time", placeOf(question, len(question)-len(rest)))
		case c == '\'' || c == '"' || c == '`':
			_, rest, _ = strings.Cut(rest[1:], string(c))
		case c == '[':
			_, rest, _ = strings.Cut(rest[1:], "]")
		default:
			if after := skipBlank(rest); len(after) < len(rest) {
				rest = after
			} else {
				rest = rest[1:]
			}
		}
	}
	return nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// skipBlank returns what follows white space and comments.
func skipBlank(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f")
		switch {
		case strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text[2:], "*/")
		default:
			return text
		}
	}
}

// placeOf returns "2:7:", the line and the column of an offset.
func placeOf(question string, at int) string {
	before := question[:at]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("%d:%d:", line, column)
}

func ask(ctx context.Context, c *sql.Conn, question string, o Options) (*Answer, error) {
	rows, err := c.QueryContext(ctx, question)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	a := &Answer{}
	if a.Columns, err = rows.Columns(); err != nil {
		return nil, err
	}
	for rows.Next() {
		if len(a.Rows) == o.MaxRows {
			return nil, &TooManyRowsError{o.MaxRows}
		}
		row, to := make([]any, len(a.Columns)), make([]any, len(a.Columns))
		for i := range row {
			to[i] = &row[i]
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		for i, v := range row {
			switch v := v.(type) {
			case []byte:
				row[i] = string(v)
			case time.Time:
				row[i] = v.UTC().Format(momentLayout)
			}
		}
		a.Rows = append(a.Rows, row)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return a, nil
}

// TooManyRowsError says that an answer has more rows than it may have.
type TooManyRowsError struct{ Most int }

func (e *TooManyRowsError) Error() string {
	return fmt.Sprintf("the answer has more than %d rows; add a LIMIT, or count rather than list", e.Most)
}

var (
	nearToken   = regexp.MustCompile(`near "((?s).*)": syntax error`)
	noSuch      = regexp.MustCompile(`no such (column|function|table): (\S+)`)
	errorNumber = regexp.MustCompile(` \(\d+\)$`)
)

// explain says an error of SQLite with its place in the question.
func explain(question string, err error) error {
	if tooMany := (*TooManyRowsError)(nil); errors.As(err, &tooMany) {
		return err
	}
	text := strings.TrimPrefix(errorNumber.ReplaceAllString(err.Error(), ""), "SQL logic error: ")
	word, hint := "", ""
	if m := nearToken.FindStringSubmatch(text); m != nil {
		word = m[1]
	} else if m := noSuch.FindStringSubmatch(text); m != nil {
		word = m[2]
		switch m[1] {
		case "column":
			var names []string
			for _, c := range flowrow.FlowColumns() {
				names = append(names, c.Name)
			}
			hint = policies.Near(word, names)
			if hint == "" {
				hint = "; the columns are " + strings.Join(names, ", ")
			}
		case "table":
			hint = "; the only table is flows"
		}
	}
	if i := strings.Index(question, word); word != "" && i >= 0 && strings.Count(question, word) == 1 {
		return fmt.Errorf("SQL:%s %s%s", placeOf(question, i), text, hint)
	}
	return fmt.Errorf("SQL: %s%s", text, hint)
}

// noEnd is nil for the end of what is read.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
