package elastic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 10 * time.Second // to connect, and to agree on TLS

// maxKeyFile bounds an API key; they are about 100 bytes.
const maxKeyFile = 4 << 10

// An apiKey is a key in a file, read again when the file changes: keys are
// rotated while the collector runs.
type apiKey struct {
	file string
	log  *slog.Logger

	mu    sync.Mutex
	value string
	stamp fileStamp
}

// A fileStamp tells whether a file was changed.
type fileStamp struct {
	mtime time.Time
	size  int64
}

// read returns the key in its encoded form. A file that cannot be read any more
// leaves the last key in force.
func (k *apiKey) read() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.file)
	if err == nil {
		stamp := fileStamp{info.ModTime(), info.Size()}
		if stamp == k.stamp && k.value != "" {
			return k.value, nil
		}
		var value string
		if value, err = readKey(k.file); err == nil {
			if k.value != "" && value != k.value {
				k.log.Info("elasticsearch API key was replaced", "file", k.file)
			}
			k.value, k.stamp = value, stamp
		}
	}
	if err != nil && k.value == "" {
		return "", fmt.Errorf("read elasticsearch API key: %w", err)
	}
	return k.value, nil
}

// forget makes the next read look into the file, whatever its time and size say.
func (k *apiKey) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stamp = fileStamp{}
}

func readKey(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	const want = "want one line, the key's \"encoded\" form or id:key"
	if key == "" || len(b) > maxKeyFile {
		return "", fmt.Errorf("%s has %d bytes: %s", file, len(b), want)
	}
	if strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.ContainsAny(key, `{"`) {
		return "", fmt.Errorf("%s holds no API key: %s", file, want) // not quoted: it may be a secret
	}
	if strings.Contains(key, ":") {
		key = base64.StdEncoding.EncodeToString([]byte(key))
	}
	return key, nil
}

// trust checks nodes against the authorities of a PEM file, which is read at
// each connection so that a renewed one is used.
type trust struct{ file string }

// pool returns nil, the system's authorities, without a file.
func (t *trust) pool() (*x509.CertPool, error) {
	if t.file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(t.file)
	if err != nil {
		return nil, fmt.Errorf("read elasticsearch CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read elasticsearch CA: %s holds no certificate: want PEM", t.file)
	}
	return pool, nil
}

func (t *trust) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	pool, err := t.pool()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return d.DialContext(ctx, network, addr)
}
