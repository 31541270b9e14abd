package enforcer

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-policy/weir/policies"
)

// metrics are what an agent counts.
type metrics struct {
	sync       *prometheus.HistogramVec
	loads      prometheus.Counter
	alarms     *prometheus.CounterVec
	errors     *prometheus.CounterVec
	complaints prometheus.Counter
	revoked    prometheus.Counter
	restored   prometheus.Counter
	sweep      prometheus.Histogram
	tracked    prometheus.Gauge

	mutex   sync.Mutex
	last    map[string]uint64 // of each counter of the table
	packets map[[2]string]uint64
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_agent_" + name, Help: help})
	}
	m := &metrics{
		sync: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_agent_sync_seconds", Help: "How long it took to put a change in force: compile, apply, and all from when it was told of.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"step"}),
		loads: counter("loads_total", "Times that the whole table was loaded: at first, and to repair it."),
		alarms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_agent_alarms_total", Help: "Times that somebody else changed the table (tampered), or may have (lost).",
		}, []string{"alarm"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_agent_errors_total", Help: "What the kernel refused, by step; it is tried again.",
		}, []string{"step"}),
		complaints: counter("world_errors_total", "Worlds that could not be read, so that the last good one stayed in force."),
		revoked:    counter("connections_revoked_total", "Connections that were cut off, for policy no longer allows them."),
		restored:   counter("connections_restored_total", "Connections that were cut off, and then allowed again."),
		sweep: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_agent_sweep_seconds", Help: "How long it took to look at all connections.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		tracked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_agent_connections", Help: "Connections that the node tracked when they were last looked at."}),
		last:    map[string]uint64{}, packets: map[[2]string]uint64{},
	}
	for _, alarm := range alarmNames {
		m.alarms.WithLabelValues(alarm)
	}
	return m
}

func (m *metrics) failed(step string) { m.errors.WithLabelValues(step).Inc() }

func (m *metrics) synced(told, begin, compiled, done time.Time) {
	m.sync.WithLabelValues("compile").Observe(compiled.Sub(begin).Seconds())
	m.sync.WithLabelValues("apply").Observe(done.Sub(compiled).Seconds())
	m.sync.WithLabelValues("all").Observe(done.Sub(told).Seconds())
}

func (m *metrics) swept(total int, took time.Duration) {
	m.tracked.Set(float64(total))
	m.sweep.Observe(took.Seconds())
}

// count takes what the counters of the table say, which begin anew when it is loaded.
func (m *metrics) count(now map[string]uint64) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for name, n := range now {
		if n >= m.last[name] {
			n -= m.last[name]
		}
		if direction, action := whatOf(name); action != "" {
			m.packets[[2]string{direction, action}] += n
		}
	}
	m.last = now
}

// whatOf returns what a counter of the table counts. That of a vector counts all that
// meet it, and the two of what it denies and only observes count parts of these.
func whatOf(counter string) (direction, action string) {
	for _, d := range policies.Directions {
		if strings.HasPrefix(counter, d.String()) {
			direction = d.String()
		} else if strings.HasPrefix(counter, "strangers_"+d.String()) {
			return d.String(), "stranger"
		}
	}
	switch {
	case strings.HasSuffix(counter, "_none"), strings.HasSuffix(counter, "_denied"):
		return direction, "denied"
	case strings.HasSuffix(counter, "_observed"):
		return direction, "observed"
	}
	return direction, "judged"
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("weir_agent_"+name, help, labels, nil)
}

// What is read when it is asked for.
var (
	generation  = describe("generation", "How many worlds were put in force.")
	inForce     = describe("in_force", "What is in force: policies, their rules, the node's pods, the elements of sets, guards.", "what")
	refusals    = describe("refusals", "What is not enforced as it is written, at the moment.")
	unread      = describe("world_problems", "Sources that cannot be read at the moment, so that the last good world is in force.")
	packets     = describe("packets_total", "First packets of connections that policies were asked about: judged by a vector, and of these denied or only observed; denied without one; of strangers.", "direction", "action")
	started     = describe("connections_started_total", "Connections that began.")
	ended       = describe("connections_ended_total", "Connections that ended.")
	open        = describe("connections_open", "Connections that are there now.")
	denied      = describe("packets_denied_total", "Packets that were denied, logged or not.")
	observed    = describe("packets_observed_total", "Packets that passed only because somebody is observed.")
	records     = describe("records_total", "Flow records that were written.")
	written     = describe("record_bytes_total", "Bytes of flow records that were written.")
	sent        = describe("records_sent_total", "Flow records that the server of --send took.")
	unsent      = describe("records_unsent_bytes", "Bytes of flow records that it has not taken yet.")
	sendErrors  = describe("send_errors_total", "Times that it could not be reached, or did not take what was sent; it is sent again.")
	unexplained = describe("unexplained_total", "Connections and denials that no policy in force would have decided so.")
	overflows   = describe("event_overflows_total", "Times that the kernel had no room for an event; a look at all connections makes up for it.")
	removed     = describe("records_removed_total", "Flow records that went to make room.")
	slow        = describe("slow_readers_total", "Readers of the socket that were too slow.")
	decisions   = describe("decisions_total", "Connections, and denied attempts, by the policy that decided; they count at the end of a window.", "tier", "kind", "policy", "action")
	decidedBy   = describe("decision_packets_total", "Packets of these, both ways.", "tier", "kind", "policy", "action")
	decidedSize = describe("decision_bytes_total", "Bytes of these, both ways.", "tier", "kind", "policy", "action")
	lost        = describe("events_lost_total", "What is not in the flow records, by cause.", "cause")
)

// Describe and Collect make an agent a collector of Prometheus. It describes nothing, for
// which metrics there are depends on what happens.
func (a *Agent) Describe(chan<- *prometheus.Desc) {}

// Collect sends all.
func (a *Agent) Collect(c chan<- prometheus.Metric) {
	m := a.metrics
	for _, x := range []prometheus.Collector{m.sync, m.loads, m.alarms, m.errors, m.complaints, m.revoked, m.restored, m.sweep, m.tracked} {
		x.Collect(c)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	s := a.Status()
	gauge(generation, int(s.Generation))
	gauge(inForce, s.Policies, "policies")
	gauge(inForce, s.Rules, "rules")
	gauge(inForce, s.Pods, "pods")
	gauge(inForce, s.Elements, "elements")
	gauge(inForce, len(s.guards), "guards")
	gauge(refusals, len(s.Refusals))
	gauge(unread, len(s.Problems))
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	a.readCounters()
	m.mutex.Lock()
	for what, n := range m.packets {
		count(packets, n, what[0], what[1])
	}
	m.mutex.Unlock()
	if a.options.Recorder == nil {
		return
	}
	r := a.options.Recorder.Counts()
	count(started, r.Started)
	count(ended, r.Ended)
	gauge(open, int(r.Open))
	count(denied, r.Denied)
	count(observed, r.Observed)
	count(records, r.Records)
	count(written, r.Bytes)
	count(unexplained, r.Unexplained)
	count(overflows, r.Overflows)
	count(removed, r.Removed)
	count(sent, r.Sent)
	gauge(unsent, int(r.Unsent))
	count(sendErrors, r.SendFailures)
	count(slow, r.Slow)
	for d, n := range r.Decisions {
		labels := []string{d.Tier, d.Policy.Kind, d.Policy.String(), d.Action.String()}
		count(decisions, n.Connections, labels...)
		count(decidedBy, n.Packets, labels...)
		count(decidedSize, n.Bytes, labels...)
	}
	for cause, n := range r.Lost {
		count(lost, n, cause)
	}
}

// readCounters takes what the table counted so far.
func (a *Agent) readCounters() {
	if now, err := a.kernel.Counters(); err == nil {
		a.metrics.count(now)
	}
}
