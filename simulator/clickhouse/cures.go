package clickhouse

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"
)

const makeThem = "weir flows schema prints the statements that make the tables"

// withCure adds to an error what helps, where that is known.
func (s *Store) withCure(err error) error {
	if cure := s.cure(err); cure != "" {
		return fmt.Errorf("%w; %s", err, cure)
	}
	return err
}

func (s *Store) cure(err error) string {
	var said *driver.Exception
	var noTLS tls.RecordHeaderError
	is := func(codes ...int32) bool { return slices.Contains(codes, said.Code) }
	switch {
	case errors.As(err, &noTLS):
		return "this port does not speak TLS, which ?secure=true asks for"
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(fmt.Sprint(err), "[handshake] unexpected packet"):
		return "the port is to be that of the native protocol: 9000, or 9440 with ?secure=true"
	case !errors.As(err, &said):
		return ""
	case is(81):
		return "make it: CREATE DATABASE " + quoted(s.database)
	case is(192, 193, 194, 516):
		return "the user stands in the address, as in " + Scheme + "user@host/database, and the password in " + PasswordVariable
	case is(164, 497):
		return "to read, Weir needs SELECT on " + quoted(s.database) + ".*, to import INSERT too, and CREATE where there are no tables yet; " + makeThem
	case is(115):
		return "what stands behind ? in the address, and neither Weir nor the driver knows, is a setting of the server"
	case is(16, 47, 60):
		return "the tables are not those that Weir makes; " + makeThem
	case is(170):
		return "?cluster= names one of the clusters in the servers' configuration (SELECT DISTINCT cluster FROM system.clusters)"
	}
	return ""
}
