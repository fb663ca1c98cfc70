package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"swarming/shared/wire"
)

// MaxAgents is how many agents are remembered; beyond it those that were not
// seen for longest are forgotten.
const MaxAgents = 100_000

const upsertAgent = `INSERT INTO agents (name, boot, labels, version, os, arch, seen) VALUES (?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, labels = excluded.labels, version = excluded.version,
		os = excluded.os, arch = excluded.arch, seen = excluded.seen WHERE excluded.seen >= seen`

// An AgentInfo is what an agent last said of itself.
type AgentInfo struct {
	Name    wire.AgentName
	Boot    wire.Boot
	Labels  map[string]string // isp, site, …; nil or empty for none
	Version string
	OS      string
	Arch    string
	Seen    time.Time // when it said so, by the collector's clock, in ms
}

// SaveAgents remembers agents, each unless something later is known of it. It
// fails like [Journal.Append].
func (j *Journal) SaveAgents(ctx context.Context, agents []AgentInfo) error {
	if len(agents) == 0 {
		return ctx.Err()
	}
	return j.append(ctx, 0, func(ctx context.Context, s *store) error {
		for i := range agents {
			a := &agents[i]
			labels := []byte("{}")
			if len(a.Labels) > 0 {
				labels, _ = json.Marshal(a.Labels) // a map of strings always can be
			}
			if _, err := s.stmts.agent.ExecContext(ctx, string(a.Name), string(a.Boot), string(labels), a.Version, a.OS, a.Arch, a.Seen.UnixMilli()); err != nil {
				return fmt.Errorf("save agent %q: %w", a.Name, err)
			}
		}
		return nil
	}, nil)
}

// Agents returns all agents that are remembered, at most [MaxAgents] and some
// that have come since the last clean-up, by name.
func (j *Journal) Agents(ctx context.Context) (agents []AgentInfo, err error) {
	err = j.read(func(s *store) error {
		agents, err = s.readAgents(ctx)
		return err
	})
	return agents, err
}

func (s *store) readAgents(ctx context.Context) (out []AgentInfo, err error) {
	rows, err := s.rdb.QueryContext(ctx, "SELECT name, boot, labels, version, os, arch, seen FROM agents ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a AgentInfo
		var labels []byte
		var seen int64
		if err := rows.Scan(&a.Name, &a.Boot, &labels, &a.Version, &a.OS, &a.Arch, &seen); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(labels, &a.Labels); err != nil {
			return nil, fmt.Errorf("labels of agent %q: %w", a.Name, err)
		}
		a.Seen = msTime(seen)
		out = append(out, a)
	}
	return out, rows.Err()
}
