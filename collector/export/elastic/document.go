package elastic

import (
	"encoding/json"
	"math"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

// dayLayout is how Logstash names a day.
const dayLayout = "2006.01.02"

// appendResult appends the action and the document of a result. The index is
// named by the result's own day, so that a result that arrives days late lies
// with its neighbours, and a result sent again is found where it was.
func appendResult(b []byte, index string, row *journal.Row, labels []byte) []byte {
	r := &row.Result
	b = appendAction(b, index, r.At)
	b = appendString(b, resultID(r.ID()))
	b = append(b, "}}\n"...)

	b = appendHead(b, r.At)
	b = appendStringField(b, "agent", string(r.Agent))
	b = appendStringField(b, "boot", string(r.Boot))
	b = appendUintField(b, "seq", r.Seq)
	b = appendStringField(b, "target", string(r.Target))
	b = appendStringField(b, "probe", r.Probe)
	b = appendAddrField(b, "addr", r.Addr)
	if r.Family != 0 {
		b = appendUintField(b, "family", uint64(r.Family))
	}
	b = appendUintField(b, "sent", uint64(r.Sent))
	b = appendUintField(b, "recv", uint64(r.Recv))
	b = appendUintField(b, "late", uint64(r.Late))
	b = appendNumberField(b, "loss", r.Loss)
	b = appendNumberField(b, "min", r.Min)
	b = appendNumberField(b, "avg", r.Avg)
	b = appendNumberField(b, "max", r.Max)
	b = appendNumberField(b, "stddev", r.Stddev)
	b = appendRTTs(b, r.RTTs)
	b = appendStringField(b, "cause", string(r.Cause))
	b = appendAddrField(b, "from", r.From)
	b = appendStringField(b, "stamp", string(r.Stamp))
	b = appendTail(b, row.Received, row.Broker, labels)
	b = appendString(append(b, `,"message":`...), resultMessage(r))
	return append(b, "}\n"...)
}

// appendEvent appends the action and the document of an event.
func appendEvent(b []byte, index string, e *journal.Event, labels []byte) []byte {
	at := e.At
	if at.IsZero() {
		at = e.Received
	}
	b = appendAction(b, index, at)
	b = appendEventID(b, e, at)
	b = append(b, "}}\n"...)

	b = appendHead(b, at)
	b = appendStringField(b, "kind", e.Kind)
	b = appendStringField(b, "agent", string(e.Agent))
	b = appendStringField(b, "boot", string(e.Boot))
	b = appendUintField(b, "conn", e.Conn)
	b = appendStringField(b, "reason", e.Reason)
	if len(e.Detail) > 0 && json.Valid(e.Detail) {
		// The journal's JSON may span lines; a document may not.
		b = append(b, `,"detail":`...)
		for _, c := range e.Detail {
			if c != '\n' && c != '\r' {
				b = append(b, c)
			}
		}
	}
	b = appendTail(b, e.Received, e.Broker, labels)
	b = appendString(append(b, `,"message":`...), eventMessage(e))
	return append(b, "}\n"...)
}

// appendAction begins an action line, up to where the id goes.
func appendAction(b []byte, index string, at time.Time) []byte {
	b = append(append(b, `{"create":{"_index":"`...), index...)
	b = at.UTC().AppendFormat(b, dayLayout)
	return append(b, `","_id":`...)
}

// resultID returns the id of a result's document: agent/boot/seq. It is at most
// 146 bytes of the 512 that Elasticsearch allows, and no two identities share
// one: a name has no slash, a number neither.
func resultID(id wire.ID) string {
	return string(id.Agent) + "/" + string(id.Boot) + "/" + strconv.FormatUint(id.Seq, 10)
}

// appendEventID writes agent/boot/conn/kind/reason, the same whichever broker
// and collector an event came through. What can happen more than once in the
// life of a connection has its time in the id, too: an agent that is back after
// a silence, and what a stranger reports without a boot.
func appendEventID(b []byte, e *journal.Event, at time.Time) []byte {
	id := string(e.Agent) + "/" + string(e.Boot) + "/" + strconv.FormatUint(e.Conn, 10) + "/" + e.Kind + "/" + e.Reason
	if e.Boot == "" || e.Kind == "live" && e.Reason == "back" {
		id += "/" + strconv.FormatInt(at.UnixMilli(), 10)
	}
	return appendString(b, id)
}

func appendHead(b []byte, at time.Time) []byte {
	b = wire.AppendTime(append(b, `{"@timestamp":"`...), at)
	return append(b, `","@version":"1"`...)
}

func appendTail(b []byte, received time.Time, broker string, labels []byte) []byte {
	b = wire.AppendTime(append(b, `,"received":"`...), received)
	b = append(b, '"')
	b = appendStringField(b, "broker", broker)
	if labels != nil {
		b = append(append(b, `,"labels":`...), labels...)
	}
	return b
}

// appendStringField leaves an empty field out.
func appendStringField(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(appendName(b, name), s)
}

func appendUintField(b []byte, name string, n uint64) []byte {
	return strconv.AppendUint(appendName(b, name), n, 10)
}

func appendAddrField(b []byte, name string, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return append(a.AppendTo(append(appendName(b, name), '"')), '"')
}

// appendNumberField leaves out what is absent, and what JSON cannot say.
func appendNumberField(b []byte, name string, f *float64) []byte {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return b
	}
	return appendMillis(appendName(b, name), *f)
}

// appendRTTs writes the times of the packets that came back, in order. A lost
// packet is left out, so that an average over the field is one over replies.
func appendRTTs(b []byte, rtts wire.RTTs) []byte {
	open := false
	for _, ms := range rtts {
		if !(ms > 0) || math.IsInf(ms, 0) {
			continue
		}
		if !open {
			b = append(appendName(b, "rtts"), '[')
			open = true
		} else {
			b = append(b, ',')
		}
		b = appendMillis(b, ms)
	}
	if open {
		b = append(b, ']')
	}
	return b
}

// appendMillis writes three decimals at most: microseconds, as the wire does.
func appendMillis(b []byte, f float64) []byte {
	return strconv.AppendFloat(b, math.Round(f*1000)/1000, 'f', -1, 64)
}

func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendString writes s as a JSON string; names and addresses need no escape.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
