// Package uplink owns an agent's one connection: it delivers the outbox, says
// that the agent lives, and hears the watch list, collectors and
// acknowledgements.
//
// The brokers know nothing of each other, so an agent uses one at a time. It
// shuffles its list once, starts with the first and goes to the next, round
// robin, when the connection or a write fails, a PUBACK is overdue, no
// collector is heard, or results stay unacknowledged. When a whole circle
// brought no acknowledgement it stays where it is, publishes all the same (a
// plain subscriber may be all there is), and tries another circle in half an
// hour. Every pause is random, so that a broker that comes back meets no
// stampede.
//
// Nothing here blocks the rest of the agent, and nothing a stranger sends stops
// it: what cannot be read is counted, logged once a minute, and dropped.
package uplink
