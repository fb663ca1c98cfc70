package estest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// Do sends a request as the node's administrator and returns the status and
// the answer. A body that is a string or bytes is sent as it is, anything else
// as JSON.
func (n *Node) Do(t testing.TB, method, path string, body any) (int, []byte) {
	t.Helper()
	var b []byte
	switch v := body.(type) {
	case nil:
	case string:
		b = []byte(v)
	case []byte:
		b = v
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, n.URL+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if n.User != "" {
		req.SetBasicAuth(n.User, n.Password)
	}
	client, err := n.client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

// Must is Do for a request that has to succeed; the answer is read into out
// unless that is nil.
func (n *Node) Must(t testing.TB, method, path string, body, out any) {
	t.Helper()
	status, answer := n.Do(t, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: status %d: %s", method, path, status, answer)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, answer)
	}
}

// Count refreshes the indices that match pattern and returns how many documents
// they hold.
func (n *Node) Count(t testing.TB, pattern string) int {
	t.Helper()
	n.Must(t, "POST", "/"+pattern+"/_refresh?allow_no_indices=true", nil, nil)
	var out struct{ Count int }
	n.Must(t, "GET", "/"+pattern+"/_count", nil, &out)
	return out.Count
}

// APIKey makes an API key with the given cluster privileges and the given
// privileges on the indices that match pattern. It returns the key's id and its
// encoded form, as an Authorization header takes it.
func (n *Node) APIKey(t testing.TB, pattern string, index, cluster []string) (id, encoded string) {
	t.Helper()
	if cluster == nil {
		cluster = []string{}
	}
	var out struct{ ID, Encoded string }
	n.Must(t, "POST", "/_security/api_key", map[string]any{
		"name": t.Name(),
		"role_descriptors": map[string]any{"exporter": map[string]any{
			"cluster": cluster,
			"indices": []any{map[string]any{"names": []string{pattern}, "privileges": index}},
		}},
	}, &out)
	return out.ID, out.Encoded
}

// RevokeAPIKey ends a key's life.
func (n *Node) RevokeAPIKey(t testing.TB, id string) {
	t.Helper()
	n.Must(t, "DELETE", "/_security/api_key", map[string]any{"ids": []string{id}}, nil)
}

func (n *Node) client() (*http.Client, error) {
	tr := &http.Transport{}
	if n.CA != "" {
		pem, err := os.ReadFile(n.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: tr, Timeout: time.Minute}, nil
}
