package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"swarming/shared/wire"
)

func result(agent wire.AgentName, seq uint64, target wire.TargetID, ms float64) wire.Result {
	r := wire.Result{Agent: agent, Boot: "b", Seq: seq, At: time.Now(), Target: target, Probe: "icmp", Sent: 1, RTTs: wire.RTTs{ms}}
	r.Summarise()
	if r.Recv == 0 {
		r.Cause = wire.CauseTimeout
	}
	return r
}

// The demo succeeds only if every agent has an answer, no number is missing and
// none is stored twice.
func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name    string
		results []wire.Result
		want    string // in the error; "": none
	}{
		{"well", []wire.Result{result("a", 1, "x", 1), result("b", 2, "x", 1), result("b", 1, "x", 0)}, ""},
		{"nothing", nil, "no answer was stored of a, b"},
		{"one silent", []wire.Result{result("a", 1, "x", 1), result("b", 1, "x", 0)}, "no answer was stored of b"},
		{"a gap", []wire.Result{result("a", 1, "x", 1), result("b", 1, "x", 1), result("b", 3, "x", 1)}, "1 results are missing"},
		{"twice", []wire.Result{result("a", 1, "x", 1), result("b", 1, "x", 1), result("b", 1, "x", 1)}, "1 are stored twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &swarm{stats: newStatistics([]wire.AgentName{"a", "b"}, []demoTarget{{id: "x"}})}
			for _, r := range tt.results {
				s.stats.add(r, time.Now())
			}
			err := s.verdict(func(string, ...any) {})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verdict %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	s := newStatistics([]wire.AgentName{"a", "b"}, []demoTarget{{id: "x"}, {id: "y"}})
	for i, ms := range []float64{3, 0, 1, 2} {
		s.add(result("a", uint64(i+1), "x", ms), time.Now())
	}
	s.add(result("b", 1, "y", 0), time.Now())
	table := s.table()
	if len(table) != 4 {
		t.Fatalf("%q", table)
	}
	for _, tt := range []struct{ line, want string }{{table[2], "25%      2ms"}, {table[3], "100%  timeout"}} {
		if !strings.Contains(tt.line, tt.want) {
			t.Errorf("row %q lacks %q", tt.line, tt.want)
		}
		if n := len([]rune(tt.line)); n > 80 {
			t.Errorf("row of %d columns", n)
		}
	}
}

// Elsewhere than on a terminal there are plain lines and no escape codes.
func TestPlainScreen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.say("broker %d stops", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.run(ctx, func() []string { return []string{"row"} }); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "broker 1 stops\n") || !strings.Contains(got, "row\n") || strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
}
