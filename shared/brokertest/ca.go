package brokertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A CA is a certificate authority for tests, its files in one directory. Its
// methods may be called concurrently.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	n    atomic.Int64
}

// A Certificate to be issued.
type Certificate struct {
	Name     string        // common name
	Hosts    []string      // names and addresses of a server; none: a client's certificate
	NotAfter time.Duration // from now; negative: expired; default a day
}

// NewCA makes an authority and writes its certificate to dir/ca.pem.
func NewCA(dir string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	template := template("Test Authority", 24*time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	ca := &CA{dir: dir, key: key}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	return ca, writePEM(ca.File(), "CERTIFICATE", der)
}

// File returns the path of the authority's certificate (PEM).
func (ca *CA) File() string { return filepath.Join(ca.dir, "ca.pem") }

// Issue writes a new key and its certificate and returns the paths of the two
// PEM files. The key (P-256) is readable by its owner only.
func (ca *CA) Issue(c Certificate) (cert, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("issue a certificate: %w", err)
	}
	life := c.NotAfter
	if life == 0 {
		life = 24 * time.Hour
	}
	t := template(c.Name, life)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, h := range c.Hosts {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, k.Public(), ca.key)
	if err != nil {
		return "", "", fmt.Errorf("issue a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", fmt.Errorf("issue a certificate: %w", err)
	}
	base := filepath.Join(ca.dir, fmt.Sprintf("cert-%d", ca.n.Add(1)))
	if err := writePEM(base+".pem", "CERTIFICATE", der); err != nil {
		return "", "", err
	}
	return base + ".pem", base + ".key", writePEM(base+".key", "PRIVATE KEY", keyDER)
}

func template(name string, life time.Duration) *x509.Certificate {
	now := time.Now()
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // crypto/rand does not fail
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(min(-time.Hour, life-time.Hour)),
		NotAfter:     now.Add(life),
	}
}

func writePEM(file, kind string, der []byte) error {
	mode := os.FileMode(0o644)
	if kind == "PRIVATE KEY" {
		mode = 0o600
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
