package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics counts what a server does.
type metrics struct {
	registry    *prometheus.Registry
	batches     *prometheus.CounterVec
	records     prometheus.Counter
	bad         prometheus.Counter
	bytes       prometheus.Counter
	rejected    *prometheus.CounterVec
	commits     prometheus.Histogram
	failures    prometheus.Counter
	compactions *prometheus.CounterVec
}

func newMetrics(b *budget) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_ingest_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_ingest_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_ingest_" + name, Help: help}, func() float64 { return float64(value()) })
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		batches:  counters("batches_total", "Batches that were acknowledged: stored, known from before, or empty.", "result"),
		records:  counter("records_total", "Flow records that were stored."),
		bad:      counter("bad_records_total", "Records that could not be read, of batches that were acknowledged."),
		bytes:    counter("bytes_total", "Bytes of bodies, as sent."),
		rejected: counters("rejected_total", "Requests that were refused.", "reason"),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_ingest_commit_seconds", Help: "How long commits to the store took.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}),
		failures:    counter("commit_failures_total", "Commits that failed."),
		compactions: counters("compactions_total", "Compactions of the store.", "result"),
	}
	m.registry.MustRegister(m.batches, m.records, m.bad, m.bytes, m.rejected, m.commits, m.failures, m.compactions,
		gauge("queue_bytes", "Memory that holds what is read and waits to be stored.", b.inUse),
		gauge("queue_limit_bytes", "The most of it.", func() int64 { return b.limit }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
