package wire

import (
	"net/netip"
	"testing"
	"time"
)

func sample() Result {
	r := Result{V: 1, Agent: "raspberrypi-1a2b", Boot: "k3j9x2m1", Seq: 123456, At: time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC),
		Target: "example.com", Probe: "icmp", Addr: netip.MustParseAddr("93.184.216.34"), Family: 4, Sent: 5,
		RTTs: RTTs{12.345, 12.401, 0, 13.2, 12.399}, Cause: CauseTimeout, Stamp: StampKernel}
	r.Summarise()
	return r
}

func BenchmarkEncodeResult(b *testing.B) {
	r := sample()
	b.ReportAllocs()
	var n int
	for b.Loop() {
		n = len(r.Append(make([]byte, 0, 512)))
	}
	b.ReportMetric(float64(n), "B/result")
}

func BenchmarkDecodeResult(b *testing.B) {
	r := sample()
	p := r.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeResult(p); err != nil {
			b.Fatal(err)
		}
	}
}
