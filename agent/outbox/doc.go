// Package outbox keeps results until a collector has acknowledged them.
//
// A broker's PUBACK proves only that a broker received a result: a broker that
// is killed forgets it, one with a slow subscriber drops it, one whose ACL
// forbids the topic confirms it all the same. So a result passes through these
// states, and only an ack (or a full outbox) ends its life:
//
//	undated    taken while the clock was not set; waits for a date
//	live       not yet published, added since the present connection began
//	backlog    not yet confirmed by a broker, from before that
//	in flight  handed to the present connection, PUBACK outstanding
//	awaiting   confirmed by a broker, not acknowledged by a collector
//
// Live results are published as they come. The backlog follows beside them at
// [BacklogRate], because a broker that gets an outage's worth of results at
// once overruns its slowest subscriber (mosquitto: 20 in flight, 1000 queued,
// the rest dropped without a word). What is awaiting is published again, the
// longest waiting first, while a collector is heard on the connection, at 1 a
// second doubling to 20 while acks come. The three take turns, so that none
// starves behind another.
//
// The outbox is passive: it has no goroutine, its methods never block, and all
// of them may be called concurrently.
package outbox
