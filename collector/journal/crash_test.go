package journal

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// crashDir, in the environment, makes the test binary append to the journal in
// that directory until it is killed.
const crashDir = "SWARMING_TEST_JOURNAL_CRASH_DIR"

// readDir, in the environment, makes the test binary print how many results it
// can read in that directory.
const readDir = "SWARMING_TEST_JOURNAL_READ_DIR"

func readOnce(dir string) {
	j, err := OpenReadOnly(context.Background(), dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	n := 0
	for _, err := range j.Results(context.Background(), Filter{}) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		n++
	}
	fmt.Println(n)
	os.Exit(0)
}

// appendForEver appends batches and prints, after each, the last sequence number
// that Append has returned for.
func appendForEver(dir string) {
	j, err := Open(context.Background(), Options{Dir: dir, Reserve: -1, MaxBytes: 64 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go j.Run(context.Background())
	next := uint64(1)
	if losses, _ := j.Losses(context.Background()); len(losses) > 0 {
		next = losses[0].MaxSeq + 1
	}
	for {
		batch := entries(1, 1+rand.IntN(200), next)
		next += uint64(len(batch))
		if n, err := j.Append(context.Background(), batch); err != nil || n != len(batch) {
			fmt.Fprintln(os.Stderr, "stored", n, "of", len(batch), err)
			os.Exit(1)
		}
		fmt.Println(next - 1)
	}
}

// What Append returned for is there after the process was killed at any moment,
// several times over.
func TestKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	var promised uint64
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed from another goroutine, so that it happens anywhere in its loop.
		kill := time.AfterFunc(time.Duration(100+rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		before := promised
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &promised); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if promised == before {
				t.Fatal("nothing was promised")
			}
		}
		_ = cmd.Wait() // killed
		if !kill.Stop() && cmd.ProcessState.Success() {
			t.Fatal("the process ended by itself")
		}
		checkPromise(t, dir, promised)
	}
	if promised == 0 {
		t.Fatal("the process was always killed before it had stored anything")
	}
	t.Logf("%d results promised, all there", promised)
}

func checkPromise(t *testing.T, dir string, promised uint64) {
	t.Helper()
	j := open(t, Options{Dir: dir})
	defer j.Close()
	if st := j.Stats(); st.Damaged != "" {
		t.Fatalf("journal was damaged, see %s", st.Damaged)
	}
	next := uint64(1)
	for row, err := range j.Results(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if row.Result.Seq != next {
			t.Fatalf("seq %d is missing of %d promised", next, promised)
		}
		next++
	}
	if next <= promised {
		t.Fatalf("results end at %d, %d were promised", next-1, promised)
	}
}
