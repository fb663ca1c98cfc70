// Package elastic ships the journal to Elasticsearch: every result and every
// event once, at its own pace, for as long as it takes.
//
// The journal is the spool, so the whole state of an export is one integer, the
// cursor: the id of the last row that Elasticsearch is known to have. The loop is
//
//	read rows after the cursor → one _bulk request → look at every item → move the cursor
//
// with two requests in flight. It is written by hand rather than over the
// client's BulkIndexer, because that gives up on a document after its retries
// and reports per item, out of order, where a cursor needs the opposite: nothing
// is ever given up, and a batch is over when all of it is stored.
//
// What makes repeating harmless is the document's id, which is derived from the
// identity of the result alone, and the operation create: a document that is
// there already answers 409, which is success. So two collectors may export the
// same results, and a request may be sent again after any failure.
//
// Only a document that Elasticsearch cannot parse is the document's own fault:
// it is counted, logged and passed over. Everything else is a failure of the
// cluster or of the way there (a shard limit and a closed index answer 400, but
// are no fault of a document): the cursor stays, and the same documents are sent
// again after growing, jittered pauses, until they are stored.
package elastic
