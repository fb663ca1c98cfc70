// Package ingest listens to every broker and puts what the agents publish into
// the journal.
//
// Each broker has one supervised connection; none may slow another. A message
// goes from the connection into a bounded queue, which never blocks: what does
// not fit is discarded and counted, and the agent sends it again. There are two
// queues, so that a flood of results delays no heartbeat and no watch list.
//
// Results are written in batches, one transaction each, and acknowledged only
// when the journal has them on disk: at most one ack a second for each agent and
// broker, on the broker the results came from. A result that is refused is
// acknowledged too if its identity can be read, or its agent would send it for
// ever. While the journal fails, the batch at hand is tried again and nothing is
// acknowledged. While this machine's clock is not set (it shows less than
// [Options].BuildTime) results are neither stored nor acknowledged, because their
// times cannot be judged.
//
// Everything here is bounded: the queues by count and bytes, the agents known,
// the acks that wait, the refusals logged. What a bound drops is in [Stats].
package ingest
