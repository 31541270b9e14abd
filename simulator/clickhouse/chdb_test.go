package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	chproto "github.com/ClickHouse/ch-go/proto"
	kinds "github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
	"github.com/ebitengine/purego"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// engine is the engine of today's ClickHouse, without a server around it, and a
// server that speaks just enough of the native protocol for the driver.
type engine struct {
	mutex      sync.Mutex
	connection uintptr
	folder     string
	listener   net.Listener

	query   func(connection uintptr, query *byte, length uintptr, format *byte, formatLength uintptr) uintptr
	buffer  func(result uintptr) unsafe.Pointer
	length  func(result uintptr) uintptr
	problem func(result uintptr) string
	destroy func(result uintptr)
}

// revision is one of the protocol that has settings as texts, and little else.
const revision = 54441

// startEngine starts the engine, or skips the test where there is none.
func startEngine(t testing.TB) *engine {
	t.Helper()
	library := os.Getenv("WEIR_CHDB")
	if library == "" {
		t.Skip("no current ClickHouse to ask: make test-clickhouse gets its engine, where it can be had")
	}
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{folder: t.TempDir()}
	var connect func(count int32, arguments **byte) *uintptr
	var disconnect func(connection *uintptr)
	var handleSignals func(enabled int32)
	for name, to := range map[string]any{
		"chdb_connect": &connect, "chdb_close_conn": &disconnect, "chdb_query_n": &e.query, "chdb_result_buffer": &e.buffer,
		"chdb_result_length": &e.length, "chdb_result_error": &e.problem, "chdb_destroy_query_result": &e.destroy,
		"chdb_set_signal_handlers_enabled": &handleSignals,
	} {
		purego.RegisterLibFunc(to, handle, name)
	}
	handleSignals(0)
	arguments := []*byte{cText("clickhouse"), cText("--path=" + filepath.Join(e.folder, "data"))}
	connection := connect(int32(len(arguments)), &arguments[0])
	if connection == nil || *connection == 0 {
		t.Fatal("the engine does not start")
	}
	runtime.KeepAlive(arguments)
	e.connection = *connection
	if e.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.listener.Close(); err != nil {
			t.Error(err)
		}
		e.mutex.Lock()
		defer e.mutex.Unlock()
		disconnect(connection)
		e.connection = 0
	})
	go e.serve()
	return e
}

func (e *engine) url(database string) string {
	return Scheme + e.listener.Addr().String() + "/" + database + "?compress=none"
}

func cText(text string) *byte { return &append([]byte(text), 0)[0] }

// ask runs a query, and returns its answer in the native format.
func (e *engine) ask(query string) ([]byte, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.connection == 0 {
		return nil, errors.New("the engine has stopped")
	}
	text, format := []byte(query), []byte("Native")
	result := e.query(e.connection, &text[0], uintptr(len(text)), &format[0], uintptr(len(format)))
	if result == 0 {
		return nil, errors.New("no result")
	}
	defer e.destroy(result)
	if problem := e.problem(result); problem != "" {
		return nil, errors.New(problem)
	}
	n := e.length(result)
	if n == 0 {
		return nil, nil
	}
	return bytes.Clone(unsafe.Slice((*byte)(e.buffer(result)), n)), nil
}

func (e *engine) serve() {
	for {
		connection, err := e.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			_ = (&session{engine: e, out: connection, in: chproto.NewReader(connection)}).run() // the driver tells the test
		}()
	}
}

// session is one connection of the driver.
type session struct {
	*engine
	in  *chproto.Reader
	out io.Writer
}

func (s *session) run() error {
	for {
		packet, err := s.in.UVarInt()
		if err != nil {
			return err
		}
		switch packet {
		case proto.ClientHello:
			err = s.hello()
		case proto.ClientPing:
			_, err = s.out.Write([]byte{proto.ServerPong})
		case proto.ClientQuery:
			err = s.answer()
		default:
			err = fmt.Errorf("packet %d is not understood", packet)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) hello() error {
	var hello chproto.ClientHello
	if err := hello.Decode(s.in); err != nil {
		return err
	}
	var b chproto.Buffer
	answer := chproto.ServerHello{Name: "ClickHouse", Major: 26, Minor: 7, Revision: revision, Timezone: "UTC", DisplayName: "engine", Patch: 3}
	answer.EncodeAware(&b, revision)
	_, err := s.out.Write(b.Buf)
	return err
}

// data reads a packet of data.
func (s *session) data() (*proto.Block, error) {
	packet, err := s.in.UVarInt()
	if err == nil && packet != proto.ClientData {
		err = fmt.Errorf("packet %d is no data", packet)
	}
	if err == nil {
		_, err = s.in.Str()
	}
	b := proto.NewBlock()
	if err == nil {
		err = b.Decode(s.in, revision)
	}
	return b, err
}

func (s *session) send(b *proto.Block) error {
	var to chproto.Buffer
	to.PutByte(proto.ServerData)
	to.PutString("")
	if err := b.Encode(&to, revision); err != nil {
		return err
	}
	_, err := s.out.Write(to.Buf)
	return err
}

var insertion = regexp.MustCompile(`(?s)^INSERT INTO (\S+) \((.*)\) FORMAT Native$`)

func (s *session) answer() error {
	var q chproto.Query
	if err := q.DecodeAware(s.in, revision); err != nil {
		return err
	}
	if _, err := s.data(); err != nil {
		return err
	}
	var settings []string
	for _, set := range q.Settings {
		settings = append(settings, set.Key+" = '"+set.Value+"'")
	}
	failed, err := s.query(&q, settings)
	if err != nil {
		return err
	}
	if failed == nil {
		_, err = s.out.Write([]byte{proto.ServerEndOfStream})
		return err
	}
	var b chproto.Buffer
	b.PutByte(proto.ServerException)
	b.PutInt32(1)
	b.PutString("DB::Exception")
	b.PutString(failed.Error())
	b.PutString("")
	b.PutBool(false)
	_, err = s.out.Write(b.Buf)
	return err
}

// query does what is asked. The first error is what the engine says, the second
// ends the session.
func (s *session) query(q *chproto.Query, settings []string) (failed, err error) {
	if parts := insertion.FindStringSubmatch(q.Body); parts != nil {
		return s.insert(parts[1], parts[2], settings)
	}
	text := q.Body
	if strings.HasPrefix(text, "SELECT") {
		text += " SETTINGS " + strings.Join(append(settings, "low_cardinality_allow_in_native_format = 0"), ", ")
	}
	answer, failed := s.ask(text)
	if failed != nil {
		return failed, nil
	}
	if len(answer) > 0 || !strings.HasPrefix(text, "SELECT") {
		return nil, s.forward(answer)
	}
	header, err := s.header("DESCRIBE TABLE ("+q.Body+")", nil)
	if err != nil {
		return nil, err
	}
	return nil, s.send(header)
}

// header returns a block without rows, of the columns that a query describes,
// or of some of them.
func (s *session) header(describe string, columns []string) (*proto.Block, error) {
	answer, err := s.ask(describe)
	if err != nil {
		return nil, err
	}
	types, all := map[string]string{}, []string(nil)
	for in := chproto.NewReader(bytes.NewReader(answer)); ; {
		described := proto.NewBlock()
		if err := described.Decode(in, 0); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		for i := range described.Rows() {
			name, kind := described.Columns[0].Row(i, false).(string), described.Columns[1].Row(i, false).(string)
			if inner, ok := strings.CutPrefix(kind, "LowCardinality("); ok {
				kind = strings.TrimSuffix(inner, ")")
			}
			types[name] = kind
			all = append(all, name)
		}
	}
	if columns == nil {
		columns = all
	}
	header := proto.NewBlock()
	for _, name := range columns {
		if err := header.AddColumn(name, kinds.Type(types[name])); err != nil {
			return nil, err
		}
	}
	return header, nil
}

func (s *session) forward(native []byte) error {
	if len(native) == 0 {
		return nil
	}
	rest := bytes.NewReader(native)
	in := chproto.NewReader(rest)
	for {
		b := proto.NewBlock()
		if err := b.Decode(in, 0); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.send(b); err != nil {
			return err
		}
	}
}

func (s *session) insert(table, columns string, settings []string) (failed, err error) {
	header, failed := s.header("DESCRIBE TABLE "+table, strings.Split(strings.Trim(columns, "`"), "`, `"))
	if failed != nil {
		return failed, nil
	}
	if err := s.send(header); err != nil {
		return nil, err
	}
	for {
		b, err := s.data()
		if err != nil {
			return nil, err
		}
		if b.Rows() == 0 {
			return failed, nil
		}
		var to chproto.Buffer
		if err := b.Encode(&to, 0); err != nil {
			return nil, err
		}
		file := filepath.Join(s.folder, "block")
		if err := os.WriteFile(file, to.Buf, 0o600); err != nil {
			return nil, err
		}
		query := "INSERT INTO " + table + " (" + columns + ")"
		if len(settings) > 0 {
			query += " SETTINGS " + strings.Join(append(settings, "deduplicate_insert_select = 'force_enable'"), ", ")
		}
		if _, problem := s.ask(query + " SELECT * FROM file('" + file + "', Native) ORDER BY ALL"); problem != nil {
			failed = problem
		}
	}
}

// All runs in one test, for a process has one engine.
func TestRealEngine(t *testing.T) {
	e := startEngine(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, url string)
	}{{"golden", golden}, {"resume", resume}, {"half a batch", halfABatch}, {"sent again", sentAgain}, {"expiry", expiry}} {
		t.Run(test.name, func(t *testing.T) {
			database := strings.ReplaceAll(test.name, " ", "_")
			if _, err := e.ask("CREATE DATABASE " + database); err != nil {
				t.Fatal(err)
			}
			test.run(t, e.url(database))
		})
	}
}

// A block that is sent again, for its answer was lost, counts once, in what is
// fed from it too.
func sentAgain(t *testing.T, url string) {
	all := flows(19, 200)[:100]
	for i := range all {
		all[i].First = time.Date(2026, 11, 2, 10, 0, i, 0, time.UTC)
		all[i].Last = all[i].First
	}
	s := open(t, url, Options{})
	w := s.NewWriter()
	var columns []any
	for range 3 {
		w.flows = all
		b := w.block(each(all, func(f policies.Flow) *policies.Flow { return &f }), 99)
		columns = b.columns
		if err := s.insert(t.Context(), "flows", flowNames, "weir-99", columns); err != nil {
			t.Fatal(err)
		}
	}
	equalAll(t, s, &memory{all})
}

// What is older than the store keeps goes, from flows and tuples alike.
func expiry(t *testing.T, url string) {
	all := flows(23, 300)
	recent := all[:100]
	for i := range recent {
		recent[i].First = time.Now().UTC().Truncate(time.Hour).Add(time.Duration(i) * time.Second)
		recent[i].Last = recent[i].First
	}
	old := all[100:]
	for i := range old {
		old[i].First = time.Date(2020, 11, 2, 10, 0, i, 0, time.UTC)
		old[i].Last = old[i].First
	}
	s := open(t, url+"&ttl=30d", Options{})
	told := ""
	open(t, url+"&ttl=60d", Options{Told: func(what string) { told = what }})
	if !strings.Contains(told, "ttl in the address is not that of the tables") {
		t.Errorf("another ttl: told %q", told)
	}
	mustImport(t, s, "a", all, flowrow.Imported{Added: uint64(len(all))})
	for _, table := range []string{"flows", "tuples"} {
		if err := s.conn.Exec(t.Context(), "OPTIMIZE TABLE "+s.local(table)+" FINAL"); err != nil {
			t.Fatal(err)
		}
	}
	equalAll(t, s, &memory{recent})
	equalStats(t, s, recent)
}
