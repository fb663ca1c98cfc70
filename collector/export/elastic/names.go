package elastic

import (
	"fmt"
	"strings"
)

// maxPrefix leaves room below the 255 bytes of an index name.
const maxPrefix = 100

// names are what everything made in the cluster is called.
type names struct {
	prefix string // also the name of the lifecycle policy
	result string // swarming-ping-, followed by the day; with prefix logstash just logstash-, as the original had it
	event  string // swarming-event-

	resultPattern, eventPattern string // of the indices that the templates are for
}

func newNames(prefix string) (names, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if prefix == "" || len(prefix) > maxPrefix || strings.Trim(prefix, allowed) != "" || strings.ContainsAny(prefix[:1], "-_.") {
		return names{}, fmt.Errorf("elasticsearch index prefix %.110q: want at most %d lower-case letters, digits, '-', '_' and '.', the first a letter or digit", prefix, maxPrefix)
	}
	n := names{prefix: prefix, result: prefix + "-ping-", event: prefix + "-event-"}
	n.resultPattern, n.eventPattern = n.result+"*", n.event+"*"
	if prefix == "logstash" {
		n.result = "logstash-"
		n.resultPattern = "logstash-2*" // a year, so that it does not match the events
	}
	return n, nil
}
