package journal

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"swarming/shared/wire"
)

// An Entry is a result to be stored, with how it came.
type Entry struct {
	Result   wire.Result
	Received time.Time // when it reached the collector; kept in ms
	Broker   string    // the broker it came from, for people
}

// A Row is a stored result. Its times are UTC in whole ms, its round-trip times
// in whole microseconds, as on the wire; V is not kept and is wire.Version.
type Row struct {
	ID int64 // from 1, in the order of arrival
	Entry
}

// micros converts ms to µs. A reply so fast that it would round to nothing stays
// one, because 0 means lost; what no clock can have measured is cut to 2^52.
func micros(ms float64) int64 {
	const most = 1 << 52
	us := ms * 1000
	switch {
	case math.IsNaN(us) || us <= 0:
		return 0
	case us > most:
		return most
	case us < 1:
		return 1
	}
	return int64(us + 0.5)
}

func millis(us int64) float64 { return float64(us) / 1000 }

// optionalMicros returns a column's value, nil for SQL's NULL.
func optionalMicros(ms *float64) any {
	if ms == nil {
		return nil
	}
	return micros(*ms)
}

func optionalMillis(us *int64) *float64 {
	if us == nil {
		return nil
	}
	ms := millis(*us)
	return &ms
}

// optionalNumber returns a column's value; what SQL cannot hold is NULL.
func optionalNumber(f *float64) any {
	if f == nil || math.IsNaN(*f) {
		return nil
	}
	return *f
}

// packRTTs appends each time as a varint of µs: two or three bytes instead of
// the six of JSON and its comma.
func packRTTs(b []byte, rtts wire.RTTs) []byte {
	for _, ms := range rtts {
		b = binary.AppendUvarint(b, uint64(micros(ms)))
	}
	return b
}

// unpackRTTs reads as far as the bytes make sense.
func unpackRTTs(b []byte) wire.RTTs {
	var out wire.RTTs
	for len(b) > 0 {
		us, n := binary.Uvarint(b)
		if n <= 0 {
			break
		}
		if out == nil {
			out = make(wire.RTTs, 0, wire.DefaultCount)
		}
		out = append(out, millis(int64(us)))
		b = b[n:]
	}
	return out
}

// addrWord returns an address as kept in the table of words, "" for none.
func addrWord(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func wordAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s) // none, if it is not one
	return a
}

func msTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
