package wire

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// TimeLayout is how times are written: RFC 3339 in UTC with milliseconds,
// always 24 bytes.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// Append appends r as one JSON value to b and returns the extended slice. It
// does not check r. Times are written in UTC; milliseconds with three decimals.
// It is written by hand because an agent encodes every result it ever takes.
func (r *Result) Append(b []byte) []byte {
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(max(r.V, Version)), 10)
	b = appendString(append(b, `,"agent":`...), string(r.Agent))
	b = appendString(append(b, `,"boot":`...), string(r.Boot))
	b = strconv.AppendUint(append(b, `,"seq":`...), r.Seq, 10)
	b = append(b, `,"at":"`...)
	b = AppendTime(b, r.At)
	b = append(b, '"')
	b = appendString(append(b, `,"target":`...), string(r.Target))
	b = appendString(append(b, `,"probe":`...), r.Probe)
	if r.Addr.IsValid() {
		b = append(r.Addr.AppendTo(append(b, `,"addr":"`...)), '"')
	}
	if r.Family != 0 {
		b = strconv.AppendInt(append(b, `,"family":`...), int64(r.Family), 10)
	}
	b = strconv.AppendInt(append(b, `,"sent":`...), int64(r.Sent), 10)
	b = strconv.AppendInt(append(b, `,"recv":`...), int64(r.Recv), 10)
	if r.Late != 0 {
		b = strconv.AppendInt(append(b, `,"late":`...), int64(r.Late), 10)
	}
	b = appendOptional(b, `,"loss":`, r.Loss)
	b = appendOptional(b, `,"min":`, r.Min)
	b = appendOptional(b, `,"avg":`, r.Avg)
	b = appendOptional(b, `,"max":`, r.Max)
	b = appendOptional(b, `,"stddev":`, r.Stddev)
	if len(r.RTTs) > 0 {
		b = appendRTTs(append(b, `,"rtts":`...), r.RTTs)
	}
	if r.Cause != "" {
		b = appendString(append(b, `,"cause":`...), string(r.Cause))
	}
	if r.From.IsValid() {
		b = append(r.From.AppendTo(append(b, `,"from":"`...)), '"')
	}
	if r.Stamp != "" {
		b = appendString(append(b, `,"stamp":`...), string(r.Stamp))
	}
	return append(b, '}')
}

// AppendTime appends t in [TimeLayout]. A time that has no place in it, outside
// the years 1 to 9999, becomes the zero time.
func AppendTime(b []byte, t time.Time) []byte { return millis(t).AppendFormat(b, TimeLayout) }

// millis returns t as it is written.
func millis(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Millisecond)
	if y := t.Year(); y < 1 || y > 9999 {
		return time.Time{}
	}
	return t
}

func appendOptional(b []byte, field string, f *float64) []byte {
	if f == nil {
		return b
	}
	return appendMillis(append(b, field...), *f)
}

func appendRTTs(b []byte, rtts RTTs) []byte {
	b = append(b, '[')
	for i, ms := range rtts {
		if i > 0 {
			b = append(b, ',')
		}
		if ms == 0 {
			b = append(b, "null"...)
		} else {
			b = appendMillis(b, ms)
		}
	}
	return append(b, ']')
}

// appendMillis writes f with at most three decimals, by integer arithmetic:
// a third of the time of strconv.AppendFloat. What JSON cannot say, and a reply
// so fast that it would round to nothing, becomes the nearest number that can be said.
func appendMillis(b []byte, f float64) []byte {
	const most = 1 << 52
	u := f * 1000
	switch {
	case math.IsNaN(u) || u < 0:
		u = 0
	case u > most:
		u = most
	case u > 0 && u < 1:
		u = 1
	}
	n := uint64(u + 0.5)
	b = strconv.AppendUint(b, n/1000, 10)
	frac := n % 1000
	if frac == 0 {
		return b
	}
	b = append(b, '.', byte('0'+frac/100))
	if frac %= 100; frac == 0 {
		return b
	}
	b = append(b, byte('0'+frac/10))
	if frac %= 10; frac == 0 {
		return b
	}
	return append(b, byte('0'+frac))
}

// appendString writes s as a JSON string. Names need no escape; anything else
// is escaped as JSON demands, and invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
		i++
	}
	return append(b, '"')
}
