package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLS names PEM files for mqtts and wss. They are read at each dial, so that
// renewed files are used without a restart. The zero TLS trusts the system's
// certificate authorities and shows no certificate.
type TLS struct {
	CA   string // certificate authorities to trust instead of the system's
	Cert string // this client's certificate, with the chain up to the authority
	Key  string // its private key
}

// A fileError is a TLS file that cannot be used; its text says which.
type fileError struct{ err error }

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

// Check reports what is wrong with the files as they are now, as a dial would.
func (t TLS) Check() error {
	_, err := t.config("")
	return err
}

func (t TLS) config(serverName string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, &fileError{fmt.Errorf("read certificate authorities: %w", err)}
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &fileError{fmt.Errorf("read certificate authorities: %q holds no certificate in PEM", t.CA)}
		}
	}
	if t.Cert == "" && t.Key == "" {
		return cfg, nil
	}
	if t.Cert == "" || t.Key == "" {
		return nil, &fileError{errors.New("a client certificate needs both its file and the file of its key")}
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, &fileError{fmt.Errorf("load client certificate %q with key %q: %w", t.Cert, t.Key, err)}
	}
	// Through the callback it is shown even to a server whose list of
	// authorities does not name its own: that server's refusal then says so.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return cfg, nil
}
