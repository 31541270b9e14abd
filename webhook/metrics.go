package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics count decisions.
type Metrics struct {
	admissions *prometheus.CounterVec
	duration   prometheus.Histogram
	pending    prometheus.Gauge
	forwards   prometheus.Counter
}

// NewMetrics returns metrics that count nothing yet.
func NewMetrics() *Metrics {
	return &Metrics{
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_admissions_total", Help: "Requests that were decided, by verdict: allowed, warned, denied, or undecided for want of time or of a world.",
		}, []string{"verdict", "dry_run"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_admission_duration_seconds", Help: "How long a decision took, with the wait for those before it.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weir_admissions_pending", Help: "Admitted changes that have not been seen in the cluster yet.",
		}),
		forwards: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_forward_failures_total", Help: "Times that the replica that decides could not be asked, by this one.",
		}),
	}
}

// Describe and Collect make it a collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, c) }

// Collect sends all.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	m.admissions.Collect(c)
	m.duration.Collect(c)
	m.pending.Collect(c)
	m.forwards.Collect(c)
}

// NotForwarded counts that the leader could not be asked.
func (m *Metrics) NotForwarded() { m.forwards.Inc() }

// Observe counts a decision.
func (m *Metrics) Observe(o Observation) {
	dryRun := "false"
	if o.DryRun {
		dryRun = "true"
	}
	m.admissions.WithLabelValues(o.Verdict, dryRun).Inc()
	m.duration.Observe(o.Took.Seconds())
	m.pending.Set(float64(o.Pending))
}
