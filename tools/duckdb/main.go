// Command duckdb asks DuckDB, as much of its own command line as measuring and
// testing want: what engines' own commands are called with works here too.
//
//	duckdb [-csv [-noheader]] [-cmd SQL] [-usage] -c SQL
//
// It prints a JSON object for each row, or CSV. Exit status 1: the query failed,
// 2: so it cannot be asked.
package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
)

func main() {
	query := flag.String("c", "", "the `SQL` to ask")
	first := flag.String("cmd", "", "`SQL` to run before it, such as SET threads = 1")
	asCSV := flag.Bool("csv", false, "print CSV instead of JSON lines")
	noHeader := flag.Bool("noheader", false, "print CSV without the names of the columns")
	usage := flag.Bool("usage", false, "print to standard error what the query took, in seconds of the processor, and its threads")
	flag.Parse()
	if *query == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	var to rows = jsonLines{json.NewEncoder(os.Stdout)}
	if *asCSV {
		to = &csvRows{csv.NewWriter(os.Stdout), !*noHeader}
	}
	if err := ask(context.Background(), *first, *query, to, *usage); err != nil {
		fmt.Fprintln(os.Stderr, "duckdb:", err)
		os.Exit(1)
	}
}

// rows prints rows.
type rows interface {
	row(names []string, values []any) error
	end() error
}

func ask(ctx context.Context, first, query string, to rows, usage bool) error {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if first != "" {
		if _, err := c.ExecContext(ctx, first); err != nil {
			return err
		}
	}
	user, system, err := processorTime()
	if err != nil {
		return err
	}
	if err := printAll(ctx, c, query, to); err != nil || !usage {
		return err
	}
	thenUser, thenSystem, err := processorTime()
	if err != nil {
		return err
	}
	var threads int64
	if err := c.QueryRowContext(ctx, "SELECT current_setting('threads')").Scan(&threads); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stderr, "user %.3f s, system %.3f s, threads %d\n", (thenUser - user).Seconds(), (thenSystem - system).Seconds(), threads)
	return err
}

func printAll(ctx context.Context, c *sql.Conn, query string, to rows) error {
	found, err := c.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer found.Close()
	names, err := found.Columns()
	if err != nil {
		return err
	}
	values, places := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		places[i] = &values[i]
	}
	for found.Next() {
		if err := found.Scan(places...); err != nil {
			return err
		}
		if err := to.row(names, values); err != nil {
			return err
		}
	}
	if err := found.Err(); err != nil {
		return err
	}
	return to.end()
}

func processorTime() (user, system time.Duration, err error) {
	var used syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano()), time.Duration(used.Stime.Nano()), err
}

type jsonLines struct{ *json.Encoder }

func (j jsonLines) row(names []string, values []any) error {
	object := make(map[string]any, len(names))
	for i, name := range names {
		object[name] = values[i]
	}
	return j.Encode(object)
}

func (j jsonLines) end() error { return nil }

type csvRows struct {
	*csv.Writer
	header bool
}

func (c *csvRows) row(names []string, values []any) error {
	if c.header {
		c.header = false
		if err := c.Write(names); err != nil {
			return err
		}
	}
	record := make([]string, len(values))
	for i, value := range values {
		if value != nil {
			record[i] = fmt.Sprint(value)
		}
	}
	return c.Write(record)
}

func (c *csvRows) end() error {
	c.Flush()
	return c.Error()
}
