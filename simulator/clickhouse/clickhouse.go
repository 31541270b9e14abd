// Package clickhouse keeps recorded flows in ClickHouse, on one server or on a
// cluster.
//
// The tables have the columns of the Parquet files, and the same tuples. The
// server groups flows by tuple as they arrive, filters and sorts them; what a
// tuple comes to under some policies, it is not asked. docs/clickhouse.md
// describes the tables for other readers.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// Scheme is what the addresses of these stores begin with.
const Scheme = "clickhouse://"

// PasswordVariable is the environment variable whose value is the password where
// the address has none.
const PasswordVariable = "WEIR_CLICKHOUSE_PASSWORD"

// Options say how a store is to be used. The zero Options are fine.
type Options struct {
	ReadOnly bool // fail where there is no store, instead of making one
	// Batch is how many flows are sent at once; 100,000 where it is zero.
	Batch int
	// Patience is for how long an import goes on trying while servers are away;
	// five minutes where it is zero.
	Patience time.Duration
	// Told is called with what a person who waits should know, such as that a
	// server is away. It may be nil.
	Told func(string)
}

// Store is a store of flows. It may be used by several goroutines, and by
// several processes at a time.
type Store struct {
	schema
	options Options
	name    string // as it may be printed
	conn    driver.Conn
	// dedups is set where the tables know a block that is sent again, and so do
	// those that are fed from them.
	dedups bool
	// heeded are the settings for reading that the server knows.
	heeded driver.Settings
}

// address is where a store is, and how it is made.
type address struct {
	name    string
	options *driver.Options
	schema  schema
}

// Name returns an address without user, password and parameters, to be printed.
func Name(where string) string {
	a, err := parseAddress(where)
	if err != nil {
		return Scheme + "..."
	}
	return a.name
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// parseAddress reads clickhouse://user:password@host:9000,host2:9000/database
// with the parameters cluster and ttl, and those of the driver and settings of
// the server. No error of it has the password.
func parseAddress(text string) (*address, error) {
	base, query, _ := strings.Cut(text, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the parameters after ? are not well escaped")
	}
	s := schema{cluster: params.Get("cluster")}
	if ttl := params.Get("ttl"); ttl != "" {
		if s.keep, err = parseAge(ttl); err != nil {
			return nil, fmt.Errorf("ttl: %w", err)
		}
	}
	params.Del("cluster")
	params.Del("ttl")
	if len(params) > 0 {
		base += "?" + params.Encode()
	}
	o, err := driver.ParseDSN(base)
	if err != nil {
		return nil, err
	}
	if o.Auth.Password == "" {
		o.Auth.Password = os.Getenv(PasswordVariable)
	}
	if o.Auth.Database == "" {
		o.Auth.Database = "default"
	}
	for i, host := range o.Addr {
		if _, _, err := net.SplitHostPort(host); err != nil {
			o.Addr[i] = net.JoinHostPort(strings.Trim(host, "[]"), "9000")
		}
	}
	s.database = o.Auth.Database
	for _, name := range []string{s.database, s.cluster} {
		if name != "" && !plainName.MatchString(name) {
			return nil, fmt.Errorf("name %q has other characters than letters, digits, dots, dashes and underscores", name)
		}
	}
	if o.Compression == nil {
		o.Compression = &driver.Compression{Method: driver.CompressionLZ4}
	}
	return &address{Scheme + strings.Join(o.Addr, ",") + "/" + s.database, o, s}, nil
}

// parseAge reads 30d, 12h and the like.
func parseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q is no age such as 30d or 12h", text)
	}
	return d, nil
}

// Open opens the store at an address; it makes the tables where there are none.
func Open(ctx context.Context, where string, o Options) (*Store, error) {
	s, err := connect(ctx, where, o)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open flow store %s: %w", s.name, s.withCure(err)), s.Close())
	}
	return s, nil
}

func connect(ctx context.Context, where string, o Options) (*Store, error) {
	if o.Batch == 0 {
		o.Batch = 100_000
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Told == nil {
		o.Told = func(string) {}
	}
	a, err := parseAddress(where)
	if err != nil {
		return nil, fmt.Errorf("open flow store: %w", err)
	}
	conn, err := driver.Open(a.options)
	if err != nil {
		return nil, fmt.Errorf("open flow store %s: %w", a.name, err)
	}
	s := &Store{schema: a.schema, options: o, name: a.name, conn: conn}
	if err := s.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open flow store %s: %w", s.name, s.withCure(err)), conn.Close())
	}
	return s, nil
}

// greet asks the server what it is, and what it knows.
func (s *Store) greet(ctx context.Context) error {
	server, err := s.conn.ServerVersion()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.suit(server.Version)
	}
	if err == nil {
		err = s.settle(ctx)
	}
	return err
}

// suit makes the schema that of a server's version.
func (s *schema) suit(v proto.Version) error {
	s.modern = proto.CheckMinVersion(proto.Version{Major: 23, Minor: 3}, v)
	switch {
	case !proto.CheckMinVersion(proto.Version{Major: 18, Minor: 16}, v):
		return fmt.Errorf("ClickHouse %d.%d is too old; 18.16 is the oldest that will do", v.Major, v.Minor)
	case !s.modern && s.keep > 0:
		return fmt.Errorf("ClickHouse %d.%d knows no ttl that suits; leave it out, and let days go by ALTER TABLE ... DROP PARTITION", v.Major, v.Minor)
	}
	return nil
}

// wished are the settings for reading: what has no room in memory goes to disk.
// What is grouped by all that its table is sorted by comes in that order, which
// takes half the time; what has few groups takes longer so. Answers come in blocks of
// so many rows, of which several are held.
var wished = driver.Settings{
	"max_block_size":                     1 << 14,
	inOrder:                              1,
	"max_bytes_before_external_sort":     1 << 30,
	"max_bytes_before_external_group_by": 1 << 30,
}

const inOrder = "optimize_aggregation_in_order"

// settle asks the server which of the wished settings it knows, and whether the
// user may change any.
func (s *Store) settle(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, "SELECT `name`, `value` FROM system.settings WHERE `name` IN ('readonly', '"+
		strings.Join(slices.Sorted(maps.Keys(wished)), "', '")+"')")
	if err != nil {
		return err
	}
	known, fixed := driver.Settings{}, false
	err = scan(rows, func(fetch func(...any) error) error {
		var name, value string
		err := fetch(&name, &value)
		if name == "readonly" {
			fixed = value == "1"
		} else {
			known[name] = wished[name]
		}
		return err
	})
	if !fixed {
		s.heeded = known
	}
	return err
}

// reading returns a context for queries that read much, sorted for those that group
// by what their table is sorted by.
func (s *Store) reading(ctx context.Context, sorted bool) context.Context {
	settings := maps.Clone(s.heeded)
	if !sorted {
		delete(settings, inOrder)
	}
	return driver.Context(ctx, driver.WithSettings(settings))
}

// Close ends all connections.
func (s *Store) Close() error { return s.conn.Close() }

func (s *Store) String() string { return s.name }

// prepare makes the tables, or makes sure that they are of a version that is
// understood.
func (s *Store) prepare(ctx context.Context) error {
	version, modern, err := s.version(ctx)
	if err != nil {
		return err
	}
	if version == 0 && s.options.ReadOnly {
		return fmt.Errorf("there are no flows; bring some with: weir flows import --store %s FILE", s.name)
	}
	if version > schemaVersion {
		return fmt.Errorf("its tables are of version %d, and this program knows those up to %d; use a newer one", version, schemaVersion)
	}
	if version > 0 {
		if err := s.compare(ctx); err != nil {
			return err
		}
	}
	if version == 0 {
		for _, statement := range s.statements() {
			if err := s.conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("make its tables: %w", err)
			}
		}
		modern = s.modern
		err := s.insert(ctx, "weir_schema", []string{"version", "modern"}, "", []any{[]uint32{schemaVersion}, []uint8{flag(modern)}})
		if err != nil {
			return err
		}
	}
	s.dedups = modern && s.modern
	return nil
}

// compare makes sure that the tables which are there are what the address says.
func (s *Store) compare(ctx context.Context) error {
	var engine string
	if err := s.conn.QueryRow(ctx, "SELECT any(`engine`) FROM system.tables WHERE database = ? AND name = 'flows'", s.database).Scan(&engine); err != nil {
		return err
	}
	switch isSpread := engine == "Distributed"; {
	case engine == "":
		return errors.New("there is no table flows; " + makeThem)
	case isSpread && s.cluster == "":
		return errors.New("its tables are spread over a cluster; name that in the address, as in ?cluster=NAME")
	case !isSpread && s.cluster != "":
		return errors.New("its tables are of one server; leave ?cluster=" + s.cluster + " out of the address")
	}
	if s.keep == 0 {
		return nil
	}
	if keep, err := s.kept(ctx); err != nil || keep == s.keep {
		return err
	}
	s.options.Told(s.name + ": ttl in the address is not that of the tables, and changes nothing; ALTER TABLE ... MODIFY TTL does")
	return nil
}

// version returns the version of the tables, 0 where there are none.
func (s *Store) version(ctx context.Context) (version uint32, modern bool, err error) {
	var there uint64
	if err := s.conn.QueryRow(ctx, "SELECT toUInt64(count()) FROM system.tables WHERE database = ? AND name = 'weir_schema'", s.database).Scan(&there); err != nil {
		return 0, false, err
	}
	if there == 0 {
		return 0, false, nil
	}
	var old uint8
	err = s.conn.QueryRow(ctx, "SELECT max(`version`), min(`modern`) FROM "+s.table("weir_schema")).Scan(&version, &old)
	return version, old == 1, err
}

// Schema returns the statements that make the tables on the server at an
// address, and makes nothing. Where a version such as 24.8 is given, no server
// is asked for its own.
func Schema(ctx context.Context, where, version string) ([]string, error) {
	if version != "" {
		a, err := parseAddress(where)
		if err != nil {
			return nil, err
		}
		var v proto.Version
		if _, err := fmt.Sscanf(version, "%d.%d", &v.Major, &v.Minor); err != nil {
			return nil, fmt.Errorf("server version %q is no version such as 24.8", version)
		}
		if err := a.schema.suit(v); err != nil {
			return nil, err
		}
		return a.schema.statements(), nil
	}
	s, err := connect(ctx, where, Options{})
	if err != nil {
		return nil, err
	}
	return s.statements(), s.Close()
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
