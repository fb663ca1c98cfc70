package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"swarming/collector"
	"swarming/collector/config"
	"swarming/collector/watch"
	"swarming/shared/settings"
)

const statusUsage = `swarming-collector status asks a running collector how it goes and prints one
screen. It exits with 0 when all is well, and with 1 when something needs a
person or no collector answers.

Usage:
  swarming-collector status [flags]

Flags:
`

// maxStatus bounds what is read of an answer.
const maxStatus = 64 << 20

func runStatus(args []string, stdout io.Writer) error {
	var listen string
	var asJSON bool
	set := settings.New(config.Program+" status", config.EnvPrefix)
	set.AlsoKnown(config.NewSettings().Set.Names()...)
	config.ListenFlag(set, &listen)
	set.Bool(&asJSON, "json", false, "print what /status answers")
	if done, err := set.ParseOrHelp(args, statusUsage, stdout); done || err != nil {
		return err
	}
	if err := config.CheckListen(listen); err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + listen + "/status")
	if err != nil {
		return fmt.Errorf("ask collector: %w; does it run, and with this --listen?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return fmt.Errorf("read the collector's answer: %w", err)
	}
	var s collector.Status
	if err := json.Unmarshal(body, &s); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("what answers on %s is no collector: %s, %.60q", listen, resp.Status, body)
	}
	if asJSON {
		_, err = stdout.Write(body)
	} else {
		_, err = io.WriteString(stdout, screen(s))
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if len(s.Problems) > 0 {
		return settings.ErrReported
	}
	return nil
}

// screen is a status for people.
func screen(s collector.Status) string {
	b := &strings.Builder{}
	i := s.Ingest
	fmt.Fprintf(b, "collector %s, version %s, up %v\n", i.Name, s.Version, s.Now.Sub(s.Started).Round(time.Second))
	if len(s.Problems) == 0 {
		fmt.Fprintln(b, "all is well")
	}
	for _, p := range s.Problems {
		fmt.Fprintf(b, "PROBLEM  %s\n", p)
	}
	fmt.Fprintf(b, "\nresults: %d stored, %d came again, %d acknowledged, %d missing\n", i.Stored, i.Duplicates, i.Acked, s.Missing)
	for _, l := range s.Losses {
		fmt.Fprintf(b, "  missing: %d of agent %s, boot %s, between %s and %s\n", l.Missing, l.Agent, l.Boot, clock(l.Since), clock(l.Last))
	}
	for kind, reasons := range i.Refused {
		for reason, n := range reasons {
			fmt.Fprintf(b, "  refused: %d %s (%s)\n", n, kind, reason)
		}
	}
	fmt.Fprintf(b, "journal: %d results and %d events in %s, %s free on the disk\n", s.Journal.Results, s.Journal.Events, size(s.Journal.Bytes), size(s.Journal.FreeBytes))
	for _, e := range s.Export {
		fmt.Fprintf(b, "%s: %d %s exported, %d were there, %d rejected, %.0f s behind\n", e.To, e.Exported, e.Stream, e.Duplicates, e.Rejected, e.Lag)
		if e.LastRejected != "" {
			fmt.Fprintf(b, "  last rejected: %s\n", e.LastRejected)
		}
	}
	w := s.Watch
	fmt.Fprintf(b, "watch list: %s\n", list(w))
	tables(b, s)
	return b.String()
}

func list(w watch.Stats) string {
	switch w.Source {
	case "none":
		return "none; publish one with swarming-collector watch set, or give --watch-file"
	case "file":
		return fmt.Sprintf("%d targets, rev %d by %q, from %s", w.Targets, w.Rev, w.By, w.File)
	}
	return fmt.Sprintf("%d targets, rev %d by %q, followed from a broker", w.Targets, w.Rev, w.By)
}

// tables are the brokers and the agents.
func tables(b *strings.Builder, s collector.Status) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nBROKER\tSTATE\tSINCE\tMESSAGES\tDISCARDED\tWATCH LIST\n")
	for n, k := range s.Ingest.Brokers {
		state, shows := "away", ""
		if k.Connected {
			state = "connected"
		}
		if n < len(s.Watch.Brokers) {
			shows = s.Watch.Brokers[n].Shows
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", k.Broker, state, clock(k.Since), k.Messages, k.Discarded, shows)
	}
	fmt.Fprint(t, "\nAGENT\tSTATE\tSEEN\tBROKER\tTARGETS\tREFUSED\tRESULTS\tPENDING\tLOST\tSTRETCH\tVERSION\n")
	const most = 100
	for n, a := range s.Ingest.Agents {
		if n == most {
			fmt.Fprintf(t, "and %d more: see /status\n", len(s.Ingest.Agents)-most)
			break
		}
		state := "silent"
		switch {
		case a.Alive:
			state = "alive"
		case a.Gone != "":
			state = string(a.Gone)
		}
		stretch := "-"
		if a.Stretch > 1 {
			stretch = fmt.Sprintf("%.1f×", a.Stretch)
		}
		fmt.Fprintf(t, "%s\t%s\t%s ago\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", a.Name, state, s.Now.Sub(a.Seen).Round(time.Second), a.Broker, a.Targets,
			len(a.Refusals), a.Results, a.Pending, a.Lost+a.Unconfirmed, stretch, a.Version)
	}
	t.Flush() // into a strings.Builder, which never fails
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
