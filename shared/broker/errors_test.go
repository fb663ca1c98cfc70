package broker

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// TestClassifyNetwork has what cannot be provoked without a network.
func TestClassifyNetwork(t *testing.T) {
	a, err := ParseAddress("broker.example:1884")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, tt := range []struct {
		err  error
		kind Kind
		hint string
	}{
		{dial(&net.DNSError{Err: "no such host", Name: a.host, IsNotFound: true}), KindNoSuchHost, `no name server knows "broker.example"`},
		{dial(&net.DNSError{Err: "server misbehaving", Name: a.host, IsTemporary: true}), KindResolver, "is this machine online?"},
		{dial(&net.DNSError{Err: "i/o timeout", Name: a.host, IsTimeout: true}), KindResolver, "is this machine online?"},
		{dial(os.NewSyscallError("connect", connRefused)), KindRefused, "add `listener 1884` and `allow_anonymous true`"},
		{dial(os.NewSyscallError("connect", netUnreachable)), KindUnreachable, "no route to broker.example"},
		{dial(os.NewSyscallError("connect", hostUnreachable)), KindUnreachable, "no route to broker.example"},
		{dial(os.ErrDeadlineExceeded), KindTimeout, "a firewall in between"},
		{dial(context.DeadlineExceeded), KindTimeout, "a firewall in between"},
		{dial(context.Canceled), KindCanceled, ""},
		{fmt.Errorf("read: %w", connReset), KindClosed, "try mqtts://broker.example:1884"},
		{dial(fmt.Errorf("something new")), KindOther, ""},
	} {
		e := explain(a, tt.err)
		if e.Kind != tt.kind || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%v: got %s %q, want %s %q", tt.err, e.Kind, e.Hint, tt.kind, tt.hint)
		}
	}
}
