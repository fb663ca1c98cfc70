package wire

import "strings"

// Topics and subscriptions. Every result of a target is published on
// ping/{target}; see the package comment for why nothing is read from a topic
// but its first levels.
const (
	TopicWatch         = "watch"            // the watch list, retained
	SubscribePing      = "ping/#"           // all results; '#' because RabbitMQ turns dots into levels
	SubscribeRip       = "rip/#"            // all death notices
	SubscribeLive      = "live/#"           // all heartbeats, of agents and collectors
	SubscribeCollector = "live/collector/+" // the heartbeats of collectors
)

// PingTopic returns the topic of a target's results: "ping/example.com".
func PingTopic(t TargetID) string { return "ping/" + string(t) }

// RipTopic returns the topic of an agent's death notice: "rip/agent/garage-pi".
func RipTopic(a AgentName) string { return "rip/agent/" + string(a) }

// LiveAgentTopic returns the topic of an agent's heartbeat: "live/agent/garage-pi".
func LiveAgentTopic(a AgentName) string { return "live/agent/" + string(a) }

// LiveCollectorTopic returns the topic of a collector's heartbeat: "live/collector/c1".
func LiveCollectorTopic(c CollectorName) string { return "live/collector/" + string(c) }

// AckTopic returns the topic of an agent's acknowledgements: "ack/garage-pi".
func AckTopic(a AgentName) string { return "ack/" + string(a) }

// A Kind is what a topic carries.
type Kind int

// The kinds of topics.
const (
	KindUnknown Kind = iota
	KindWatch
	KindPing
	KindRip
	KindLiveAgent
	KindLiveCollector
	KindAck
)

// String returns the kind as one word fit for a metric's label.
func (k Kind) String() string {
	switch k {
	case KindWatch:
		return "watch"
	case KindPing:
		return "ping"
	case KindRip:
		return "rip"
	case KindLiveAgent:
		return "live_agent"
	case KindLiveCollector:
		return "live_collector"
	case KindAck:
		return "ack"
	}
	return "unknown"
}

// KindOf returns what the payload of a message on topic is.
func KindOf(topic string) Kind {
	switch {
	case topic == TopicWatch:
		return KindWatch
	case strings.HasPrefix(topic, "ping/"):
		return KindPing
	case strings.HasPrefix(topic, "rip/"):
		return KindRip
	case strings.HasPrefix(topic, "live/agent/"):
		return KindLiveAgent
	case strings.HasPrefix(topic, "live/collector/"):
		return KindLiveCollector
	case strings.HasPrefix(topic, "ack/"):
		return KindAck
	}
	return KindUnknown
}
