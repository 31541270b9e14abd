package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/simulator/flowrow"
)

// Stats is what a store holds.
type Stats struct {
	Server         string // its version
	Tables         uint32 // their version
	Cluster        string // of the servers, empty where there is one server
	Records, Flows uint64
	First, Last    time.Time // of those records that say it
	Hours          int       // with any flows
	Imported       int       // files of which there are flows
	Parts          int       // that the servers keep the tables in, of one replica each
	Bytes          uint64    // of those
	FlowBytes      uint64    // of those, of the flows themselves
	// Keep is after what time flows go; 0 where they stay, or where that is said in
	// other words than an age.
	Keep time.Duration
}

// Stats returns what the store holds, from the sums of hours.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	stats := Stats{Cluster: s.cluster}
	if err := s.stats(ctx, &stats); err != nil {
		return Stats{}, fmt.Errorf("read what %s holds: %w", s.name, err)
	}
	return stats, nil
}

// Untimed returns how many records have no time.
func (s *Store) Untimed(ctx context.Context) (uint64, error) {
	var n uint64
	if err := s.conn.QueryRow(ctx, "SELECT sum(`records`) FROM "+s.table("tuples")+" WHERE `hour` = ?", int64(flowrow.NoTime)).Scan(&n); err != nil {
		return 0, fmt.Errorf("read what %s holds: %w", s.name, err)
	}
	return n, nil
}

func (s *Store) stats(ctx context.Context, stats *Stats) error {
	server, err := s.conn.ServerVersion()
	if err != nil {
		return err
	}
	stats.Server = server.Version.String()
	if stats.Tables, _, err = s.version(ctx); err != nil {
		return err
	}
	rows, err := s.conn.Query(s.reading(ctx, false), "SELECT `hour`, sum(`records`), sum(`flows`), minMerge(`first`), maxMerge(`last`) FROM "+
		s.table("tuples")+" GROUP BY `hour` ORDER BY `hour`")
	if err != nil {
		return err
	}
	err = scan(rows, func(fetch func(...any) error) error {
		var hour, first, last int64
		var records, flows uint64
		if err := fetch(&hour, &records, &flows, &first, &last); err != nil {
			return err
		}
		stats.Records, stats.Flows = stats.Records+records, stats.Flows+flows
		if hour < flowrow.NoTime+flowrow.HourMicros {
			return nil
		}
		stats.Hours++
		if at := flowrow.Moment(first); stats.First.IsZero() || at.Before(stats.First) {
			stats.First = at
		}
		if at := flowrow.Moment(last); at.After(stats.Last) {
			stats.Last = at
		}
		return nil
	})
	if err != nil {
		return err
	}
	var imported uint64
	if err := s.conn.QueryRow(ctx, "SELECT toUInt64(uniqExact(`size`, `sha256`)) FROM "+s.table("imports")).Scan(&imported); err != nil {
		return err
	}
	stats.Imported = int(imported)
	if stats.Keep, err = s.kept(ctx); err != nil {
		return err
	}
	return s.sizes(ctx, stats)
}

// sizes fills in what the tables take.
func (s *Store) sizes(ctx context.Context, stats *Stats) error {
	from, suffix := "system.parts", ""
	if s.cluster != "" {
		from, suffix = "cluster("+quotedText(s.cluster)+", system.parts)", "_local"
	}
	rows, err := s.conn.Query(ctx, "SELECT `table`, toUInt64(count()), toUInt64(sum(`bytes_on_disk`)) FROM "+from+
		" WHERE `active` AND `database` = ? AND `table` IN (?, ?) GROUP BY `table`", s.database, "flows"+suffix, "tuples"+suffix)
	if err != nil {
		return err
	}
	return scan(rows, func(fetch func(...any) error) error {
		var table string
		var parts, bytes uint64
		if err := fetch(&table, &parts, &bytes); err != nil {
			return err
		}
		stats.Parts, stats.Bytes = stats.Parts+int(parts), stats.Bytes+bytes
		if table == "flows"+suffix {
			stats.FlowBytes = bytes
		}
		return nil
	})
}

// quotedText is for names that are plain.
func quotedText(name string) string { return "'" + name + "'" }

var interval = regexp.MustCompile(`(?i)\bTTL\b.*(?:INTERVAL |toInterval)(second|minute|hour|day|week)\((\d+)\)`)

// kept returns after what time flows go, as the table has it.
func (s *Store) kept(ctx context.Context) (time.Duration, error) {
	var statement string
	if err := s.conn.QueryRow(ctx, "SHOW CREATE TABLE "+s.local("flows")).Scan(&statement); err != nil {
		return 0, err
	}
	parts := interval.FindStringSubmatch(statement)
	if parts == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(parts[2], 10, 32)
	if err != nil {
		return 0, nil // no age that anything has
	}
	unit := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}
	return time.Duration(n) * unit[strings.ToLower(parts[1])], nil
}

// Verify returns what is wrong with the sums of hours: each must come to what the
// records do. Hours that are about to go are left out.
func (s *Store) Verify(ctx context.Context) ([]error, error) {
	keep, err := s.kept(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.name, err)
	}
	since := int64(-1 << 63)
	if keep > 0 {
		since = flowrow.HourOf(time.Now().Add(-keep).UnixMicro()) + 2*flowrow.HourMicros
	}
	columns := []string{"records", "flows", "bytes", "packets", "reply_bytes", "reply_packets"}
	var sums, records, outer, differ []string
	for _, name := range columns {
		sums = append(sums, "toUInt64(0) AS `of_"+name+"`, sum(`"+name+"`) AS `sum_"+name+"`")
		of := "sum(`" + name + "`)"
		if name == "records" {
			of = "toUInt64(count())"
		}
		records = append(records, of+" AS `of_"+name+"`, toUInt64(0) AS `sum_"+name+"`")
		outer = append(outer, "sum(`of_"+name+"`) AS `all_of_"+name+"`, sum(`sum_"+name+"`) AS `all_sum_"+name+"`")
		differ = append(differ, "`all_of_"+name+"` != `all_sum_"+name+"`")
	}
	rows, err := s.conn.Query(s.reading(ctx, false), "SELECT `hour`, `all_of_records`, `all_sum_records` FROM (SELECT `hour`, "+strings.Join(outer, ", ")+" FROM ("+
		"SELECT `hour`, "+strings.Join(sums, ", ")+" FROM "+s.table("tuples")+" WHERE `hour` >= ? GROUP BY `hour` UNION ALL "+
		"SELECT "+hourOf+" AS `hour`, "+strings.Join(records, ", ")+" FROM "+s.table("flows")+" WHERE `start` >= ? GROUP BY `hour`) GROUP BY `hour`)"+
		" WHERE "+strings.Join(differ, " OR ")+" ORDER BY `hour`", since, since)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", s.name, err)
	}
	var problems []error
	err = scan(rows, func(fetch func(...any) error) error {
		var hour int64
		var records, summed uint64
		if err := fetch(&hour, &records, &summed); err != nil {
			return err
		}
		problems = append(problems, &WrongSumsError{flowrow.Moment(hour), records, summed})
		return nil
	})
	return problems, err
}

// WrongSumsError says that the sums of an hour are not what its records come to.
type WrongSumsError struct {
	Hour            time.Time
	Records, Summed uint64
}

func (e *WrongSumsError) Error() string {
	if e.Records == e.Summed {
		return fmt.Sprintf("hour %s: tuples has other sums than its %d records in flows come to; make them anew as docs/clickhouse.md shows", e.Hour.Format("2006-01-02T15Z"), e.Records)
	}
	return fmt.Sprintf("hour %s: tuples has sums of %d records where flows has %d; make them anew as docs/clickhouse.md shows", e.Hour.Format("2006-01-02T15Z"), e.Summed, e.Records)
}
