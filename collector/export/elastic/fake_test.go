package elastic

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A fake is an Elasticsearch in memory whose failures a test chooses.
type fake struct {
	*httptest.Server

	// before may answer a request itself and return true.
	before func(w http.ResponseWriter, r *http.Request, body []byte) bool
	// judge may refuse a document: status 0 means to store it.
	judge func(id string) (status int, kind, reason string)

	mu       sync.Mutex
	docs     map[string]json.RawMessage // by index/id
	bulks    [][]string                 // ids of each bulk request that was read
	active   int                        // bulk requests now
	most     int                        // bulk requests at a time
	template map[string]json.RawMessage
	policies map[string]json.RawMessage // nil: no lifecycles here
}

func newFake(t testing.TB) *fake {
	f := &fake{docs: make(map[string]json.RawMessage), template: make(map[string]json.RawMessage)}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(f.Close)
	return f
}

// up starts the server; what before and judge do is set by then.
func (f *fake) up() *fake { f.Start(); return f }

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	bulk := r.URL.Path == "/_bulk"
	if bulk {
		f.mu.Lock()
		f.active++
		f.most = max(f.most, f.active)
		f.bulks = append(f.bulks, bulkIDs(body))
		f.mu.Unlock()
		defer func() { f.mu.Lock(); f.active--; f.mu.Unlock() }()
	}
	if f.before != nil && f.before(w, r, body) {
		return
	}
	switch {
	case bulk:
		f.bulk(w, body)
	case strings.HasPrefix(r.URL.Path, "/_index_template/"):
		f.admin(w, r, f.template, body)
	case strings.HasPrefix(r.URL.Path, "/_ilm/policy/"):
		if f.policies == nil {
			problem(w, 400, "illegal_argument_exception", "no handler found for uri")
			return
		}
		f.admin(w, r, f.policies, body)
	default:
		problem(w, 404, "not_found", r.URL.Path)
	}
}

func (f *fake) admin(w http.ResponseWriter, r *http.Request, m map[string]json.RawMessage, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if r.Method == http.MethodPut {
		m[name] = body
		fmt.Fprint(w, `{"acknowledged":true}`)
		return
	}
	if m[name] == nil {
		problem(w, 404, "resource_not_found_exception", name)
		return
	}
	fmt.Fprintf(w, `{"index_templates":[{"name":%q,"index_template":%s}]}`, name, m[name])
}

func problem(w http.ResponseWriter, status int, kind, reason string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"root_cause":[],"type":%q,"reason":%q},"status":%d}`, kind, reason, status)
}

func (f *fake) bulk(w http.ResponseWriter, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	var items []string
	for i := 0; i+1 < len(lines); i += 2 {
		var action struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		if err := json.Unmarshal([]byte(lines[i]), &action); err != nil || !json.Valid([]byte(lines[i+1])) {
			problem(w, 400, "illegal_argument_exception", "malformed action")
			return
		}
		key := action.Create.Index + "|" + action.Create.ID
		if f.judge != nil {
			if status, kind, reason := f.judge(action.Create.ID); status != 0 {
				items = append(items, fmt.Sprintf(`{"create":{"status":%d,"error":{"type":%q,"reason":%q}}}`, status, kind, reason))
				continue
			}
		}
		if f.docs[key] != nil {
			items = append(items, `{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}}`)
			continue
		}
		f.docs[key] = json.RawMessage(lines[i+1])
		items = append(items, `{"create":{"status":201}}`)
	}
	fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
}

func bulkIDs(body []byte) []string {
	var ids []string
	for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		if i%2 == 0 {
			_, id, _ := strings.Cut(line, `"_id":"`)
			id, _, _ = strings.Cut(id, `"`)
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.docs)
}

func (f *fake) requests() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]string(nil), f.bulks...)
}
