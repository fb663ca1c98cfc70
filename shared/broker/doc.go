// Package broker is one connection to one plain MQTT 3.1.1 broker: dial it,
// subscribe, publish, and learn promptly that it is dead and why.
//
// It is a thin layer over the Eclipse Paho client, which it uses for the
// protocol and nothing else. Paho's own reconnection starts every list of
// brokers over at the first, resends in random order and keeps an unbounded
// store, so a [Conn] lives exactly as long as its socket: who wants another one
// dials again, and decides where and when.
//
// Between paho and the socket sits a frame guard. It reads the stream of MQTT
// packets and ends the connection before paho allocates one longer than
// [Options].MaxPacket, and before it reads one that a server may not send: some
// of those would make it panic. With [Options].OnSkip a message too long is
// thrown away instead. What passes the guard, paho parses.
//
// Everything here is bounded: the size of a packet, the messages in flight, the
// time of every write and of every dial.
package broker
