// Package journal is a collector's own durable store: every result once, in the
// order of arrival, and beside them events (deaths, changes of agents).
//
// It is one SQLite file. Exporters read it at their own pace and keep a cursor in
// it, people read it with the subcommands while the collector runs, and what
// [Journal.Append] returned for survives the end of the process and of the machine
// (write-ahead log, synchronous=FULL, one transaction per batch).
//
// # What it keeps
//
// The file grows until results are older than the retention or the pages in use
// exceed a limit; then the oldest go, a thousand at a time between appends, and
// their pages are used again. Below a reserve of free disk space nothing is
// accepted any more ([ErrNoSpace]): the reserve is the room that deleting needs,
// because SQLite cannot even delete on a full disk. Agents keep what was not
// acknowledged and send it again, so that nothing is lost while space is short.
//
// What an exporter had not read when retention deleted it is counted as lost
// beside its cursor. For each process of an agent the first and the last sequence
// number and the number of results stored are kept for as long as it has results
// here, so that a loss can be proved from outside ([Journal.Losses]).
//
// # What may happen to the file
//
// A file that is damaged, as found by a check of up to five seconds when it is
// opened or by SQLite later, is renamed aside and a new one begun, with a loud
// line in the log; nothing is salvaged from the old one. In a running process ids
// go on from where they were, so that an exporter notices nothing but the gap. A
// file that somebody removed is begun again within a second. A file of a newer
// version, or of another program, is refused and not touched. One collector at a
// time writes, which a lock on a file beside it ensures.
//
// # Bounds
//
// Results, events, boots and words are bounded by retention, agents by
// [MaxAgents], cursors by [MaxCursors], damaged files by ten, the caches of names
// by 50,000 each, pages of readers by 10,000 rows, the log by about 32 MB unless
// another program holds a read transaction open.
//
// # Layout
//
// The names of agents, targets, addresses and the like are kept once, in the
// tables boots and words, and a result refers to them by number; times are in ms
// since 1970 UTC, round-trip times in whole microseconds, which is what the wire
// carries. The view readable puts a result together for people with the sqlite3
// program.
//
// # Measured
//
// On two shared cores (BenchmarkAppend): 83 bytes a result, where the plain
// layout, every name in every row and in the index of identities, takes 247;
// 131,000 results/s in batches of 1000, 49,000 in batches of 100, 2,300 one by
// one. SQLite takes 355,000 rows of one integer there. Reading as an exporter
// does: 237,000 results/s. Looking for one agent's results passes over 11 million
// rows/s.
//
// What dominates is SQLite's own machine: inserting into the table and its index
// of identities is 55 % of the time and binding the 22 values 15 %; the commit is
// 15 %, of which the sync is a third; finding names is 1 %. Inserts of many rows
// in one statement were slower than single prepared ones (in any number from 20 to
// 100), larger pages no faster.
//
// SQLite comes as a translation to Go (modernc.org/sqlite), so there is no C
// compiler to need: it runs on linux, darwin, freebsd and windows for amd64,
// arm64, 386 and arm where these exist, riscv64, ppc64le, s390x and loong64. It is
// not there for mips, where an agent runs but a collector does not.
package journal
