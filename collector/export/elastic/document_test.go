package elastic

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"swarming/collector/journal"
	"swarming/shared/wire"
)

func TestResultDocument(t *testing.T) {
	row := &journal.Row{ID: 1, Entry: journal.Entry{Result: sample(7), Received: day.Add(6 * time.Second), Broker: "localhost:1883"}}
	got := string(appendResult(nil, "swarming-ping-", row, []byte(`{"isp":"acme"}`)))
	want := `{"create":{"_index":"swarming-ping-2026.11.23","_id":"garage-pi/k3j9x2m1/7"}}
{"@timestamp":"2026-11-23T10:00:00.123Z","@version":"1","agent":"garage-pi","boot":"k3j9x2m1","seq":7,"target":"example.com","probe":"icmp","addr":"192.0.2.1","family":4,"sent":5,"recv":4,"late":0,"loss":20,"min":12.345,"avg":12.586,"max":13.2,"stddev":0.355,"rtts":[12.345,12.401,13.2,12.399],"cause":"timeout","stamp":"kernel","received":"2026-11-23T10:00:06.123Z","broker":"localhost:1883","labels":{"isp":"acme"},"message":"garage-pi to example.com (192.0.2.1): 4 of 5 back, avg 12.586 ms, 20% lost (timeout)"}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResultDocumentWithoutReply(t *testing.T) {
	r := wire.Result{V: 1, Agent: "a", Boot: "b", Seq: 1, At: day, Target: "no.example", Probe: "icmp", Cause: wire.CauseNoSuchHost}
	r.Summarise()
	got := string(appendResult(nil, "swarming-ping-", &journal.Row{Entry: journal.Entry{Result: r, Received: day}}, nil))
	_, doc, _ := strings.Cut(got, "\n")
	want := `{"@timestamp":"2026-11-23T10:00:00.123Z","@version":"1","agent":"a","boot":"b","seq":1,"target":"no.example","probe":"icmp","sent":0,"recv":0,"late":0,"cause":"no_such_host","received":"2026-11-23T10:00:00.123Z","message":"a to no.example: nothing sent (no_such_host)"}
`
	if doc != want {
		t.Errorf("got\n%s\nwant\n%s", doc, want)
	}
}

func TestEventDocument(t *testing.T) {
	e := journal.Event{At: day, Received: day.Add(time.Second), Kind: "rip", Agent: "garage-pi", Boot: "k3j9x2m1", Conn: 3, Reason: "bye",
		Broker: "localhost:1883", Detail: json.RawMessage("{\n \"n\": 1 }")}
	got := string(appendEvent(nil, "swarming-event-", &e, nil))
	want := `{"create":{"_index":"swarming-event-2026.11.23","_id":"garage-pi/k3j9x2m1/3/rip/bye"}}
{"@timestamp":"2026-11-23T10:00:00.123Z","@version":"1","kind":"rip","agent":"garage-pi","boot":"k3j9x2m1","conn":3,"reason":"bye","detail":{ "n": 1 },"received":"2026-11-23T10:00:01.123Z","broker":"localhost:1883","message":"garage-pi said bye"}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What happened once is one document, whoever saw it and however often; what
// happened twice is two.
func TestEventID(t *testing.T) {
	rip := journal.Event{Received: day, Kind: "rip", Agent: "a", Boot: "b", Conn: 1, Reason: "lost", Broker: "one:1883"}
	nameless := journal.Event{Received: day, Kind: "rip", Agent: "a", Reason: "lost"}
	back := journal.Event{At: day, Received: day, Kind: "live", Agent: "a", Boot: "b", Conn: 1, Reason: "back"}
	change := func(e journal.Event, f func(*journal.Event)) journal.Event { f(&e); return e }
	later := day.Add(time.Minute)
	for _, tt := range []struct {
		name   string
		a, b   journal.Event
		differ bool
	}{
		{"a rip seen on two brokers", rip, change(rip, func(e *journal.Event) { e.Received, e.Broker = later, "two:1883" }), false},
		{"rips of two connections", rip, change(rip, func(e *journal.Event) { e.Conn = 2 }), true},
		{"a rip and a heartbeat", rip, change(rip, func(e *journal.Event) { e.Kind = "live" }), true},
		{"two rips that tell nothing but a name", nameless, change(nameless, func(e *journal.Event) { e.Received = later }), true},
		{"a return seen by two collectors", back, change(back, func(e *journal.Event) { e.Received = later }), false},
		{"two returns", back, change(back, func(e *journal.Event) { e.At = later }), true},
	} {
		a, b := id(t, string(appendEvent(nil, "x-", &tt.a, nil))), id(t, string(appendEvent(nil, "x-", &tt.b, nil)))
		if (a != b) != tt.differ {
			t.Errorf("%s: ids %q and %q", tt.name, a, b)
		}
	}
}

// The day is the result's own, in UTC, wherever the collector is and whenever
// the result comes.
func TestIndexIsOfTheResultsDay(t *testing.T) {
	east := time.FixedZone("east", 14*3600)
	row := &journal.Row{Entry: journal.Entry{Result: sample(1), Received: day.AddDate(0, 0, 9)}}
	row.Result.At = time.Date(2026, 11, 24, 13, 59, 59, 0, east)
	if got := string(appendResult(nil, "logstash-", row, nil)); !strings.HasPrefix(got, `{"create":{"_index":"logstash-2026.11.23",`) {
		t.Errorf("%.60s: want index logstash-2026.11.23", got)
	}
}

func id(t *testing.T, doc string) string {
	t.Helper()
	action, _, _ := strings.Cut(doc, "\n")
	var a struct {
		Create struct {
			ID string `json:"_id"`
		}
	}
	if err := json.Unmarshal([]byte(action), &a); err != nil {
		t.Fatal(err)
	}
	return a.Create.ID
}

// Whatever strings come, a document is two lines of valid JSON, and its id
// tells the identity.
func FuzzDocument(f *testing.F) {
	f.Add("garage-pi", "k3j9x2m1", uint64(1), "example.com", 12.5, "{}")
	f.Add("a\"b\\", "b/1\u2028", uint64(math.MaxUint64), "\n\x00\xff", math.Inf(1), "{\n}")
	f.Fuzz(func(t *testing.T, agent, boot string, seq uint64, target string, ms float64, detail string) {
		r := wire.Result{Agent: wire.AgentName(agent), Boot: wire.Boot(boot), Seq: seq, At: day, Target: wire.TargetID(target), Probe: target,
			Addr: netip.MustParseAddr("2001:db8::1"), Loss: &ms, Avg: &ms, RTTs: wire.RTTs{ms, 0, -ms}, Cause: wire.Cause(target)}
		doc := appendResult(nil, "swarming-ping-", &journal.Row{Entry: journal.Entry{Result: r, Received: day, Broker: target}}, nil)
		checkLines(t, doc)
		if wire.CheckName(agent) == nil && strings.ToValidUTF8(boot, "") == boot {
			got := id(t, string(doc))
			first, last := strings.IndexByte(got, '/'), strings.LastIndexByte(got, '/')
			if got[:first] != agent || got[first+1:last] != boot {
				t.Errorf("id %q does not tell agent %q and boot %q", got, agent, boot)
			}
		}
		e := journal.Event{Received: day, Kind: target, Agent: wire.AgentName(agent), Boot: wire.Boot(boot), Conn: seq, Reason: target, Detail: json.RawMessage(detail)}
		checkLines(t, appendEvent(nil, "swarming-event-", &e, nil))
	})
}

func checkLines(t *testing.T, doc []byte) {
	t.Helper()
	lines := bytes.Split(doc, []byte("\n"))
	if len(lines) != 3 || len(lines[2]) != 0 || !json.Valid(lines[0]) || !json.Valid(lines[1]) {
		t.Errorf("%q: want two lines of JSON", doc)
	}
}

func TestLabels(t *testing.T) {
	m := newMemory()
	now := day
	l := labels{source: m, now: func() time.Time { return now }}
	get := func(a wire.AgentName) string {
		b, err := l.of(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	m.agents = []journal.AgentInfo{{Name: "a", Labels: map[string]string{"isp": "acme", "site": "home"}}, {Name: "bare"}}
	if got := get("a"); got != `{"isp":"acme","site":"home"}` {
		t.Errorf("labels of a: %s", got)
	}
	if got := get("bare") + get("unknown"); got != "" {
		t.Errorf("labels of agents without any: %q", got)
	}
	m.agents = append(m.agents, journal.AgentInfo{Name: "new", Labels: map[string]string{"isp": "new"}})
	now = now.Add(labelsRetry)
	if got := get("new"); got != `{"isp":"new"}` {
		t.Errorf("labels of a new agent a second later: %q", got)
	}
	m.agents[0].Labels = map[string]string{"isp": "other"}
	now = now.Add(labelsAge)
	if got := get("a"); got != `{"isp":"other"}` {
		t.Errorf("labels of a after they changed: %q", got)
	}
}

func BenchmarkDocument(b *testing.B) {
	row := &journal.Row{ID: 1, Entry: journal.Entry{Result: sample(123456), Received: day, Broker: "localhost:1883"}}
	labels := []byte(`{"isp":"acme","site":"home"}`)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = appendResult(buf[:0], "swarming-ping-", row, labels)
	}
	b.ReportMetric(float64(len(buf)), "B/doc")
}
