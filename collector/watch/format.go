package watch

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"swarming/shared/wire"
)

// Format writes w for people: who made it and when, then a table of targets
// with every default spelled out, then the entries that cannot be used. All
// text is quoted or checked, so it is safe on a terminal.
func Format(out io.Writer, w wire.Watch) error {
	b := new(strings.Builder)
	switch {
	case w.Rev == 0:
		fmt.Fprintln(b, "list without rev, published by hand")
	default:
		fmt.Fprintf(b, "rev %d (%s) by %s\n", w.Rev, time.UnixMilli(w.Rev).UTC().Format(time.RFC3339), cmp.Or(w.By, "nobody named"))
	}
	if len(w.Targets) == 0 {
		fmt.Fprintln(b, "no targets: the swarm is told to stop")
	} else {
		formatTargets(b, w.Targets)
	}
	for _, r := range w.Refused {
		fmt.Fprintf(b, "left out: %.70q: %s\n", string(r.Target), r.Reason)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func formatTargets(out io.Writer, targets []wire.Target) {
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "TARGET\tHOST\tPROBE\tINTERVAL\tCOUNT\tGAP\tTIMEOUT\tFAMILY\tNEEDS")
	for _, t := range targets {
		t = t.WithDefaults()
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", t.Target, t.Host, t.Probe, time.Duration(t.Interval), t.Count,
			time.Duration(t.Gap), time.Duration(t.Timeout), t.Family, cmp.Or(strings.Join(t.Needs, ","), "-"))
	}
	tw.Flush() // into a strings.Builder, which never fails
}
