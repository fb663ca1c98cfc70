package collector

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"swarming/collector/ingest"
	"swarming/collector/journal"
	"swarming/shared/wire"
)

// Numbers that thousands of strangers make up, each within its limit, add up to
// a large number and not to a small or negative one.
func TestForgedNumbersAddUp(t *testing.T) {
	const strangers = 5000
	var s Status
	var in ingest.Stats
	for i := range strangers {
		s.addLoss(journal.Loss{Boot: wire.Boot(fmt.Sprint(i)), MinSeq: 1, MaxSeq: wire.MaxSeq, Stored: 2})
		in.Agents = append(in.Agents, ingest.AgentStats{Alive: true, Pending: math.MaxInt, Lost: wire.MaxSeq, Unconfirmed: wire.MaxSeq})
	}
	if s.Missing != math.MaxInt64 || len(s.Losses) != maxLosses {
		t.Errorf("missing %d with %d named, want %d and %d", s.Missing, len(s.Losses), int64(math.MaxInt64), maxLosses)
	}
	got := map[*prometheus.Desc]float64{}
	collectIngest(in, func(*prometheus.Desc, uint64, ...string) {}, func(d *prometheus.Desc, v float64, _ ...string) { got[d] = v })
	if want := 2.0 * strangers * wire.MaxSeq; got[descLost] < want*0.99 {
		t.Errorf("lost %g, want %g", got[descLost], want)
	}
	if want := strangers * float64(math.MaxInt); got[descPending] < want*0.99 {
		t.Errorf("pending %g, want %g", got[descPending], want)
	}
}
