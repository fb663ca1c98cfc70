package elastic

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"swarming/shared/wire"
)

const (
	labelsAge    = 10 * time.Second // labels may be that old
	labelsRetry  = time.Second      // how soon to ask again about an agent not known
	emptyLabels  = "{}"
	absentLabels = "null"
)

// labels knows the labels of every agent as last told by its heartbeat, encoded
// as a JSON object. It holds as many agents as its source does.
type labels struct {
	source Source
	now    func() time.Time

	mu   sync.Mutex
	m    map[wire.AgentName][]byte
	read time.Time
}

// of returns the labels of an agent as a JSON object, or nil without any.
func (l *labels) of(ctx context.Context, a wire.AgentName) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.m[a]
	age := l.now().Sub(l.read)
	if l.m != nil && (age < labelsRetry || ok && age < labelsAge) {
		return b, nil
	}
	agents, err := l.source.Agents(ctx)
	if err != nil {
		return nil, fmt.Errorf("read agents: %w", err)
	}
	m := make(map[wire.AgentName][]byte, len(agents))
	for _, a := range agents {
		b, err := json.Marshal(a.Labels)
		if err != nil || string(b) == emptyLabels || string(b) == absentLabels {
			b = nil
		}
		m[a.Name] = b
	}
	l.m, l.read = m, l.now()
	return l.m[a], nil
}
