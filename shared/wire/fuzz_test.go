package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"
)

// fuzzReader checks, for any payload: the decoder does not panic; what it reads
// can be written, and is read from that as the same; what it refuses it refuses
// with an error fit for a log.
func fuzzReader(f *testing.F, dir string) {
	read := readers[dir]
	for _, x := range readFixtures(f, dir) {
		f.Add(x.payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got := read("ping/example.com", payload)
		if got.err != nil {
			if err := checkErrorText(got.err); err != nil {
				t.Fatal(err)
			}
			return
		}
		for _, r := range got.refused {
			if checkText("target", string(r.Target)) != nil || checkText("reason", r.Reason) != nil {
				t.Fatalf("a heartbeat cannot tell of the refusal %q", r)
			}
		}
		if got.none || dir == "legacy" || dir == "rip" && len(payload) == 0 {
			return
		}
		again := read("", got.encoded)
		if again.err != nil || again.none || !bytes.Equal(again.encoded, got.encoded) {
			t.Fatalf("written %s\nread and written again %s, %v", got.encoded, again.encoded, again.err)
		}
	})
}

func FuzzDecodeResult(f *testing.F)        { fuzzReader(f, "result") }
func FuzzDecodeLegacy(f *testing.F)        { fuzzReader(f, "legacy") }
func FuzzDecodeWatch(f *testing.F)         { fuzzReader(f, "watch") }
func FuzzDecodeAck(f *testing.F)           { fuzzReader(f, "ack") }
func FuzzDecodeRip(f *testing.F)           { fuzzReader(f, "rip") }
func FuzzDecodeLiveAgent(f *testing.F)     { fuzzReader(f, "live_agent") }
func FuzzDecodeLiveCollector(f *testing.F) { fuzzReader(f, "live_collector") }

// Whatever scan accepts, encoding/json reads as the same.
func FuzzScan(f *testing.F) {
	for _, x := range readFixtures(f, "result") {
		f.Add(x.payload)
	}
	r := sample()
	for _, n := range []string{"", "-", "1.", ".5", "01", "0.10", "1e3", "5801424265.70329669", "9007199254740993", "99999999999999999999"} {
		f.Add(bytes.Replace(r.Append(nil), []byte("12.401"), []byte(n), 1))
		f.Add(bytes.Replace(r.Append(nil), []byte("123456"), []byte(n), 1))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var fast, slow Result
		if len(payload) > MaxResult || !fast.scan(payload) {
			return
		}
		if err := unmarshal("result", payload, MaxResult, &slow); err != nil {
			t.Fatalf("scan reads %+v of %q, encoding/json: %v", fast, payload, err)
		}
		if !reflect.DeepEqual(fast, slow) {
			t.Fatalf("scan         %s\nencoding/json %s", fast.Append(nil), slow.Append(nil))
		}
	})
}

// Whatever a result holds, Append writes one JSON value of valid UTF-8.
func FuzzAppendResult(f *testing.F) {
	f.Add("garage-pi", "k3j9", uint64(1), int64(1795428000), 5, 12.345, 0.0)
	f.Add("\x00\xff\"\\</script>\u2028", "é\x7f", ^uint64(0), int64(-1)<<62, -1, 1e308, -0.1)
	f.Fuzz(func(t *testing.T, name, text string, n uint64, sec int64, i int, x, y float64) {
		r := Result{V: i, Agent: AgentName(name), Boot: Boot(text), Seq: n, At: time.Unix(sec, int64(i)), Target: TargetID(text), Probe: name,
			Family: i, Sent: i, Recv: i, Late: i, Loss: &x, Min: &y, Avg: &x, RTTs: RTTs{x, y, 0}, Cause: Cause(text), Stamp: Stamp(name)}
		b := r.Append(nil)
		var back struct {
			Agent, Boot string
			At          time.Time
			Loss, Min   float64
			RTTs        []*float64
		}
		if err := json.Unmarshal(b, &back); err != nil || !utf8.Valid(b) {
			t.Fatalf("%q: %v", b, err)
		}
		if utf8.ValidString(name) && back.Agent != name || utf8.ValidString(text) && back.Boot != text {
			t.Errorf("wrote %q and %q, read %q and %q", name, text, back.Agent, back.Boot)
		}
		if len(back.RTTs) != 3 || back.RTTs[2] != nil || !(back.Loss >= 0) || !(back.Min >= 0) || !back.At.Equal(millis(r.At)) {
			t.Errorf("%q", b)
		}
	})
}
