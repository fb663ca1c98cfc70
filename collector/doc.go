// Package collector puts a collector together: ingest listens to all brokers
// and writes to the journal, exporters ship the journal, watch spreads the
// list, and HTTP answers how it goes.
//
//	brokers → ingest → journal → exporters
//	   ↑         │        └→ results, events, page
//	 watch ←─────┘
//
// Each part is a package of its own that knows nothing of the others; what they
// say to each other is in this package.
package collector
