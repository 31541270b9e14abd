package clickhouse

import (
	"fmt"
	"strings"
	"time"

	"github.com/weir-policy/weir/simulator/flowrow"
)

// schemaVersion is that of the tables that this package makes and reads.
const schemaVersion = 1

// dedupWindow is how many blocks a server remembers, to know one that is sent
// again.
const dedupWindow = 10_000

// schema is what the tables depend on.
type schema struct {
	database, cluster string
	keep              time.Duration
	// modern is set for servers that know the types, codecs and settings of 2023.
	// Others get plain columns, which hold the same.
	modern bool
}

// column is a column of a table, with the types that modern and old servers have
// for it.
type column struct{ name, modern, old string }

func text(name string) column {
	return column{name, "LowCardinality(String) CODEC(ZSTD(1))", "String"}
}

func wideText(name string) column { return column{name, "String CODEC(ZSTD(1))", "String"} }

func number(name, kind, codec string) column {
	return column{name, kind + " CODEC(" + codec + ")", kind}
}

func state(name, function, of string) column {
	kind := "AggregateFunction(" + function + ", " + of + ")"
	return column{name, kind + " CODEC(ZSTD(1))", kind}
}

// flowColumns are those of flows: the ones of the Parquet files, and the batch
// that a row came with.
var flowColumns = func() []column {
	all := []column{number("start", "Int64", "Delta, ZSTD(1)"), number("end", "Int64", "Delta, ZSTD(1)")}
	for _, side := range []string{"src_", "dst_"} {
		for i, name := range flowrow.Columns {
			if i == flowrow.IP {
				all = append(all, wideText(side+name))
			} else {
				all = append(all, text(side+name))
			}
		}
	}
	return append(all,
		text("protocol"), number("src_port", "UInt16", "T64, ZSTD(1)"), number("dst_port", "UInt16", "T64, ZSTD(1)"),
		text("verdict"), number("egress_only", "UInt8", "ZSTD(1)"), text("reporter"), text("format"),
		number("window_us", "Int64", "T64, ZSTD(1)"), number("flows", "UInt64", "T64, ZSTD(1)"),
		number("bytes", "UInt64", "T64, ZSTD(1)"), number("packets", "UInt64", "T64, ZSTD(1)"),
		number("reply_bytes", "UInt64", "T64, ZSTD(1)"), number("reply_packets", "UInt64", "T64, ZSTD(1)"),
		text("policies"), number("tuple", "UInt64", "ZSTD(1)"), number("batch", "UInt64", "ZSTD(1)"),
	)
}()

// names returns the columns' names, quoted, for a statement.
func names(columns []column) string {
	var all []string
	for _, c := range columns {
		all = append(all, "`"+c.name+"`")
	}
	return strings.Join(all, ", ")
}

// summed reports whether the column is a number that adds up.
func (r *rollup) summed() bool { return r.name == "records" || strings.HasPrefix(r.from, "sum(") }

// identityTexts are the texts of an end that all rows of a tuple have in common.
var identityTexts = []int{
	flowrow.Namespace, flowrow.Kind, flowrow.Name, flowrow.Owners, flowrow.Labels, flowrow.LabelsState, flowrow.Network, flowrow.Set,
}

// rollup is a column of tuples, with what it is made of.
type rollup struct {
	column
	from string
	key  bool
}

// hourOf and dayOf are the hour of a row in microseconds, and the partition of a
// time in microseconds. Times that no Date can be are those of its bounds.
const (
	hourOf = "intDiv(`start` + 62135596800000000, 3600000000) * 3600000000 - 62135596800000000" // none is below the year 1
	dayOf  = "toDate(toDateTime(intDiv(least(greatest(%s, toInt64(0)), toInt64(4102444799000000)), 1000000), 'UTC'))"
)

// rollupColumns are those of tuples: what one side reported of a tuple in an
// hour, with one verdict.
var rollupColumns = func() []rollup {
	sum := func(name string) rollup {
		return rollup{number(name, "UInt64", "T64, ZSTD(1)"), "sum(`" + name + "`)", false}
	}
	all := []rollup{
		{number("tuple", "UInt64", "ZSTD(1)"), "`tuple`", true},
		{number("hour", "Int64", "Delta, ZSTD(1)"), hourOf, true},
		{text("reporter"), "`reporter`", true},
		{text("verdict"), "`verdict`", true},
		{number("egress_only", "UInt8", "ZSTD(1)"), "`egress_only`", true},
		sum("flows"), sum("bytes"), sum("packets"), sum("reply_bytes"), sum("reply_packets"),
		{number("records", "UInt64", "T64, ZSTD(1)"), "toUInt64(count())", false},
		{state("first", "min", "Int64"), "minState(`start`)", false},
		{state("last", "max", "Int64"), "maxState(`end`)", false},
		{text("protocol"), "any(`protocol`)", false},
		{number("dst_port", "UInt16", "T64, ZSTD(1)"), "any(`dst_port`)", false},
	}
	for _, side := range []string{"src_", "dst_"} {
		for _, i := range identityTexts {
			name := side + flowrow.Columns[i]
			all = append(all, rollup{text(name), "any(`" + name + "`)", false})
		}
		pod, prefix, ip := side+flowrow.Columns[flowrow.Pod], side+flowrow.Columns[flowrow.PodPrefix], side+flowrow.Columns[flowrow.IP]
		all = append(all,
			rollup{state(pod, "max", "String"), "maxState(toString(`" + pod + "`))", false},
			rollup{state(prefix, "max", "String"), "maxState(toString(`" + prefix + "`))", false},
			rollup{state(ip+"_min", "min", "String"), "minState(`" + ip + "`)", false},
			rollup{state(ip+"_max", "max", "String"), "maxState(`" + ip + "`)", false},
		)
	}
	// Two batches with the same flows make two blocks that differ in this, or the
	// server would take the second for the first sent again.
	return append(all, rollup{number("batch", "UInt64", "ZSTD(1)"), "max(`batch`)", false})
}()

// rollupOf returns the SELECT that makes rows of tuples from flows, and the
// columns for which it does.
func rollupOf(from, where string) (columns, query string) {
	var all []column
	var terms, keys []string
	for _, c := range rollupColumns {
		all = append(all, c.column)
		terms = append(terms, c.from+" AS `"+c.name+"`")
		if c.key {
			keys = append(keys, "`"+c.name+"`")
		}
	}
	return names(all), "SELECT\n    " + strings.Join(terms, ",\n    ") + "\nFROM " + from + where + "\nGROUP BY " + strings.Join(keys, ", ")
}

func quoted(name string) string { return "`" + name + "`" }

// table returns the name of a table as readers know it, local that of the part
// of it that a node of a cluster has.
func (s *schema) table(name string) string { return quoted(s.database) + "." + quoted(name) }

func (s *schema) local(name string) string {
	if s.cluster == "" {
		return s.table(name)
	}
	return s.table(name + "_local")
}

func (s *schema) onCluster() string {
	if s.cluster == "" {
		return ""
	}
	return " ON CLUSTER " + quoted(s.cluster)
}

// engine returns the engine of a table, with arguments after those of its
// replicas. All nodes have a copy of what is global.
func (s *schema) engine(kind, name, arguments string, global bool) string {
	if s.cluster == "" {
		return kind + "(" + arguments + ")"
	}
	path, replica := "{shard}", "{replica}"
	if global {
		path, replica = "all", "{shard}-{replica}"
	}
	if arguments != "" {
		arguments = ", " + arguments
	}
	return fmt.Sprintf("Replicated%s('/clickhouse/tables/%s/%s/%s', '%s'%s)", kind, path, s.database, name, replica, arguments)
}

// settings returns those of a table of which blocks may be sent again.
func (s *schema) settings() string {
	switch {
	case !s.modern:
		return ""
	case s.cluster != "":
		return fmt.Sprintf("\nSETTINGS replicated_deduplication_window = %d, replicated_deduplication_window_seconds = 2592000", dedupWindow)
	}
	return fmt.Sprintf("\nSETTINGS non_replicated_deduplication_window = %d", dedupWindow)
}

// expiry returns when rows go. Those without a time stay.
func (s *schema) expiry(at string) string {
	if s.keep == 0 {
		return ""
	}
	return fmt.Sprintf("\nTTL toDateTime(intDiv(if(%s > 0, %[1]s, 4000000000000000), 1000000), 'UTC') + INTERVAL %d SECOND", quoted(at), int64(s.keep/time.Second))
}

func (s *schema) columns(columns []column, more ...string) string {
	var all []string
	for _, c := range columns {
		kind := c.old
		if s.modern {
			kind = c.modern
		}
		all = append(all, "    `"+c.name+"` "+kind)
	}
	return "(\n" + strings.Join(append(all, more...), ",\n") + "\n)"
}

// statements returns what makes the tables, in order. Done again they change
// nothing.
func (s *schema) statements() []string {
	create := func(name, columns, engine, rest string) string {
		return "CREATE TABLE IF NOT EXISTS " + name + s.onCluster() + "\n" + columns + "\nENGINE = " + engine + rest
	}
	var moments []string
	if s.modern {
		moments = []string{
			"    `start_time` DateTime64(6, 'UTC') ALIAS fromUnixTimestamp64Micro(`start`, 'UTC')",
			"    `end_time` DateTime64(6, 'UTC') ALIAS fromUnixTimestamp64Micro(`end`, 'UTC')",
		}
	}
	var rolled []column
	var merged []string // of the others any value stays
	for _, c := range rollupColumns {
		rolled = append(rolled, c.column)
		if c.summed() || strings.HasPrefix(c.old, "AggregateFunction") {
			merged = append(merged, "`"+c.name+"`")
		}
	}
	_, roll := rollupOf(s.local("flows"), "")
	all := []string{
		create(s.local("flows"), s.columns(flowColumns, moments...), s.engine("MergeTree", "flows", "", false),
			"\nPARTITION BY "+fmt.Sprintf(dayOf, quoted("start"))+
				"\nORDER BY (`dst_namespace`, `dst_kind`, `dst_name`, `dst_port`, `protocol`, `src_namespace`, `src_kind`, `src_name`, `tuple`, `reporter`, `verdict`, `start`)"+
				s.expiry("start")+s.settings()),
		create(s.local("tuples"), s.columns(rolled),
			s.engine("SummingMergeTree", "tuples", "("+strings.Join(merged, ", ")+")", false),
			"\nPARTITION BY "+fmt.Sprintf(dayOf, quoted("hour"))+"\nORDER BY (`tuple`, `hour`, `reporter`, `verdict`, `egress_only`)"+
				s.expiry("hour")+s.settings()),
		"CREATE MATERIALIZED VIEW IF NOT EXISTS " + s.local("tuples_view") + s.onCluster() + "\nTO " + s.local("tuples") + " AS\n" + roll,
	}
	if s.cluster != "" {
		for _, name := range []string{"flows", "tuples"} {
			all = append(all, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s\nENGINE = Distributed(%s, %s, %s, `tuple`)",
				s.table(name), s.onCluster(), s.local(name), quoted(s.cluster), quoted(s.database), quoted(name+"_local")))
		}
	}
	return append(all,
		create(s.table("imports"), "(\n    `at` DateTime,\n    `name` String,\n    `size` UInt64,\n    `sha256` String,\n    `batch` UInt64,\n"+
			"    `position` UInt64,\n    `taken` UInt64,\n    `state` String\n)",
			s.engine("MergeTree", "imports", "", true), "\nORDER BY (`sha256`, `size`, `position`)"),
		create(s.table("weir_schema"), "(\n    `version` UInt32,\n    `modern` UInt8\n)", s.engine("MergeTree", "weir_schema", "", true), "\nORDER BY `version`"),
	)
}
