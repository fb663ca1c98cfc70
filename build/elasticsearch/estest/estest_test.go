package estest

import (
	"testing"
)

func TestNode(t *testing.T) {
	n := New(t, Options{})
	n.Must(t, "PUT", "/a/_doc/1?refresh=true", `{"x":1}`, nil)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.Count(t, "a"); got != 1 {
		t.Errorf("after kill -9 and restart the index holds %d documents: want the 1 acknowledged", got)
	}
}

func TestSecureNode(t *testing.T) {
	n := New(t, Options{Secure: true})
	id, key := n.APIKey(t, "a-*", []string{"create_doc"}, nil)
	if id == "" || key == "" {
		t.Errorf("API key %q, encoded %q: want both", id, key)
	}
	n.RevokeAPIKey(t, id)
}
