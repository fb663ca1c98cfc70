package elastic

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A key that is revoked stops the export until the file holds another.
func TestAPIKeyIsReplaced(t *testing.T) {
	f, m := newFake(t), newMemory()
	var valid atomic.Value
	valid.Store("ApiKey b25lOnNlY3JldA==") // one:secret
	f.before = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") != valid.Load() {
			problem(w, 401, "security_exception", "unable to authenticate")
			return true
		}
		return false
	}
	f.up()
	file := filepath.Join(t.TempDir(), "key")
	write(t, file, "one:secret\n")
	m.add(2)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, APIKeyFile: file})
	exported(t, m, e)

	valid.Store("ApiKey dHdvOnNlY3JldA==") // two:secret, of the same length
	m.add(2)
	wait(t, "failing", func() bool { return e.Stats().Results.Failures > 2 })
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, "dHdvOnNlY3JldA==") // encoded
	write(t, file, "two:secret\n")
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err) // not even the time tells that it was changed
	}
	exported(t, m, e)
	if f.count() != 4 {
		t.Errorf("%d documents: want 4", f.count())
	}
}

func TestAPIKeyFile(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"":                             "has 0 bytes",
		"  \n":                         "has 3 bytes",
		strings.Repeat("x", 5000):      "has 5000 bytes",
		`{"id":"x","api_key":"y"}`:     "holds no API key",
		"two words":                    "holds no API key",
		"a key with a secret \x00":     "holds no API key",
		"b25lOnNlY3JldA==\nsecond one": "holds no API key",
	} {
		file := filepath.Join(dir, "key")
		write(t, file, content)
		_, err := New(Options{URLs: []string{"http://localhost:9200"}, Source: newMemory(), APIKeyFile: file})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("key file %.20q: error %v: want %q, and nothing of the key", content, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, "a:b")
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no URL"},
		{Options{URLs: []string{"localhost:9200"}}, `elasticsearch URL "localhost:9200"`},
		{Options{URLs: []string{"ftp://u:hush@h"}}, `elasticsearch URL "ftp://u:xxxxx@h"`},
		{Options{URLs: []string{"http://u:hush@h:port"}}, "not a URL"},
		{Options{URLs: []string{"http://u:hush@h"}, APIKeyFile: key}, "want one of them"},
		{Options{URLs: []string{"http://h"}, APIKeyFile: "/nonexistent"}, "read elasticsearch API key: stat /nonexistent"},
		{Options{URLs: []string{"http://h"}, CA: "/nonexistent"}, "read elasticsearch CA: open /nonexistent"},
		{Options{URLs: []string{"http://h"}, CA: key}, "holds no certificate"},
		{Options{URLs: []string{"http://h"}, Index: "Up"}, `index prefix "Up"`},
	} {
		tt.o.Source = newMemory()
		_, err := New(tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%+v: error %v: want %q, without a password", tt.o.URLs, err, tt.want)
		}
	}
}

// A renewed CA is used without a restart.
func TestCAIsReplaced(t *testing.T) {
	f, m := newFake(t), newMemory()
	certs := [2]tls.Certificate{selfSigned(t), selfSigned(t)}
	f.TLS = &tls.Config{Certificates: certs[:1]}
	f.StartTLS()
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, pemOf(certs[1]))
	m.add(3)
	e, _ := start(t, Options{URLs: []string{f.URL}, Source: m, CA: file})
	wait(t, "failing", func() bool { return strings.Contains(e.Stats().Results.Hint, "--elasticsearch-ca") })
	write(t, file, pemOf(certs[0]))
	exported(t, m, e)
	if f.count() != 3 {
		t.Errorf("%d documents: want 3", f.count())
	}
}

func TestWrongScheme(t *testing.T) {
	plain := newFake(t).up()
	secure := newFake(t)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	secure.StartTLS()
	for url, want := range map[string]string{
		strings.Replace(plain.URL, "http:", "https:", 1):  "use http://",
		strings.Replace(secure.URL, "https:", "http:", 1): "https://",
	} {
		m := newMemory()
		m.add(1)
		e, stop := start(t, Options{URLs: []string{url}, Source: m})
		wait(t, "failing", func() bool { return e.Stats().Results.Failures > 0 })
		if s := e.Stats().Results; !strings.Contains(s.Hint, want) {
			t.Errorf("%s: error %q, hint %q: want %q", url, s.LastError, s.Hint, want)
		}
		stop()
	}
}

func TestNotElasticsearch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer srv.Close()
	m := newMemory()
	m.add(1)
	e, _ := start(t, Options{URLs: []string{srv.URL}, Source: m})
	wait(t, "failing", func() bool { return e.Stats().Results.Failures > 0 })
	if s := e.Stats().Results; !strings.Contains(s.Hint, "not of Elasticsearch") {
		t.Errorf("error %q, hint %q", s.LastError, s.Hint)
	}
}

// One node of two that is down is no failure.
func TestOneNodeOfTwoIsDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	f, m := newFake(t).up(), newMemory()
	m.add(100)
	e, _ := start(t, Options{URLs: []string{"http://" + l.Addr().String(), f.URL}, Source: m, BatchRows: 5})
	exported(t, m, e)
	if s := e.Stats().Results; f.count() != 100 || s.Failures != 0 {
		t.Errorf("%d documents, %+v: want 100 and no failure", f.count(), s)
	}
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pemOf(c tls.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}
