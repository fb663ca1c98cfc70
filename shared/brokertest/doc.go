// Package brokertest runs brokers for tests and for the demo: real mosquitto
// processes that can be stopped, killed, frozen and restarted on the same port,
// an in-process broker for unit tests, a certificate authority, and a plain
// client to see what goes over the wire.
package brokertest
