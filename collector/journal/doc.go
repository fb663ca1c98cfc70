// Package journal is a collector's own durable store: every result once, in the
// order of arrival, and beside them events (deaths, changes of agents).
//
// It is one SQLite file. Exporters read it at their own pace and keep a cursor
// in it, people read it with the subcommands while the collector runs, and what
// [Journal.Append] returned for survives the end of the process and of the
// machine (write-ahead log, synchronous=FULL, one transaction per batch).
//
// # What it keeps
//
// The file grows until results are older than the retention or the pages in use
// exceed a limit; then the oldest go, in small chunks between appends. Below a
// reserve of free disk space nothing is accepted any more ([ErrNoSpace]): the
// reserve is the room that deleting needs. Agents keep what was not
// acknowledged and send it again, so that nothing is lost while space is short.
//
// # What may happen to the file
//
// A file that is damaged is renamed aside and a new one begun; a file of a newer
// version, or of another program, is refused and not touched. One collector at
// a time writes, which a lock beside the file ensures.
//
// # Layout
//
// The names of agents, targets, addresses and the like are kept once, in the
// tables boots and words, and a result refers to them by number; times are in
// ms since 1970 UTC, round-trip times in whole microseconds, which is what the
// wire carries. The view readable puts a result together for people with the
// sqlite3 program.
package journal
