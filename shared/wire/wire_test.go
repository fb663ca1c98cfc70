package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Append is written by hand: encoding/json must read from it what is in r.
func TestAppendAsReadByEncodingJSON(t *testing.T) {
	full, mini := sample(), Result{V: 1, Agent: "a", Boot: "b", Seq: 1, At: time.Unix(0, 0).UTC(), Target: "t", Probe: "icmp"}
	for _, r := range []Result{full, mini} {
		b, ok := strings.CutPrefix(string(r.Append([]byte("before "))), "before ")
		if !ok {
			t.Fatalf("Append does not append: %s", b)
		}
		var got Result
		if err := json.Unmarshal([]byte(b), &got); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*Result{&got, &r} { // three decimals are written
			for _, f := range []*float64{x.Loss, x.Min, x.Avg, x.Max, x.Stddev} {
				if f != nil {
					*f = math.Round(*f*1000) / 1000
				}
			}
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("wrote %+v\nread  %+v", r, got)
		}
		if fast := new(Result); !fast.scan([]byte(b)) {
			t.Errorf("scan does not know its own form: %s", b)
		}
	}
}

// The fields and their order are the contract; a field added to Result and
// forgotten in Append shows here.
func TestAppendWritesEveryField(t *testing.T) {
	r := sample()
	r.Late, r.From = 1, r.Addr
	var got map[string]json.RawMessage
	if err := json.Unmarshal(r.Append(nil), &got); err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Result]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[Result]().Field(i).Tag.Get("json"), ",")
		if _, ok := got[name]; !ok {
			t.Errorf("Append does not write %q", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("Append writes %v, which Result does not have", got)
	}
}

func TestFivePacketsFitIn400Bytes(t *testing.T) {
	r := sample()
	r.Seq = 999_999_999
	r.Family = 6
	r.Addr = netip.MustParseAddr("2606:2800:220:1:248:1893:25c8:1946")
	r.Target = "a-rather-long-name.example.com"
	r.RTTs = RTTs{112.345, 112.401, 0, 113.222, 112.399}
	r.Summarise()
	if b := r.Append(nil); len(b) >= 400 {
		t.Errorf("%d bytes, want under 400: %s", len(b), b)
	}
}

func TestSummarise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		r := Result{Sent: rnd.IntN(MaxPackets + 1)}
		var got []float64
		for range r.Sent {
			ms := 0.0
			if rnd.IntN(4) > 0 {
				ms = rnd.ExpFloat64() * math.Pow10(rnd.IntN(5)-1)
				got = append(got, ms)
			}
			r.RTTs = append(r.RTTs, ms)
		}
		r.Min = new(float64) // must be overwritten
		r.Summarise()
		if r.Recv != len(got) {
			t.Fatalf("recv %d of %v", r.Recv, r.RTTs)
		}
		near(t, "loss", r.Loss, r.Sent > 0, 100-100*float64(len(got))/float64(max(r.Sent, 1)))
		if len(got) == 0 {
			got = []float64{0}
		}
		var sum, dev float64
		for _, ms := range got {
			sum += ms
		}
		avg := sum / float64(len(got))
		for _, ms := range got {
			dev += (ms - avg) * (ms - avg) / float64(len(got))
		}
		near(t, "min", r.Min, r.Recv > 0, slices.Min(got))
		near(t, "avg", r.Avg, r.Recv > 0, avg)
		near(t, "max", r.Max, r.Recv > 0, slices.Max(got))
		near(t, "stddev", r.Stddev, r.Recv > 0, math.Sqrt(dev))
	}
}

func near(t *testing.T, name string, got *float64, present bool, want float64) {
	t.Helper()
	switch {
	case !present && got != nil:
		t.Errorf("%s is %v, want none", name, *got)
	case present && got == nil:
		t.Errorf("%s is missing, want %v", name, want)
	case present && math.Abs(*got-want) > 1e-9*(1+want):
		t.Errorf("%s is %v, want %v", name, *got, want)
	}
}

func TestAppendMillis(t *testing.T) {
	for _, c := range []struct {
		in   float64
		want string
	}{
		{0, "0"}, {1, "1"}, {20, "20"}, {12.345, "12.345"}, {12.3456, "12.346"}, {12.34, "12.34"}, {12.3, "12.3"}, {12.305, "12.305"}, {12.005, "12.005"},
		{0.001, "0.001"}, {0.0004, "0.001"}, {1e-300, "0.001"}, {5e-324, "0.001"}, {0.9996, "1"}, {999.9995, "1000"}, {MaxMillis, "3600000"}, {100.0 / 3, "33.333"},
		{-1, "0"}, {math.Copysign(0, -1), "0"}, {math.NaN(), "0"}, {math.Inf(-1), "0"}, {math.Inf(1), "4503599627370.496"}, {1e308, "4503599627370.496"},
	} {
		if got := string(appendMillis(nil, c.in)); got != c.want {
			t.Errorf("%v is written %s, want %s", c.in, got, c.want)
		}
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 100_000 {
		ms := rnd.Float64() * math.Pow10(rnd.IntN(8)-1)
		var got float64
		if err := json.Unmarshal(appendMillis(nil, ms), &got); err != nil || math.Abs(got-ms) > 0.0005001 && ms > 0.0005 {
			t.Fatalf("%v is read back as %v, %v", ms, got, err)
		}
	}
}

func TestAppendTimeIsAlways24Bytes(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1<<40, 0), time.Unix(-1<<40, 0), time.Unix(math.MaxInt64, 0), time.Now(),
		time.Date(2026, 11, 23, 12, 0, 0, 999_999_999, time.FixedZone("", 7200)), time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600))} {
		b := string(AppendTime(nil, at))
		if back, err := time.Parse(time.RFC3339, b); len(b) != 24 || err != nil || !back.Equal(millis(at)) {
			t.Errorf("%v is written %q and read as %v, %v", at, b, back, err)
		}
	}
}

// However an agent writes its times, they are read in UTC and whole milliseconds.
func TestTimesAreReadAsTheyAreWritten(t *testing.T) {
	const at = `,"at":"2026-11-23T12:00:00.123456789+02:00"`
	want := time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC)
	r, err1 := DecodeResult([]byte(`{"agent":"a","boot":"b","seq":1,"target":"t"` + at + `}`))
	a, err2 := DecodeLiveAgent([]byte(`{"agent":"a","boot":"b"` + at + `}`))
	c, err3 := DecodeLiveCollector([]byte(`{"name":"c","boot":"b"` + at + `}`))
	for i, got := range []time.Time{r.At, a.At, c.At} {
		if err := []error{err1, err2, err3}[i]; got != want || err != nil {
			t.Errorf("%d: read %v, %v, want %v", i, got, err, want)
		}
	}
}

func TestRanges(t *testing.T) {
	const most = math.MaxUint64
	for _, c := range []struct {
		in   []uint64
		want []Range
	}{
		{nil, nil},
		{[]uint64{7}, []Range{{7, 7}}},
		{[]uint64{3, 1, 2}, []Range{{1, 3}}},
		{[]uint64{5, 1, 2, 2, 5, 6, 9}, []Range{{1, 2}, {5, 6}, {9, 9}}},
		{[]uint64{most, most - 1, most, 0}, []Range{{0, 0}, {most - 1, most}}},
	} {
		if got := Ranges(slices.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("Ranges(%v) is %v, want %v", c.in, got, c.want)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		seqs := make([]uint64, rnd.IntN(50))
		for i := range seqs {
			seqs[i] = 1 + rnd.Uint64N(60)
		}
		in := map[uint64]bool{}
		for _, s := range seqs {
			in[s] = true
		}
		var last uint64
		for i, r := range Ranges(seqs) {
			if r[0] > r[1] || i > 0 && r[0] <= last+1 {
				t.Fatalf("range %v after %d", r, last)
			}
			for last = r[0]; last < r[1]; last++ {
				if !in[last] {
					t.Fatalf("%d is in a range and was not given", last)
				}
				delete(in, last)
			}
			delete(in, last)
		}
		if len(in) > 0 {
			t.Fatalf("%v are in no range", in)
		}
	}
}

// A heartbeat carries texts that a watch list made: whatever they hold, it fits.
func TestHeartbeatsCanAlwaysBeRead(t *testing.T) {
	for _, c := range []string{"x", "\"", "\\", "<", "\x1b", "\xff", "ü", "𝄞", "\u2028"} {
		text := strings.Repeat(c, 300)
		l := LiveAgent{Agent: "a", Boot: "b", Version: text, OS: text, Arch: text, Problem: text, Stretch: math.NaN(), At: time.Unix(1<<50, 0), Labels: map[string]string{}}
		for i := range 2 * MaxRefusals {
			l.Refusals = append(l.Refusals, Refusal{TargetID(text), text})
			if i < MaxLabels {
				l.Labels[fmt.Sprintf("%064d", i)] = strings.Repeat("\"", MaxLabel)
			}
		}
		b := l.Encode()
		got, err := DecodeLiveAgent(b)
		if err != nil || len(got.Refusals) != MaxRefusals {
			t.Errorf("%q: %d bytes, %d refusals, %v", c, len(b), len(got.Refusals), err)
		}
		if len(l.Refusals) != 2*MaxRefusals || l.Refusals[0].Reason != text {
			t.Error("Encode changed its receiver's refusals")
		}
	}
	n := 3
	c := LiveCollector{Name: "c", Boot: "b", N: 1, At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), Agents: &n}
	if got, err := DecodeLiveCollector(c.Encode()); err != nil || *got.Agents != n {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestErrorsAreOneShortLine(t *testing.T) {
	for _, field := range []string{`"seq":` + strings.Repeat("9", 7000), `"at":"` + strings.Repeat("\\u0007", 1000) + `"`, `"addr":"` + strings.Repeat("é", 3000) + `"`} {
		_, err := DecodeResult([]byte(`{"v":1,` + field + `}`))
		if err == nil {
			t.Fatalf("%.20s… was accepted", field)
		}
		if bad := checkErrorText(err); bad != nil {
			t.Error(bad)
		}
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "garage-pi", strings.Repeat("a", MaxName), "häuschen", "$SYS", "a.b:c"} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", strings.Repeat("a", MaxName+1), "a b", "a/b", "a+b", "a#b", "a\x00", "\xff", "\ufffd", "a\u00a0b", "a\u200bb", "\u202e"} {
		if CheckName(bad) == nil {
			t.Errorf("%q may be a name", bad)
		}
	}
	for _, good := range []string{"localhost", "example.com", "example.com.", "192.0.2.1", "::1", "::ffff:192.0.2.1", "_x.example", "bücher.example", strings.Repeat("a", MaxHost)} {
		if err := CheckHost(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", strings.Repeat("a", MaxHost+1), "fe80::1%eth0", "[::1]", "a:80", "http://a", "a b", "a..b", ".a", "-a", "a/24", "*", "\xff"} {
		if CheckHost(bad) == nil {
			t.Errorf("%q may be a host", bad)
		}
	}
}

func TestTopics(t *testing.T) {
	for topic, want := range map[string]Kind{
		TopicWatch: KindWatch, PingTopic("example.com"): KindPing, "ping/www/example/com": KindPing, RipTopic("a"): KindRip, "rip/x": KindRip,
		LiveAgentTopic("a"): KindLiveAgent, LiveCollectorTopic("c"): KindLiveCollector, AckTopic("a"): KindAck,
		"": KindUnknown, "watch/": KindUnknown, "ping": KindUnknown, "live/other/x": KindUnknown, "/ping/x": KindUnknown, "$SYS/broker/uptime": KindUnknown,
	} {
		if got := KindOf(topic); got != want {
			t.Errorf("%q carries %v, want %v", topic, got, want)
		}
	}
	seen := map[string]bool{}
	for k := KindUnknown; k <= KindAck; k++ {
		if s := k.String(); seen[s] {
			t.Errorf("two kinds are called %q", s)
		} else {
			seen[s] = true
		}
	}
}

func TestContentHash(t *testing.T) {
	read := func(s string) string {
		t.Helper()
		w, ok, err := DecodeWatch([]byte(s))
		if !ok || err != nil {
			t.Fatal(s, err)
		}
		return w.ContentHash()
	}
	plain := read("a b")
	for _, same := range []string{"a\nb\n", `{"v":1,"rev":5,"by":"x","targets":[{"target":"a","host":"a"},{"target":"b","interval":60,"count":5,"gap":"1s","timeout":"4s","family":"any","probe":"icmp","needs":[]}]}`} {
		if read(same) != plain {
			t.Errorf("%s asks for the same as two plain names, and has another hash", same)
		}
	}
	for _, other := range []string{"a", "b a", "a b c", `{"targets":[{"target":"a"},{"target":"b","count":4}]}`, `{"targets":[{"target":"a"},{"target":"b","needs":["x"]}]}`} {
		if read(other) == plain {
			t.Errorf("%s has the hash of two plain names", other)
		}
	}
}
