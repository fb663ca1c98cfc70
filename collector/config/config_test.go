package config

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"swarming/shared/settings"
)

func TestLoad(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := NewSettings().Load([]string{"localhost", "localhost:1884", "--elasticsearch", "http://localhost:9200", "--retention", "7d", "--watch-file", list, "--listen", "off"},
		[]string{"SWARMING_COLLECTOR_MAX_BYTES=1GB", "SWARMING_COLLECTOR_NAME=c1"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Brokers) != 2 || c.Brokers[1].String() != "localhost:1884" || len(c.Elasticsearch) != 1 || c.ElasticsearchIndex != "swarming" {
		t.Errorf("%+v", c)
	}
	if c.Retention != 7*24*time.Hour || c.MaxBytes != 1e9 || c.Name != "c1" || c.Listen != "" || c.WatchFile != list || c.Data != DefaultData {
		t.Errorf("%+v", c)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"host:0"}, {"--retention", "1m"}, {"--max-bytes", "1MB"}, {"--elasticsearch", "localhost:9200"}, {"--elasticsearch", "ftp://x"},
		{"--elasticsearch-index", "Swarming"}, {"--elasticsearch-index", "a b"}, {"--elasticsearch-index", "-x"},
		{"--listen", "9717"}, {"--watch-file", "/does/not/exist"}, {"--elasticsearch-api-key-file", "/does/not/exist"},
		{"--elasticsearch-ca", "/does/not/exist"}, {"--tls-key", "key.pem"}, {"--name", "a/b"},
	} {
		_, err := NewSettings().Load(args, nil, io.Discard)
		if _, ok := err.(*settings.UsageError); !ok {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
}
