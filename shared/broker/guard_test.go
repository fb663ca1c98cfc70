package broker

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

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

// TestGuard feeds every stream in one piece, byte by byte, and cut in two at
// every place: the verdict must not depend on the boundaries of reads.
func TestGuard(t *testing.T) {
	for _, tt := range guardCases {
		t.Run(tt.name, func(t *testing.T) {
			check := func(how string, err error) {
				t.Helper()
				if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
					t.Fatalf("%s: got %v, want %v", how, err, tt.want)
				}
				if err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("%s: %q does not say %q", how, err, tt.text)
				}
			}
			check("whole", (&guard{max: testMax}).check(tt.stream))
			single := guard{max: testMax}
			for _, b := range tt.stream {
				_ = single.check([]byte{b})
			}
			check("byte by byte", single.check(nil))
			for i := range tt.stream {
				g := guard{max: testMax}
				_ = g.check(tt.stream[:i])
				check("in two", g.check(tt.stream[i:]))
			}
		})
	}
}

// TestGuardStopsBeforePaho: of a packet too big not even its header gets through.
func TestGuardStopsBeforePaho(t *testing.T) {
	r := &guarded{r: bytes.NewReader(cat(connack, []byte{0x31, 0x80, 0xe8, 0x92, 0x26})), guard: guard{max: testMax}}
	one := make([]byte, 1)
	var got []byte
	for {
		n, err := r.Read(one)
		got = append(got, one[:n]...)
		if err != nil {
			if !errors.Is(err, ErrPacketTooBig) {
				t.Fatal(err)
			}
			break
		}
	}
	if want := cat(connack, []byte{0x31, 0x80, 0xe8, 0x92}); !bytes.Equal(got, want) {
		t.Errorf("got through: % x, want % x", got, want)
	}
	if _, err := r.Read(one); !errors.Is(err, ErrPacketTooBig) {
		t.Errorf("the next read: %v", err)
	}
}

// FuzzGuard holds what the package promises: what passes the guard, paho reads
// without an error, without a panic and without a packet over the limit.
func FuzzGuard(f *testing.F) {
	for _, tt := range guardCases {
		f.Add(tt.stream, 1)
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole := guard{max: testMax}
		verdict := whole.check(stream)
		cutAt := max(0, min(cut, len(stream)))
		parts := guard{max: testMax}
		_ = parts.check(stream[:cutAt])
		if err := parts.check(stream[cutAt:]); (err == nil) != (verdict == nil) {
			t.Fatalf("whole: %v, cut at %d: %v", verdict, cutAt, err)
		}
		if verdict != nil {
			return
		}
		for r := bytes.NewReader(stream); ; {
			before := r.Len()
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return // the stream ends within a packet
			}
			if err != nil {
				t.Fatalf("paho: %v", err)
			}
			if size := before - r.Len(); size > testMax {
				t.Fatalf("%d bytes of %v got through", size, p)
			}
			if s, ok := p.(*packets.SubackPacket); ok && len(s.ReturnCodes) != 1 {
				t.Fatalf("%d return codes got through", len(s.ReturnCodes))
			}
		}
	})
}
