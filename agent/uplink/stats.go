package uplink

import (
	"maps"
	"time"

	"swarming/shared/wire"
)

// Stats are the uplink's present state and its counters since the start.
type Stats struct {
	Broker    string    // connected to; empty: none
	Since     time.Time // of that; zero before the first connection
	Conn      uint64    // attempts to connect so far
	Collector wire.CollectorName
	Heard     time.Time              // when Collector was, the latest of all
	Refused   map[wire.Reason]uint64 // payloads refused
	Brokers   []BrokerStats          // in the order given
}

// BrokerStats is what is known of one broker.
type BrokerStats struct {
	Broker string
	State  string // what is wrong, as one word; empty: nothing is known to be
	Err    string
	Since  time.Time // of State
	Count  int       // how many times in a row it was found so
}

// Stats returns the present state and the counters.
func (u *Uplink) Stats() Stats {
	var s Stats
	u.mu.Lock()
	s.Broker, s.Since, s.Conn = u.broker, u.since, u.conn
	u.mu.Unlock()
	u.ears.mu.Lock()
	s.Collector, s.Heard, s.Refused = u.ears.last, u.ears.lastAt, maps.Clone(u.ears.refused)
	u.ears.mu.Unlock()
	u.report.mu.Lock()
	for _, c := range u.report.brokers {
		s.Brokers = append(s.Brokers, BrokerStats{Broker: c.address, State: c.state, Err: c.err, Since: c.since, Count: c.count})
	}
	u.report.mu.Unlock()
	return s
}
