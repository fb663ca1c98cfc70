package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const testMax = 300

var connack = []byte{0x20, 2, 0, 0}

// publish is a PUBLISH with QoS 0, its whole size chosen by the payload.
func publish(topic string, payload int) []byte {
	n := 2 + len(topic) + payload
	b := []byte{0x30}
	for ; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	b = append(b, byte(n), byte(len(topic)>>8), byte(len(topic)))
	return append(append(b, topic...), make([]byte, payload)...)
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var guardCases = []struct {
	name   string
	stream []byte
	want   error
	text   string // in the error
}{
	{name: "nothing"},
	{name: "accepted", stream: connack},
	{name: "refused with the last code known", stream: []byte{0x20, 2, 0, 5}},
	{name: "all that a server may send", stream: cat(connack, publish("a", 0), publish("watch", 200), []byte{0x32, 5, 0, 1, 'a', 0, 1},
		[]byte{0x40, 2, 0, 1}, []byte{0x50, 2, 0, 1}, []byte{0x62, 2, 0, 1}, []byte{0x70, 2, 0, 1}, []byte{0x90, 3, 0, 1, 0x80}, []byte{0xb0, 2, 0, 1}, []byte{0xd0, 0}, publish("b", 1))},
	{name: "at the limit", stream: cat(connack, publish("watch", testMax-3-7), []byte{0xd0, 0})},
	{name: "length in more bytes than needed", stream: cat(connack, []byte{0xd0, 0x80, 0x80, 0}, []byte{0xd0, 0})},

	{name: "over the limit", stream: cat(connack, publish("watch", testMax-3-6)), want: ErrPacketTooBig, text: "301 bytes of type 3, at most 300"},
	{name: "80 MB announced", stream: cat(connack, []byte{0x31, 0x80, 0xe8, 0x92, 0x26}), want: ErrPacketTooBig},
	{name: "the longest length there is", stream: cat(connack, []byte{0x30, 0xff, 0xff, 0xff, 0x7f}), want: ErrPacketTooBig, text: "268435460"},
	{name: "length of five bytes", stream: cat(connack, []byte{0x30, 0x80, 0x80, 0x80, 0x80, 0}), want: ErrMalformed, text: "more than 4 bytes"},
	{name: "publish too short for a topic", stream: cat(connack, []byte{0x30, 1, 0}), want: ErrMalformed},
	{name: "publish too short for an identifier", stream: cat(connack, []byte{0x32, 3, 0, 1, 'a'}), want: ErrMalformed},
	{name: "topic beyond its packet", stream: cat(connack, []byte{0x30, 4, 0, 3, 'a', 'b'}), want: ErrMalformed, text: "topic of 3 bytes in a packet of 4"},
	{name: "topic over its identifier", stream: cat(connack, []byte{0x32, 5, 0, 2, 'a', 'b', 1}), want: ErrMalformed},
	{name: "no topic", stream: cat(connack, []byte{0x30, 3, 0, 0, 'a'}), want: ErrMalformed, text: "without a topic"},
	{name: "QoS 3", stream: cat(connack, []byte{0x36, 5, 0, 1, 'a', 0, 1}), want: ErrMalformed, text: "QoS 3"},
	{name: "two codes for one filter", stream: cat(connack, []byte{0x90, 4, 0, 1, 0, 0}), want: ErrMalformed, text: "type 9 of length 4, want 3"},
	{name: "no code for a filter", stream: cat(connack, []byte{0x90, 2, 0, 1}), want: ErrMalformed},
	{name: "puback without an identifier", stream: cat(connack, []byte{0x40, 0}), want: ErrMalformed},
	{name: "pingresp with a body", stream: cat(connack, []byte{0xd0, 1, 0}), want: ErrMalformed},
	{name: "a client's packet", stream: cat(connack, []byte{0x82, 6, 0, 1, 0, 1, 'a', 0}), want: ErrMalformed, text: "packet type 8 from a server"},
	{name: "type 0", stream: cat(connack, []byte{0, 0}), want: ErrMalformed},
	{name: "type 15", stream: cat(connack, []byte{0xf0, 0}), want: ErrMalformed},
	{name: "second CONNACK", stream: cat(connack, connack), want: ErrMalformed},

	{name: "unknown return code", stream: []byte{0x20, 2, 0, 6}, want: ErrNotMQTT},
	{name: "message before the CONNACK", stream: publish("a", 1), want: ErrNotMQTT},
	{name: "CONNACK of MQTT 5", stream: []byte{0x20, 3, 0, 0, 0}, want: ErrNotMQTT},
	{name: "web server", stream: []byte("HTTP/1.1 400 Bad Request\r\n"), want: ErrNotMQTT, text: `"H`},
	{name: "TLS alert", stream: []byte{0x15, 3, 1, 0, 2, 2, 70}, want: ErrNotMQTT},
}

// pass feeds g with the stream in pieces and returns what it passes on.
func pass(g *guard, pieces ...[]byte) (passed []byte, err error) {
	for _, p := range pieces {
		for len(p) > 0 {
			out, n, err := g.next(p)
			passed = append(passed, out...)
			if err != nil {
				return passed, err
			}
			p = p[n:]
		}
	}
	return passed, nil
}

// pieces cuts a stream whole, byte by byte, and in two at every place.
func pieces(stream []byte) (all [][][]byte) {
	single := make([][]byte, len(stream))
	for i := range stream {
		single[i] = stream[i : i+1]
		all = append(all, [][]byte{stream[:i], stream[i:]})
	}
	return append(all, single)
}

// TestGuard: the verdict, and what is passed on up to it, must not depend on the
// boundaries of reads.
func TestGuard(t *testing.T) {
	for _, tt := range guardCases {
		t.Run(tt.name, func(t *testing.T) {
			whole, _ := pass(&guard{max: testMax}, tt.stream)
			if tt.want == nil && !bytes.Equal(whole, tt.stream) {
				t.Errorf("passed: % x, want % x", whole, tt.stream)
			}
			for _, p := range pieces(tt.stream) {
				got, err := pass(&guard{max: testMax}, p...)
				if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
					t.Fatalf("in %d pieces, the first of %d bytes: got %v, want %v", len(p), len(p[0]), err, tt.want)
				}
				if err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("%q does not say %q", err, tt.text)
				}
				if !bytes.Equal(got, whole) {
					t.Fatalf("in %d pieces, the first of %d bytes: passed % x, whole % x", len(p), len(p[0]), got, whole)
				}
			}
		})
	}
}

// TestGuardStopsBeforePaho: of a packet too big nothing gets through.
func TestGuardStopsBeforePaho(t *testing.T) {
	r := newGuarded(bytes.NewReader(cat(connack, []byte{0x31, 0x80, 0xe8, 0x92, 0x26})), guard{max: testMax})
	got, err := io.ReadAll(iotest.OneByteReader(r))
	if !errors.Is(err, ErrPacketTooBig) {
		t.Fatal(err)
	}
	if !bytes.Equal(got, connack) {
		t.Errorf("got through: % x, want % x", got, connack)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrPacketTooBig) {
		t.Errorf("the next read: %v", err)
	}
}

// acknowledged is a PUBLISH with QoS 1 and the packet identifier 0x1234.
func acknowledged(topic string, payload int) []byte {
	b := publish(topic, 2+payload)
	at := bytes.Index(b, []byte(topic)) + len(topic)
	b[0], b[at], b[at+1] = 0x32, 0x12, 0x34
	return b
}

// TestGuardSkips: wherever the stream is cut, of a PUBLISH too big a notice gets
// through that says its topic and size, with the flags and the identifier that
// the broker wants to see acknowledged; what surrounds it is untouched.
func TestGuardSkips(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		name  string
		big   []byte
		topic string
		size  int
		id    uint16
	}{
		{name: "QoS 0", big: publish("ping/x", testMax), topic: "ping/x", size: testMax + 11},
		{name: "just over", big: publish("watch", testMax-3-6), topic: "watch", size: testMax + 1},
		{name: "QoS 1", big: acknowledged("rip/agent/x", testMax), topic: "rip/agent/x", size: testMax + 18, id: 0x1234},
		{name: "long topic", big: publish(long, testMax), topic: long[:maxSkipTopic], size: testMax + 205},
		{name: "long topic, QoS 1", big: acknowledged(long, testMax), topic: long[:maxSkipTopic], size: testMax + 207, id: 0x1234},
		{name: "nothing but topic", big: publish(long+long, 0), topic: long[:maxSkipTopic], size: 405},
		{name: "identifier at the end", big: acknowledged(long+long, 0), topic: long[:maxSkipTopic], size: 407, id: 0x1234},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, after := cat(connack, publish("a", 3)), cat(acknowledged("b", 1), []byte{0xd0, 0})
			for _, p := range pieces(cat(before, tt.big, tt.big, after)) {
				got, err := pass(&guard{max: testMax, skip: true}, p...)
				if err != nil {
					t.Fatal(err)
				}
				rest, ok := bytes.CutPrefix(got, before)
				if !ok {
					t.Fatalf("passed % x, want it to begin with % x", got, before)
				}
				r := bytes.NewReader(rest)
				for range 2 {
					checkNotice(t, r, tt.big[0], tt.id, tt.topic, tt.size)
				}
				if rest = rest[len(rest)-r.Len():]; !bytes.Equal(rest, after) {
					t.Fatalf("passed % x after it, want % x", rest, after)
				}
			}
		})
	}
}

// checkNotice reads a notice as paho does.
func checkNotice(t *testing.T, r io.Reader, first byte, id uint16, topic string, size int) {
	t.Helper()
	p, err := packets.ReadPacket(r)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := p.(*packets.PublishPacket)
	if !ok || n.TopicName != "" || n.MessageID != id || n.Qos != first>>1&3 {
		t.Fatalf("notice %v, want a PUBLISH without a topic, QoS %d, identifier %d", p, first>>1&3, id)
	}
	if gotTopic, gotSize := readNotice(n.Payload); gotTopic != topic || gotSize != size {
		t.Fatalf("notice of %d bytes to %q, want %d to %q", gotSize, gotTopic, size, topic)
	}
}

// TestGuardSkipsPublishOnly: what is not a well-formed PUBLISH still ends the
// connection.
func TestGuardSkipsPublishOnly(t *testing.T) {
	for _, tt := range []struct {
		name   string
		packet []byte
		want   error
	}{
		{"SUBACK", []byte{0x90, 0x80, 0xe8, 0x92, 0x26}, ErrPacketTooBig},
		{"no topic", []byte{0x30, 0x80, 0xe8, 0x92, 0x26, 0, 0}, ErrMalformed},
		{"topic beyond its packet", []byte{0x30, 0x80, 0x10, 0xff, 0xff}, ErrMalformed},
	} {
		got, err := pass(&guard{max: testMax, skip: true}, cat(connack, tt.packet))
		if !errors.Is(err, tt.want) || !bytes.Equal(got, connack) {
			t.Errorf("%s: passed % x, error %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

// A trickle reads a stream in pieces of one size, a second apart.
type trickle struct {
	r    io.Reader
	size int
}

func (s trickle) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.r.Read(p[:min(s.size, len(p))])
}

// TestSkippingIsNotSilence: a packet that is thrown away slowly shows paho a
// PINGRESP now and then, and only as long as it comes.
func TestSkippingIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := cat(connack, publish("ping/x", 1000))
		r := newGuarded(trickle{bytes.NewReader(stream), 100}, guard{max: testMax, skip: true})
		if r.sinceSkip() < time.Hour {
			t.Error("thrown away before anything was read")
		}
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(got, pingresp); n < 9 || n > 10 {
			t.Errorf("%d signs of life within 10 s of a piece each: % x", n, got)
		}
		if ago := r.sinceSkip(); ago != time.Second { // the read that met the end
			t.Errorf("thrown away last %v ago, want 1s", ago)
		}
	})
}

// TestSkipNeedsNoMemory: 80 MB are thrown away without an allocation of their
// size.
func TestSkipNeedsNoMemory(t *testing.T) {
	const size = 80 << 20
	header := binary.AppendUvarint([]byte{0x30}, size)
	stream := io.MultiReader(bytes.NewReader(connack), bytes.NewReader(append(header, 0, 1, 'x')), io.LimitReader(zeros{}, size-3))
	r := newGuarded(stream, guard{max: testMax, skip: true})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.Copy(io.Discard, r)
	runtime.ReadMemStats(&after)
	if err != nil || n > 1000 {
		t.Errorf("%d bytes got through, error %v", n, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// FuzzGuard holds what the package promises: what passes the guard, paho reads
// without an error, without a panic and without a packet over the limit, however
// the stream is cut and whether or not what is too big is skipped.
func FuzzGuard(f *testing.F) {
	for _, tt := range guardCases {
		f.Add(tt.stream, 1)
	}
	f.Add(cat(connack, acknowledged("ping/x", testMax), []byte{0xd0, 0}), 20)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		at := max(0, min(cut, len(stream)))
		for _, skip := range []bool{false, true} {
			whole, verdict := pass(&guard{max: testMax, skip: skip}, stream)
			parts, err := pass(&guard{max: testMax, skip: skip}, stream[:at], stream[at:])
			if (err == nil) != (verdict == nil) || !bytes.Equal(parts, whole) {
				t.Fatalf("whole: % x, %v; cut at %d: % x, %v", whole, verdict, at, parts, err)
			}
			if !skip && !bytes.HasPrefix(stream, whole) {
				t.Fatalf("passed % x of % x", whole, stream)
			}
			checkReadable(t, whole)
		}
	})
}

// checkReadable reads a stream as paho does, up to its end within a packet.
func checkReadable(t *testing.T, stream []byte) {
	t.Helper()
	for r := bytes.NewReader(stream); ; {
		before := r.Len()
		p, err := packets.ReadPacket(r)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		if err != nil {
			t.Fatalf("paho: %v", err)
		}
		if size := before - r.Len(); size > testMax {
			t.Fatalf("%d bytes of %v got through", size, p)
		}
		switch p := p.(type) {
		case *packets.SubackPacket:
			if len(p.ReturnCodes) != 1 {
				t.Fatalf("%d return codes got through", len(p.ReturnCodes))
			}
		case *packets.PublishPacket:
			if p.TopicName == "" && len(p.Payload) < 4 {
				t.Fatalf("no notice, and no topic: %v", p)
			}
		}
	}
}
