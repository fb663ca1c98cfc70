package settings

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		err            error
		code           int
		stdout, stderr string
	}{
		{nil, 0, "", ""},
		{ErrVersion, 0, "prog v1\n", ""},
		{fmt.Errorf("wrapped: %w", ErrReported), 1, "", ""},
		{errors.New("it broke"), 1, "", "prog: it broke\n"},
		{Usagef("try x", "bad %q", "y"), 2, "", "prog: bad \"y\"\nhint: try x\n"},
	} {
		var out, errs bytes.Buffer
		code := Exit("prog", "v1", tt.err, &out, &errs)
		if code != tt.code || out.String() != tt.stdout || errs.String() != tt.stderr {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", tt.err, code, out.String(), errs.String())
		}
	}
}

func TestParseOrHelp(t *testing.T) {
	var n int
	set := New("prog sub", "")
	set.Int(&n, "count", 5, "how many")
	var out bytes.Buffer
	if done, err := set.ParseOrHelp([]string{"--help"}, "intro\n", &out); !done || err != nil {
		t.Errorf("done %v, err %v", done, err)
	}
	if s := out.String(); !strings.HasPrefix(s, "intro\n") || !strings.Contains(s, "--count") {
		t.Errorf("%q", s)
	}
	set = New("prog sub", "")
	set.Int(&n, "count", 5, "how many")
	if done, err := set.ParseOrHelp([]string{"--count", "7"}, "", &out); done || err != nil || n != 7 {
		t.Errorf("done %v, err %v, count %d", done, err, n)
	}
}
