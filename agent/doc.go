// Package agent puts an agent together: the watch list goes to the schedule, a
// due round to the resolver and the probe, its result to the outbox, and the
// uplink carries the outbox to a broker.
//
//	watch → schedule → resolver → probe → outbox → uplink → broker
//	  ↑                                                │
//	  └────────────────── live lists ←─────────────────┘
//
// Each part is a package of its own that knows nothing of the others; what they
// say to each other is in this package.
package agent
