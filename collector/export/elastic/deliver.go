package elastic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"swarming/shared/backoff"
)

// deliver sends docs until each is stored, or is its own fault, and returns
// nil; or until ctx ends.
func (s *stream) deliver(ctx context.Context, docs [][]byte) error {
	pause := s.e.newBackoff()
	most := len(docs) // in one request
	var failed bool
	for {
		rest, err := s.attempt(ctx, docs, most)
		if err == nil {
			if failed {
				s.health.succeed()
			}
			return nil
		}
		if ctx.Err() != nil {
			if failed {
				s.health.leave()
			}
			return ctx.Err()
		}
		s.health.fail(err, !failed)
		failed = true
		if len(rest) < len(docs) {
			pause.Reset()
		}
		if statusOf(err) == http.StatusTooManyRequests {
			// Smaller requests are a smaller load, and a node whose memory for
			// indexing is less than one request would refuse it for ever.
			most = max(1, most/2)
		}
		docs = rest
		_ = backoff.Sleep(ctx, pause.Next())
	}
}

// attempt sends docs once, at most so many in a request, and fewer where that
// is too long for the other end. It returns the documents that have to be sent
// again, and why; a nil error means none.
func (s *stream) attempt(ctx context.Context, docs [][]byte, most int) ([][]byte, error) {
	if err := s.e.prepareOnce(ctx); err != nil {
		return docs, err
	}
	var rest [][]byte
	var first error
	for len(docs) > 0 {
		part := docs[:min(most, len(docs))]
		items, err := s.e.client.bulk(ctx, part)
		switch {
		case err == nil:
			again, err := s.judge(part, items)
			rest = append(rest, again...)
			first = cmp.Or(first, err)
		case statusOf(err) == http.StatusRequestEntityTooLarge && len(part) > 1:
			most = len(part) / 2
			s.shorten(part)
			continue
		case statusOf(err) == http.StatusRequestEntityTooLarge:
			s.reject(part[0], err.Error())
		default:
			if statusOf(err) == 0 {
				// No answer: what answers next may be another cluster, or an empty one.
				s.e.forgetPrepared()
			}
			return append(rest, docs...), err
		}
		docs = docs[len(part):]
	}
	return rest, first
}

// shorten makes later batches half as long as one that was too long.
func (s *stream) shorten(docs [][]byte) {
	var n int64
	for _, d := range docs {
		n += int64(len(d))
	}
	n = max(n/2, minBatchBytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.maxBytes {
		s.maxBytes = n
		s.e.opts.Log.Info("elasticsearch takes no request as long as ours: shorter ones from now on", "stream", s.name, "bytes", n)
	}
}

// judge looks at what became of each document.
func (s *stream) judge(docs [][]byte, items []item) ([][]byte, error) {
	var rest [][]byte
	var first error
	var created, duplicates uint64
	for i, it := range items {
		switch {
		case it.Status/100 == 2:
			created++
		case it.Status == http.StatusConflict:
			duplicates++
		case it.Error.documentsFault(it.Status):
			s.reject(docs[i], it.Error.String())
		default:
			rest = append(rest, docs[i])
			if first == nil {
				first = &statusError{Status: it.Status, Cause: it.Error}
			}
		}
	}
	s.mu.Lock()
	s.stats.Exported += created
	s.stats.Duplicates += duplicates
	s.mu.Unlock()
	if rest != nil {
		first = fmt.Errorf("%d of %d documents: %w", len(rest), len(docs), first)
	}
	return rest, first
}

// reject counts a document that will never be stored.
func (s *stream) reject(doc []byte, reason string) {
	action, _, _ := bytes.Cut(doc, []byte("\n"))
	s.mu.Lock()
	s.stats.Rejected++
	s.stats.LastRejected = fmt.Sprintf("%.300q: %.300s", action, reason)
	n, ok := s.rejections.allow(s.e.opts.Now())
	s.mu.Unlock()
	if ok {
		s.e.opts.Log.Warn("elasticsearch refused a document for good", "stream", s.name, "document", fmt.Sprintf("%.300s", action),
			"reason", fmt.Sprintf("%.300s", reason), "since_last_line", n)
	}
}

// An item is what became of one document of a bulk request.
type item struct {
	Status int   `json:"status"`
	Error  cause `json:"error"`
}

// A cause is Elasticsearch's account of a failure.
type cause struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
	By     *cause `json:"caused_by"`
}

// UnmarshalJSON also takes the plain string that some failures are told with.
func (c *cause) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &c.Reason)
	}
	type plain cause
	return json.Unmarshal(b, (*plain)(c))
}

// documentsFault reports whether sending the document again is in vain: it does
// not fit the mapping, and never will. These types are only ever about the
// document; every other 400 (validation_exception for a shard limit,
// index_closed_exception, illegal_argument_exception) may pass.
func (c *cause) documentsFault(status int) bool {
	if status != http.StatusBadRequest {
		return false
	}
	switch c.Type {
	case "document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception", "parsing_exception", "x_content_parse_exception":
		return true
	}
	return false
}

func (c *cause) String() string {
	s := c.Type
	if c.Reason != "" && s != "" {
		s += ": "
	}
	s += c.Reason
	if c.By != nil && c.By.Reason != "" && c.By.Reason != c.Reason {
		s += ": " + c.By.Reason
	}
	return s
}
