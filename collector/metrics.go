package collector

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"swarming/collector/ingest"
)

// metrics turns the parts' own statistics into Prometheus metrics when asked.
// What strangers can name (agents, targets) is never a label: its number has no
// bound that a time series database would like.
type metrics struct{ p *parts }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("swarming_"+name, help, labels, nil)
}

var (
	descReceived    = desc("results_received_total", "Messages on ping/…, of whatever worth.")
	descStored      = desc("results_stored_total", "Results that were new to the journal.")
	descDuplicates  = desc("results_duplicate_total", "Results that the journal had already.")
	descAcked       = desc("results_acknowledged_total", "Results acknowledged to their agents.")
	descRefused     = desc("messages_refused_total", "Messages refused, by what they were and why.", "kind", "reason")
	descQueue       = desc("queue_length", "Results that wait for the journal.")
	descUp          = desc("broker_up", "1 while connected and subscribed.", "broker")
	descMessages    = desc("broker_messages_total", "Messages received.", "broker")
	descDiscarded   = desc("broker_messages_discarded_total", "Messages for which the queue had no room; agents send results again.", "broker")
	descAgents      = desc("agents_live", "Agents heard within 3 min.")
	descPending     = desc("agents_pending_results", "Results that agents hold, by their heartbeats.")
	descLost        = desc("agents_lost_results", "Results that live agents dropped, by their heartbeats.")
	descMissing     = desc("results_missing", "Results below the highest seq of their agent and boot that are not stored; resends lower it.")
	descProblems    = desc("problems", "Lines that /healthz answers.")
	descWatchRev    = desc("watch_rev", "Rev of the watch list held.")
	descWatchCount  = desc("watch_targets", "Targets of the watch list held.")
	descBytes       = desc("journal_bytes", "Size of the journal in use.")
	descFree        = desc("journal_free_bytes", "Free space on the journal's disk.")
	descRows        = desc("journal_results", "Results in the journal.")
	descExported    = desc("export_documents_total", "Documents that Elasticsearch has from here.", "stream")
	descExportDup   = desc("export_duplicates_total", "Documents that Elasticsearch had already.", "stream")
	descRejected    = desc("export_rejected_total", "Documents that Elasticsearch cannot parse, passed over.", "stream")
	descLag         = desc("export_lag_seconds", "Age of the oldest row that is not exported.", "stream")
	descFailing     = desc("export_failing", "1 while the export is stopped by a failure.", "stream")
	descExportFails = desc("export_failures_total", "Attempts that failed.", "stream")
)

// Describe sends nothing: which series there are depends on the brokers.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := m.p.status(context.Background())
	collectIngest(s.Ingest, counter, gauge)
	gauge(descMissing, float64(s.Missing))
	gauge(descProblems, float64(len(s.Problems)))
	gauge(descWatchRev, float64(s.Watch.Rev))
	gauge(descWatchCount, float64(s.Watch.Targets))
	gauge(descBytes, float64(s.Journal.Bytes))
	gauge(descFree, float64(s.Journal.FreeBytes))
	gauge(descRows, float64(s.Journal.Results))
	for _, e := range s.Export {
		collectStream(e, counter, gauge)
	}
}

func collectIngest(s ingest.Stats, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	counter(descReceived, s.Received)
	counter(descStored, s.Stored)
	counter(descDuplicates, s.Duplicates)
	counter(descAcked, s.Acked)
	for kind, reasons := range s.Refused {
		for reason, n := range reasons {
			counter(descRefused, n, kind, reason)
		}
	}
	gauge(descQueue, float64(s.Results.Length))
	seen := map[string]bool{} // a broker may have been named twice
	for _, b := range s.Brokers {
		if seen[b.Broker] {
			continue
		}
		seen[b.Broker] = true
		gauge(descUp, one(b.Connected), b.Broker)
		counter(descMessages, b.Messages, b.Broker)
		counter(descDiscarded, b.Discarded, b.Broker)
	}
	gauge(descAgents, float64(s.LiveAgents))
	var pending, lost float64 // strangers' numbers exceed an uint64 together
	for _, a := range s.Agents {
		if a.Alive {
			pending += float64(a.Pending)
			lost += float64(a.Lost) + float64(a.Unconfirmed)
		}
	}
	gauge(descPending, pending)
	gauge(descLost, lost)
}

func collectStream(s ExportStatus, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	counter(descExported, s.Exported, s.Stream)
	counter(descExportDup, s.Duplicates, s.Stream)
	counter(descRejected, s.Rejected, s.Stream)
	counter(descExportFails, s.Failures, s.Stream)
	gauge(descLag, s.Lag, s.Stream)
	gauge(descFailing, one(!s.FailingSince.IsZero()), s.Stream)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
