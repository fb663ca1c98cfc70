package elastic

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
)

// maxAnswer bounds what is read of an answer. One to a full batch in which
// every document fails is about 1 MB.
const maxAnswer = 8 << 20

// A client speaks to the nodes of one cluster. It is safe for concurrent use.
type client struct {
	es  *elasticsearch.BaseClient
	key *apiKey // nil: none
	tr  *http.Transport
}

func newClient(o Options) (*client, error) {
	if len(o.URLs) == 0 {
		return nil, errors.New("elasticsearch: no URL: want at least one like http://localhost:9200")
	}
	var password bool
	for _, s := range o.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("elasticsearch URL %q: want one like http://localhost:9200", redact(s))
		}
		password = password || u.User != nil
	}
	c := &client{}
	if o.APIKeyFile != "" {
		if password {
			return nil, errors.New("elasticsearch: both an API key and a password in the URL: want one of them")
		}
		c.key = &apiKey{file: o.APIKeyFile, log: o.Log}
		if _, err := c.key.read(); err != nil {
			return nil, err
		}
	}
	trust := &trust{file: o.CA}
	pool, err := trust.pool()
	if err != nil {
		return nil, err
	}
	c.tr = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DialTLSContext:        trust.dial,
		TLSClientConfig:       &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, // through a proxy
		MaxIdleConnsPerHost:   2 * inFlight,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: requestTimeout,
	}
	c.es, err = elasticsearch.NewBaseClient(elasticsearch.Config{
		Addresses: o.URLs,
		Transport: c.tr,
		// Pausing is our own business. The client only tries each other node once.
		DisableRetry:      len(o.URLs) == 1,
		MaxRetries:        len(o.URLs) - 1,
		DisableMetaHeader: true,
	})
	if err != nil {
		return nil, fmt.Errorf("elasticsearch: %w", err)
	}
	return c, nil
}

func (c *client) close() {
	_ = c.es.Close(context.Background())
	c.tr.CloseIdleConnections()
}

// do sends one request and returns the answer to it. An answer that is not 2xx
// is a *statusError.
func (c *client) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	if c.key != nil {
		key, err := c.key.read()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "ApiKey "+key)
	}
	res, err := c.es.Perform(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		if res.StatusCode == http.StatusUnauthorized && c.key != nil {
			c.key.forget()
		}
		return nil, newStatusError(res.StatusCode, answer)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("answer is longer than %d bytes", maxAnswer)
	}
	return answer, nil
}

// bulk sends docs in one request and returns an item for each.
func (c *client) bulk(ctx context.Context, docs [][]byte) ([]item, error) {
	const path = "/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.type,items.*.error.caused_by.reason"
	b, err := c.do(ctx, http.MethodPost, path, "application/x-ndjson", bytes.Join(docs, nil))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Items []struct {
			Create item `json:"create"`
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("read answer %.100q: %w", b, err)
	}
	if len(answer.Items) != len(docs) {
		return nil, fmt.Errorf("answer %.100q is about %d documents: want %d", b, len(answer.Items), len(docs))
	}
	items := make([]item, len(docs))
	for i := range answer.Items {
		items[i] = answer.Items[i].Create
		if items[i].Status == 0 {
			return nil, fmt.Errorf("answer %.100q has no status for document %d", b, i)
		}
	}
	return items, nil
}

// A statusError is an answer that is not 2xx, to a request or to one item of a
// bulk request.
type statusError struct {
	Status int
	Cause  cause
}

func newStatusError(status int, answer []byte) *statusError {
	e := &statusError{Status: status}
	var body struct {
		Error cause `json:"error"`
	}
	if json.Unmarshal(answer, &body) == nil && body.Error.String() != "" {
		e.Cause = body.Error
	} else if len(answer) > 0 {
		e.Cause.Reason = fmt.Sprintf("%.100q", answer)
	}
	return e
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("status %d", e.Status)
	if text := e.Cause.String(); text != "" {
		s += fmt.Sprintf(": %.300s", text)
	}
	return s
}

// statusOf returns the status that err carries, or 0 if there was no answer.
func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.Status
	}
	return 0
}

// redact hides the password of a URL, even of one that does not parse.
func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
