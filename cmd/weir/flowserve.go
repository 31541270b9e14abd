package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"github.com/weir-policy/weir/internal/ingest"
	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/simulator/clickhouse"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// flowServer is the flags of a server that takes flows.
type flowServer struct {
	http, grpc               string
	queue, maxBody           string
	compact, keep, keepSize  string
	tlsCert, tlsKey, ca      string
	insecure                 bool
	commitEvery, readTimeout time.Duration
	tokens                   string
}

func newFlowsServe(s streams) *cobra.Command {
	out, store, server := output{streams: s, kind: report.KindFlowIngest}, flowStore{}, flowServer{}
	c := &cobra.Command{
		Use:   "serve --store STORE",
		Short: "Take flows over HTTP and gRPC into a flow store",
		Long: `Take flows over HTTP and gRPC into a flow store, which it makes where there is none.

POST /v1/flows takes a body of any format that 'flows import' reads. POST /v1/logs
and gRPC take OTLP logs, as OpenTelemetry collectors send them. A batch is
answered with success when it is stored; one with a name, as in the header
Weir-Batch: node-7/1042, is stored once however often it is sent. When more comes
than can be stored, senders are told to come again later.

It runs until it is interrupted; then it stores what it has taken, and says how
much that was. It lets anybody send from this machine. To listen to others, give
it a file of tokens, or a certificate and the authority of those of the senders.`,
		Example: `  weir flows serve --store flows
  weir flows serve --store flows --listen :4319 --grpc :4317 --token-file tokens --tls-cert tls.crt --tls-key tls.key
  weir flows serve --store s3://flows/shop --compact-every 1h --keep 90d --keep-size 500GB`,
		Args: takes(0, 0, "flows serve takes no arguments; the store is named as in --store flows"),
		RunE: func(c *cobra.Command, _ []string) error {
			config, errFlags := server.config()
			errStore := checkScheme(store.where)
			switch {
			case store.where == "":
				errStore = errors.New("name the flow store, as in --store flows or --store s3://bucket/prefix")
			case isClickHouse(store.where):
				errStore = fmt.Errorf("--store: %s is a database, and flows serve writes to folders and s3://bucket/prefix; import into the database what is exported from there", clickhouse.Name(store.where))
			}
			if err := errors.Join(out.check(), errFlags, errStore); err != nil {
				return err
			}
			opened, err := flowstore.Open(c.Context(), store.where, store.options)
			if err != nil {
				return err
			}
			config.Log = slog.New(slog.NewTextHandler(s.err, nil))
			listeners, err := server.open(c.Context())
			if err != nil {
				return err
			}
			for _, l := range listeners {
				config.Log.Info("listening", "address", l.Addr().String(), "tls", config.TLS != nil)
			}
			flows := ingest.New(config, opened, clock.RealClock{})
			err = flows.Run(c.Context(), listeners...)
			stats, stored := flows.Taken()
			return errors.Join(err, out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteIngest(w, f, preview.Reading(stats), stored, style)
			}))
		},
	}
	out.addTo(c)
	store.addTo(c)
	c.Flags().Lookup("store").Usage = "the flow `store`: a folder, or s3://bucket/prefix?endpoint=URL&region=NAME"
	server.addTo(c)
	return c
}

func (f *flowServer) addTo(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.http, "listen", "127.0.0.1:4319", "the `address` to listen at")
	flags.StringVar(&f.grpc, "grpc", "127.0.0.1:4317", "another `address` to listen at, where senders of OTLP over gRPC look; none where it is empty")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "the `file` of the server's certificate; it is read again for each connection")
	flags.StringVar(&f.tlsKey, "tls-key", "", "the `file` of its key")
	flags.StringVar(&f.ca, "client-ca", "", "a `file` of certificate authorities; only who has a certificate of theirs may send")
	flags.StringVar(&f.tokens, "token-file", "", "a `file` of bearer tokens, one a line; only who has one may send")
	flags.BoolVar(&f.insecure, "insecure", false, "let anybody send who reaches the address")
	flags.StringVar(&f.queue, "queue", "256MB", "how much `memory` may hold what is read and waits to be stored")
	flags.StringVar(&f.maxBody, "max-body", "32MB", "the largest `size` of a batch, as sent and uncompressed")
	flags.DurationVar(&f.commitEvery, "commit-every", time.Second, "the longest `time` that a batch waits for others to be stored with")
	flags.DurationVar(&f.readTimeout, "read-timeout", time.Minute, "the `time` within which a batch must arrive")
	flags.StringVar(&f.compact, "compact-every", "1h", "how often to compact the store, a `time`; never where it is empty")
	flags.StringVar(&f.keep, "keep", "", "remove hours that ended longer ago than this `time`, as in 90d (default: keep all)")
	flags.StringVar(&f.keepSize, "keep-size", "", "remove the oldest hours until no more than this `size` is left, as in 500GB (default: keep all)")
}

// config returns what the flags ask for, or all that is wrong with them.
func (f *flowServer) config() (ingest.Config, error) {
	config := ingest.Config{TokenFile: f.tokens, CommitEvery: f.commitEvery, ReadTimeout: f.readTimeout}
	var errs []error
	fail := func(err error) { errs = append(errs, err) }
	sized := func(flag, text string) int64 {
		n, err := parseSize(flag, text)
		fail(err)
		return n
	}
	aged := func(flag, text string) time.Duration {
		d, err := parseAge(flag, text)
		fail(err)
		return d
	}
	config.Queue, config.MaxBody, config.KeepBytes = sized("queue", f.queue), sized("max-body", f.maxBody), sized("keep-size", f.keepSize)
	config.CompactEvery, config.Keep = aged("compact-every", f.compact), aged("keep", f.keep)
	if config.CompactEvery == 0 && (config.Keep > 0 || config.KeepBytes > 0) {
		fail(errors.New("--keep and --keep-size want --compact-every: what is old is removed then"))
	}
	for _, wait := range []struct {
		flag string
		d    time.Duration
	}{{"commit-every", f.commitEvery}, {"read-timeout", f.readTimeout}} {
		if wait.d <= 0 {
			fail(fmt.Errorf("--%s: %s is no time to wait", wait.flag, wait.d))
		}
	}
	switch {
	case (f.tlsCert == "") != (f.tlsKey == ""):
		fail(errors.New("--tls-cert and --tls-key want each other"))
	case f.ca != "" && f.tlsCert == "":
		fail(errors.New("--client-ca wants --tls-cert and --tls-key"))
	case f.tlsCert != "":
		var err error
		config.TLS, err = ingest.LoadTLS(f.tlsCert, f.tlsKey, f.ca)
		fail(err)
	}
	if f.tokens == "" && f.ca == "" && !f.insecure {
		fail(checkLoopback("listen", f.http))
		fail(checkLoopback("grpc", f.grpc))
	}
	return config, errors.Join(errs...)
}

// checkLoopback fails where others than this machine may reach an address.
func checkLoopback(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" || net.ParseIP(host).IsLoopback() {
		return nil // what is no address fails where it is opened
	}
	return fmt.Errorf("--%s %s: anybody who reaches it could write the store; ask for --token-file or --client-ca, listen at 127.0.0.1, or say --insecure", flag, address)
}

// open listens at the addresses that are asked for.
func (f *flowServer) open(ctx context.Context) ([]net.Listener, error) {
	var all []net.Listener
	for _, at := range []struct{ flag, address string }{{"listen", cmp.Or(f.http, "127.0.0.1:4319")}, {"grpc", f.grpc}} {
		if at.address == "" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.address)
		if err != nil {
			for _, l := range all {
				l.Close() //nolint:errcheck // it was not used
			}
			return nil, fmt.Errorf("--%s: %w", at.flag, err)
		}
		all = append(all, l)
	}
	return all, nil
}
