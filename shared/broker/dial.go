package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Options for one connection. The zero value of each field is its default.
type Options struct {
	// ClientID must be unique on the broker: two connections with one id evict
	// each other. Default: the broker makes one up.
	ClientID string
	TLS      TLS
	// Will is what the broker publishes when the connection ends without a
	// DISCONNECT. Default: nothing.
	Will *Message
	// KeepAlive is how long the connection may be silent before it is probed
	// with a ping, which has as long again, at most 10 s, to be answered. Whole
	// seconds, 1 s to 18 h, default 30 s.
	KeepAlive time.Duration
	// DialTimeout is for everything up to the broker's CONNACK. Default 10 s.
	DialTimeout time.Duration
	// WriteTimeout is for each packet. Default 8 s.
	WriteTimeout time.Duration
	// AnswerTimeout is how long the oldest message of QoS 1 or subscription may
	// stay unacknowledged before the connection is given up. Default 30 s.
	AnswerTimeout time.Duration
	// MaxPacket is the longest packet accepted (see OnSkip) and sent, in bytes
	// with its header. Default 256 KiB.
	MaxPacket int
	// OnSkip, when set, is told of every received PUBLISH over MaxPacket, in order
	// with the messages and under the rules of OnMessage: the first 128 bytes of
	// its topic and the size of the packet in bytes. The packet is thrown away as
	// it comes, without memory for it, and is acknowledged like any other; the
	// time it takes counts neither as silence nor for AnswerTimeout. Default:
	// such a packet ends the connection with [ErrPacketTooBig].
	OnSkip func(topic string, size int)
	// OnMessage is called for every message, in order, by one goroutine. It must
	// not block: nothing else is read meanwhile. It may keep the payload. It is
	// not called any more once Close has returned. Default: messages are dropped.
	OnMessage func(Message)
	// Log gets debug lines. Default: none.
	Log *slog.Logger
}

const (
	minKeepAlive   = time.Second
	maxKeepAlive   = 65535 * time.Second // a 16-bit number of seconds (MQTT 3.1.1, section 3.1.2.10)
	maxPingTimeout = 10 * time.Second
)

func (o Options) withDefaults() Options {
	if o.KeepAlive <= 0 {
		o.KeepAlive = 30 * time.Second
	}
	o.KeepAlive = max(minKeepAlive, min(o.KeepAlive, maxKeepAlive))
	if o.DialTimeout <= 0 {
		o.DialTimeout = 10 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 8 * time.Second
	}
	if o.AnswerTimeout <= 0 {
		o.AnswerTimeout = 30 * time.Second
	}
	if o.MaxPacket <= 0 {
		o.MaxPacket = 256 << 10
	}
	if o.OnMessage == nil {
		o.OnMessage = func(Message) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Dial connects to a and returns once the broker has accepted the client. It
// returns promptly when ctx ends, which has no effect on a connection that
// stands. The error is a [*DialError].
func Dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	o = o.withDefaults()
	dialing, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	c, err := dial(dialing, a, o)
	if err != nil {
		failure := explain(a, err)
		o.Log.Debug("dial failed", "broker", a, "kind", failure.Kind, "err", err)
		return nil, failure
	}
	o.Log.Debug("connected", "broker", a)
	return c, nil
}

func dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	if a == (Address{}) {
		return nil, errors.New("no address")
	}
	if o.Will != nil {
		if err := checkMessage(*o.Will, o.MaxPacket); err != nil {
			return nil, err
		}
	}
	var cfg *tls.Config
	if a.usesTLS() {
		var err error
		if cfg, err = o.TLS.config(a.host); err != nil {
			return nil, err
		}
	}
	d := net.Dialer{Control: control}
	raw, err := d.DialContext(ctx, "tcp", a.hostPort())
	if err != nil {
		return nil, err
	}
	// Neither gorilla nor paho looks at a context while it waits for an answer.
	cut := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := handshake(ctx, a, o, raw, cfg)
	if cut() && err == nil {
		return c, nil
	}
	_ = raw.Close()
	if c != nil {
		c.Abort()
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w within %v", errNoAnswer, o.DialTimeout)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, err
}

var errNoAnswer = errors.New("connected, but no answer came")

// handshake does everything between the TCP connection and a Conn that works.
func handshake(ctx context.Context, a Address, o Options, raw net.Conn, cfg *tls.Config) (*Conn, error) {
	stream := raw
	var err error
	switch {
	case a.usesWebSocket():
		stream, err = openWebSocket(ctx, raw, a, cfg)
	case a.usesTLS():
		secure := tls.Client(raw, cfg)
		stream, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		return nil, err
	}
	c := newConn(a, o, stream, raw)
	if err := c.connect(); err != nil {
		return nil, err
	}
	c.workers.Add(2)
	go c.write()
	go c.complete()
	return c, nil
}

func newConn(a Address, o Options, stream, raw net.Conn) *Conn {
	c := &Conn{
		addr:          a,
		maxPacket:     o.MaxPacket,
		answerTimeout: o.AnswerTimeout,
		slots:         make(chan struct{}, maxInFlight),
		queue:         make(chan *request, maxInFlight),
		sent:          make(chan *request, maxInFlight),
		done:          make(chan struct{}),
	}
	c.link = newLink(stream, raw, guard{max: o.MaxPacket, skip: o.OnSkip != nil}, o.WriteTimeout, c.fail)
	c.client = mqtt.NewClient(c.clientOptions(a, o))
	return c
}

// connect sends CONNECT and waits for the CONNACK. It ends when the socket is
// closed.
func (c *Conn) connect() error {
	token := c.client.Connect().(*mqtt.ConnectToken)
	<-token.Done()
	if code := token.ReturnCode(); code != packets.Accepted && code != packets.ErrNetworkError {
		return returnCode(code)
	}
	if token.Error() == nil {
		return nil
	}
	// What the link saw is the cause; paho only adds words to it.
	if err := c.Err(); err != nil {
		return err
	}
	return token.Error()
}

func (c *Conn) clientOptions(a Address, o Options) *mqtt.ClientOptions {
	p := mqtt.NewClientOptions()
	p.Servers = []*url.URL{{Scheme: "mqtt", Host: a.hostPort()}} // a name only: the socket is open
	p.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return c.link, nil })
	p.SetClientID(o.ClientID).SetUsername(a.user).SetPassword(a.password)
	p.SetProtocolVersion(4) // otherwise a failed handshake is tried again as MQTT 3.1
	p.SetCleanSession(true)
	p.SetAutoReconnect(false)
	p.SetConnectRetry(false)
	p.SetConnectionLostHandler(nil)
	p.SetStore(noStore{})
	p.SetOrderMatters(true)
	p.SetConnectTimeout(2 * o.DialTimeout) // never: the socket is closed before
	p.SetWriteTimeout(handOver)            // of the waits for paho's own writer only: see link.Write
	p.SetKeepAlive(o.KeepAlive)
	p.SetPingTimeout(min(o.KeepAlive, maxPingTimeout))
	p.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		if m.Topic() == "" { // only a notice has none
			o.OnSkip(readNotice(m.Payload()))
			return
		}
		o.OnMessage(Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retained: m.Retained()})
	})
	if w := o.Will; w != nil {
		p.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retained)
	}
	return p
}

// noStore is paho's persistence, which a connection that never resumes has no
// use for.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
