package main

import (
	"strings"
	"testing"
)

const good = `go test -json ./...
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA/sub","Elapsed":0}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"pass","Package":"p","Elapsed":0.25}
{"Action":"skip","Package":"empty","Elapsed":0}
`

func TestReportOfAShortRun(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	r.short = true
	in := good + `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: needs a broker: not with -short\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
`
	if err := r.read(strings.NewReader(in)); err != nil || !r.finish() {
		t.Errorf("a short run may not skip what it needs (%v):\n%s", err, &out)
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, in string
		ok       bool
		want     []string // parts of the report
	}{
		{"good", good, true, []string{"go test -json ./...\n", "ok    p  0.2s\n",
			"go test ok: 1 packages (0 failed), 1 tests passed, 0 failed, 0 skipped (0 for what is lacking)\n"}},
		{"nothing", "", false, []string{"go test FAILED: 0 packages"}},
		{"failed", good + `{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:1: boom\n"}
{"Action":"fail","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Output":"exit status 2\n"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.1s\n"}
{"Action":"fail","Package":"q"}
`, false, []string{"b_test.go:1: boom\nexit status 2\nFAIL  q", "2 packages (1 failed), 1 tests passed, 1 failed"}},
		{"cut off", good + `{"Action":"output","Package":"q","Test":"TestB","Output":"panic: boom\n"}
{"Action":"fail","Package":"q"}`, false, []string{"panic: boom\n"}},
		{"does not compile", good + `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: undefined: x\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
`, false, []string{"undefined: x\n", "FAIL  q"}},
		{"skipped for a reason", good + `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: short\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
`, true, []string{"skip  p TestC: short\n", "1 skipped (0 for"}},
		{"skipped for lack", good + `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: needs mosquitto: not found\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
`, false, []string{"skip  p TestC: needs mosquitto: not found\n", "go test FAILED", "1 skipped (1 for"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if ok := r.finish(); ok != c.ok {
				t.Errorf("all well: %v, want %v", ok, c.ok)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("the report lacks %q:\n%s", w, &out)
				}
			}
		})
	}
}
