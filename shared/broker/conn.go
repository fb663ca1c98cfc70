package broker

import (
	"errors"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// ErrClosed is why a connection ended that was closed on this side.
var ErrClosed = errors.New("connection closed")

// A Message is one application message.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte // 0 or 1
	Retained bool // inbound: it was stored by the broker; outbound: the broker is to store it
}

// A Conn is one connection to one broker. Its methods may be called
// concurrently. It costs about 12 goroutines and 110 KB, more than half of it
// the read buffer.
type Conn struct {
	addr          Address
	maxPacket     int // bytes
	answerTimeout time.Duration
	client        mqtt.Client
	link          *link

	slots chan struct{} // one for each message or subscription in flight
	mu    sync.Mutex    // of ended, and of sends to queue
	ended bool          // the writer takes no more requests
	queue chan *request // to the writer
	sent  chan *request // from the writer to the completer, in order; closed by the writer

	failing sync.Once
	done    chan struct{} // closed by fail
	err     error         // set before done is closed

	stopping sync.Once
	workers  sync.WaitGroup // the writer and the completer
}

// Addr returns the address that was dialled.
func (c *Conn) Addr() Address { return c.addr }

// Done returns a channel that is closed as soon as the connection is known to be
// dead, for whatever reason. [Conn.Close] is still needed to wait for what it
// leaves behind.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended: [ErrClosed] after Close or Abort,
// [ErrPacketTooBig] or [ErrMalformed] when the frame guard ended it, otherwise
// what the network said. It returns nil while the connection lives.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// fail ends the connection for those who watch it. The first reason counts.
func (c *Conn) fail(err error) {
	c.failing.Do(func() {
		c.err = err
		close(c.done)
	})
}

// farewell bounds how long Close waits for a DISCONNECT to be written and for
// the broker to close its side.
const farewell = time.Second

// patience is longer than paho needs to end once its socket is closed.
const patience = time.Minute

// Close ends the connection with a DISCONNECT, so that the broker does not
// publish the will, and waits until every goroutine of it has ended: within
// about a second even when the peer is frozen, provided that OnMessage and the
// done functions return. What is still in flight fails with ErrClosed: who
// cares waits for it first. Close is idempotent, is needed after Done as well,
// and must not be called from OnMessage or a done function.
func (c *Conn) Close() { c.stop(false) }

// Abort drops the socket without a DISCONNECT, so that the broker publishes the
// will. Otherwise it is as [Conn.Close].
func (c *Conn) Abort() { c.stop(true) }

func (c *Conn) stop(abort bool) {
	c.stopping.Do(func() {
		alive := c.Err() == nil
		c.fail(ErrClosed)
		switch {
		case abort:
			c.link.drop()
		case alive:
			c.link.leave(farewell)
		}
		// Paho's Disconnect returns when all its goroutines have ended or after
		// the given time, whichever is first; closing the socket ends them.
		timer := time.AfterFunc(farewell, c.link.drop)
		c.client.Disconnect(uint(patience.Milliseconds()))
		timer.Stop()
		c.link.drop()
		c.workers.Wait()
	})
}
