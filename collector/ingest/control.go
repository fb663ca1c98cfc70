package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"swarming/collector/journal"
	"swarming/shared/broker"
	"swarming/shared/wire"
)

// controlLoop handles everything but results until ctx ends.
func (i *Ingest) controlLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-i.control.ch:
			i.control.took(m)
			i.handle(m)
		}
	}
}

func (i *Ingest) handle(m inbound) {
	switch m.what {
	case subscribed:
		i.opts.OnSubscribed(m.broker)
		return
	case lost:
		i.opts.OnLost(m.broker)
		return
	}
	kind := wire.KindOf(m.message.Topic)
	if m.what == skipped {
		i.refused.add(kind, wire.ReasonSize, m.message.Topic, i.addr(m.broker), fmt.Errorf("packet of %d bytes: want at most %d", m.size, maxPacket))
		if kind == wire.KindWatch {
			// It may be stored where the list was, and no agent would stay there.
			i.opts.OnWatch(m.broker, broker.Message{Topic: wire.TopicWatch})
		}
		return
	}
	if m.message.Retained && kind != wire.KindWatch {
		i.refused.add(kind, reasonRetained, m.message.Topic, i.addr(m.broker), nil)
		return
	}
	var err error
	switch kind {
	case wire.KindWatch:
		i.opts.OnWatch(m.broker, m.message)
	case wire.KindRip:
		err = i.rip(m)
	case wire.KindLiveAgent:
		var l wire.LiveAgent
		if l, err = wire.DecodeLiveAgent(m.message.Payload); err == nil {
			i.agents.heartbeat(l, m, i.addr(m.broker))
		}
	case wire.KindLiveCollector:
		var l wire.LiveCollector
		if l, err = wire.DecodeLiveCollector(m.message.Payload); err == nil {
			i.agents.collector(l, m.at, i.opts.Name, i.opts.Boot)
		}
	default:
		i.refused.add(kind, reasonTopic, m.message.Topic, i.addr(m.broker), nil)
	}
	if err != nil {
		i.refused.add(kind, wire.ReasonOf(err), m.message.Topic, i.addr(m.broker), err)
	}
}

// rip notes a death. One of an earlier life of the agent is stored as an event
// and changes nothing.
func (i *Ingest) rip(m inbound) error {
	r, err := wire.DecodeRip(m.message.Payload)
	if err != nil {
		return err
	}
	if r.Agent == "" { // an empty payload: the topic is all there is
		_, name, _ := strings.Cut(m.message.Topic, "rip/agent/")
		name = strings.ReplaceAll(name, "/", ".") // RabbitMQ's levels were dots
		if err := wire.CheckName(name); err != nil {
			return &wire.Error{Reason: wire.ReasonName, Kind: "rip", Err: err}
		}
		r.Agent, r.Reason = wire.AgentName(name), wire.RipLost
	}
	stale := !i.agents.gone(r, m)
	if stale {
		i.refused.count(wire.KindRip, reasonStale)
	}
	i.events.add(journal.Event{
		Received: m.at, Kind: "rip", Agent: r.Agent, Boot: r.Boot, Conn: r.Conn, Reason: string(r.Reason),
		Broker: i.addr(m.broker), Detail: detail(map[string]any{"stale": stale}),
	})
	return nil
}

// detail encodes what an event says beside its fields; m holds plain values only.
func detail(m map[string]any) json.RawMessage {
	b, err := json.Marshal(m)
	if err != nil {
		return nil
	}
	return b
}
