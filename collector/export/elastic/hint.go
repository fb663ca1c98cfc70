package elastic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// hint says what to try about an error, or nothing.
func hint(err error, n names) string {
	if e, ok := errors.AsType[*statusError](err); ok {
		return statusHint(e, n)
	}
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "name the authority of Elasticsearch's certificate with --elasticsearch-ca FILE"
	case errors.As(err, new(x509.HostnameError)):
		return "use a host name in the URL that the certificate is for"
	case errors.As(err, new(x509.CertificateInvalidError)):
		return "renew Elasticsearch's certificate, or set this machine's clock"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the node does not speak TLS: use http:// in the URL"
	case strings.Contains(err.Error(), "malformed HTTP response"):
		return "the node speaks TLS, or is none: try https:// in the URL"
	case strings.Contains(err.Error(), "not Elasticsearch"):
		return "the URL is not of Elasticsearch 7.14 or newer; OpenSearch is not supported"
	case errors.Is(err, io.EOF):
		return "the node closed the connection: it is stopping, or wants https:// in the URL"
	case errors.As(err, &dns):
		return "check the host name in the URL"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start Elasticsearch, or correct host and port in the URL"
	case errors.Is(err, context.DeadlineExceeded):
		return "Elasticsearch does not answer in time: is it overloaded, or a firewall in between?"
	}
	return ""
}

func statusHint(e *statusError, n names) string {
	text := e.Cause.String()
	switch {
	case e.Status == http.StatusUnauthorized:
		return "give a valid API key or password; a changed key file is read at the next attempt"
	case e.Cause.Type == "security_exception" || e.Status == http.StatusForbidden && e.Cause.Type != "cluster_block_exception":
		return fmt.Sprintf("the API key or user needs the privileges create_doc and auto_configure on %s-*", n.prefix)
	case strings.Contains(text, "maximum") && strings.Contains(text, "shards"):
		return "delete old indices, or raise cluster.max_shards_per_node"
	case e.Cause.Type == "index_closed_exception":
		return "open the index (POST /INDEX/_open) or delete it"
	case strings.Contains(text, "flood-stage"):
		return "free disk space on the nodes; the block then lifts by itself"
	case e.Cause.Type == "cluster_block_exception":
		return "remove the block: PUT /INDEX/_settings {\"index.blocks.read_only\":null,\"index.blocks.write\":null,\"index.blocks.read_only_allow_delete\":null}"
	case e.Status == http.StatusTooManyRequests:
		return "Elasticsearch is overloaded; this passes, or it needs more memory"
	case e.Cause.Type == "index_not_found_exception":
		return fmt.Sprintf("allow indices to be made: action.auto_create_index must include %s-*", n.prefix)
	case e.Status == http.StatusRequestEntityTooLarge:
		return "raise http.max_content_length, or the limit of the proxy in between"
	case strings.Contains(text, "same priority"):
		return fmt.Sprintf("another index template is for the same indices: choose another --elasticsearch-index, or change its priority from %d", templatePriority)
	case e.Status == http.StatusBadRequest && strings.Contains(strings.ToUpper(text), "HTTPS"):
		return "the node speaks TLS: use https:// in the URL"
	case e.Status/100 == 3 || e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed:
		return "the URL seems not to be Elasticsearch's: check host, port and path"
	case e.Status == http.StatusBadGateway || e.Status == http.StatusServiceUnavailable || e.Status == http.StatusGatewayTimeout:
		return "is the cluster up? GET /_cluster/health should not be red"
	}
	return ""
}
