package journal

import (
	"context"
	"encoding/json"
	"time"

	"swarming/shared/wire"
)

// KindRip is the kind of a death notice. One that has a boot is stored once for
// each agent, boot, conn and reason; events of other kinds have no identity.
const KindRip = "rip"

// An Event is something that happened to an agent.
type Event struct {
	ID       int64           `json:"id"`          // from 1, in the order of arrival; ignored when appended
	At       time.Time       `json:"at,omitzero"` // by the agent's clock, in ms; zero if it did not say
	Received time.Time       `json:"received"`    // when the collector learned of it, in ms
	Kind     string          `json:"kind"`        // "rip", "live", …
	Agent    wire.AgentName  `json:"agent"`
	Boot     wire.Boot       `json:"boot,omitempty"`
	Conn     uint64          `json:"conn,omitempty"` // which connection of that boot
	Reason   string          `json:"reason,omitempty"`
	Broker   string          `json:"broker,omitempty"`
	Detail   json.RawMessage `json:"detail,omitempty"` // any JSON; what is not JSON is stored as a JSON string
}

// AppendEvents stores events in one transaction, like [Journal.Append].
func (j *Journal) AppendEvents(ctx context.Context, events []Event) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	var e extent
	var out outcome
	err := j.append(ctx, len(events), func(ctx context.Context, s *store) (err error) {
		e, out, err = s.addEvents(ctx, events)
		return err
	}, func(s *store) {
		results, _ := s.extents()
		s.setExtents(results, e)
	})
	if err != nil {
		return err
	}
	j.count(out)
	return nil
}

// detailText returns a column's value, NULL for nothing.
func detailText(d json.RawMessage) any {
	switch {
	case len(d) == 0:
		return nil
	case !json.Valid(d):
		d, _ = json.Marshal(string(d)) // a string always can be
	}
	return string(d)
}
