package elastic

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

func TestTemplatesArePutAtStart(t *testing.T) {
	f, m := newFake(t).up(), newMemory()
	start(t, Options{URLs: []string{f.URL}, Source: m})
	wait(t, "put", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.template) == 2 })
	for _, name := range []string{"swarming-ping", "swarming-event"} {
		got := string(f.template[name])
		for _, want := range []string{`"` + name + `-*"`, `"priority": 240`, `"version": 1`, `"dynamic": false`, `"auto_expand_replicas": "0-1"`, `"flattened"`} {
			if !strings.Contains(got, want) {
				t.Errorf("template %s has no %s:\n%s", name, want, got)
			}
		}
		if strings.Contains(got, "lifecycle") {
			t.Errorf("template %s names a lifecycle that the cluster does not know", name)
		}
	}
}

func TestLifecycleWhereThereIsOne(t *testing.T) {
	f, m := newFake(t), newMemory()
	f.policies = map[string]json.RawMessage{}
	f.up()
	start(t, Options{URLs: []string{f.URL}, Source: m, Index: "probes"})
	wait(t, "put", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.template) == 2 })
	if policy := string(f.policies["probes"]); !strings.Contains(policy, `"hot"`) || strings.Contains(policy, "delete") {
		t.Errorf("policy %q: want one that deletes nothing", policy)
	}
	if got := string(f.template["probes-ping"]); !strings.Contains(got, `"name": "probes"`) {
		t.Errorf("the template does not name the policy:\n%s", got)
	}
}

// A 404 that is not about the policy is about the whole feature.
func TestNoLifecycleHere(t *testing.T) {
	f, m := newFake(t), newMemory()
	var puts atomic.Int32
	f.before = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.URL.Path, "/_ilm/") {
			return false
		}
		if r.Method == http.MethodPut {
			puts.Add(1)
		}
		problem(w, 404, "api_not_available_exception", "Request for uri [/_ilm/policy] is not available")
		return true
	}
	f.up()
	start(t, Options{URLs: []string{f.URL}, Source: m})
	wait(t, "put", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.template) == 2 })
	if puts.Load() != 0 || strings.Contains(string(f.template["swarming-ping"]), "lifecycle") {
		t.Errorf("%d policies put: want none, and a template without a lifecycle", puts.Load())
	}
}

// A template that is as new as ours, or newer, is left alone.
func TestTemplateVersions(t *testing.T) {
	for _, tt := range []struct {
		there   string
		replace bool
	}{
		{`{"version":0}`, true}, {`{}`, true}, {`{"version":1}`, false}, {`{"version":99}`, false},
	} {
		f, m := newFake(t), newMemory()
		f.template["swarming-ping"] = json.RawMessage(tt.there)
		f.up()
		_, stop := start(t, Options{URLs: []string{f.URL}, Source: m})
		wait(t, "put", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.template["swarming-event"] != nil })
		stop()
		if replaced := string(f.template["swarming-ping"]) != tt.there; replaced != tt.replace {
			t.Errorf("template %s was replaced: %t, want %t", tt.there, replaced, tt.replace)
		}
	}
}

// A key that may only create documents exports all the same.
func TestTemplateForbidden(t *testing.T) {
	f, m := newFake(t), newMemory()
	f.before = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != "/_bulk" {
			problem(w, 403, "security_exception", "action [cluster:admin/index_template/put] is unauthorized for API key")
			return true
		}
		return false
	}
	f.up()
	m.add(3)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	if s := e.Stats(); f.count() != 3 || !strings.Contains(s.TemplateProblem, "manage_index_templates") || s.Results.Failures != 0 {
		t.Errorf("%d documents, %+v: want 3, no failure, and what to do about the template", f.count(), s)
	}
}

// Nothing is exported before the template is there: its types would be guessed.
func TestTemplateFirst(t *testing.T) {
	f, m := newFake(t), newMemory()
	var lifted atomic.Bool
	f.before = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodPut && !lifted.Load() {
			problem(w, 400, "illegal_argument_exception", "index template [swarming-ping] has index patterns [swarming-ping-*] matching patterns from existing templates [x] with patterns (x => [s*]) that have the same priority [240]")
			return true
		}
		return false
	}
	f.up()
	m.add(3)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	wait(t, "failing", func() bool { return e.Stats().Results.Failures > 5 })
	if s := e.Stats().Results; len(f.requests()) != 0 || !strings.Contains(s.Hint, "another index template") || !strings.Contains(s.LastError, "put index template swarming-ping") {
		t.Errorf("%d bulk requests, %+v: want none and a hint", len(f.requests()), s)
	}
	lifted.Store(true)
	exported(t, m, e)
	if f.count() != 3 {
		t.Errorf("%d documents: want 3", f.count())
	}
}

// A cluster that was away may come back empty: the templates are put again.
func TestTemplateAfterTheClusterWasAway(t *testing.T) {
	f, m := newFake(t), newMemory()
	var away atomic.Bool
	f.before = func(http.ResponseWriter, *http.Request, []byte) bool {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	f.up()
	m.add(1)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m})
	exported(t, m, e)
	away.Store(true)
	m.add(1)
	wait(t, "failing", func() bool { return e.Stats().Results.Failures > 0 })
	f.mu.Lock()
	clear(f.template)
	f.mu.Unlock()
	away.Store(false)
	exported(t, m, e)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.template) != 2 {
		t.Errorf("%d templates in the new cluster: want 2", len(f.template))
	}
}

func TestNames(t *testing.T) {
	n, err := newNames("logstash")
	if err != nil || n.result != "logstash-" || n.event != "logstash-event-" || n.resultPattern != "logstash-2*" {
		t.Errorf("%+v, %v: want the names of the original", n, err)
	}
	for _, bad := range []string{"", "-x", "_x", ".x", "Upper", "a b", "a*", "a,b", "a/b", "ä", strings.Repeat("x", 101)} {
		if _, err := newNames(bad); err == nil {
			t.Errorf("prefix %q is taken", bad)
		}
	}
}
