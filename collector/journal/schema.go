package journal

// FileName is the journal's file inside its directory. SQLite keeps two more
// beside it while it is open, with -wal and -shm at the end.
const FileName = "journal.db"

// applicationID marks the file as ours in its header ("swrm"), so that another
// program's database is never written to.
const applicationID = 0x7377726d

// schemaVersion is kept in the header as user_version. A file with a higher one
// was written by a newer collector.
const schemaVersion = 1

// schema creates version 1. AUTOINCREMENT everywhere: an id, once used, never
// names anything else, which cursors and readers' caches rely on.
const schema = `
-- A process of an agent. stored counts the results ever stored, whatever
-- retention has deleted since. In this table and the next, no result that refers
-- to a row has an id above used + 20,000.
CREATE TABLE boots (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	agent TEXT NOT NULL,
	boot TEXT NOT NULL,
	min_seq INTEGER NOT NULL,
	max_seq INTEGER NOT NULL,
	stored INTEGER NOT NULL,
	first_received INTEGER NOT NULL,
	last_received INTEGER NOT NULL,
	used INTEGER NOT NULL,
	UNIQUE (agent, boot)
) STRICT;
CREATE INDEX boots_used ON boots (used);

-- Targets, addresses, brokers and other words of results.
CREATE TABLE words (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	word TEXT NOT NULL UNIQUE,
	used INTEGER NOT NULL
) STRICT;
CREATE INDEX words_used ON words (used);

-- Times are ms since 1970 UTC, *_us microseconds; rtts is a sequence of varints
-- (7 bits a byte, least significant first) of microseconds, 0 for a lost packet.
CREATE TABLE results (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	boot INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	at INTEGER NOT NULL,
	received INTEGER NOT NULL,
	broker INTEGER,
	target INTEGER,
	probe INTEGER,
	addr INTEGER,
	family INTEGER NOT NULL,
	sent INTEGER NOT NULL,
	recv INTEGER NOT NULL,
	late INTEGER NOT NULL,
	loss REAL,
	min_us INTEGER,
	avg_us INTEGER,
	max_us INTEGER,
	stddev_us INTEGER,
	rtts BLOB,
	cause INTEGER,
	sender INTEGER,
	stamp INTEGER,
	UNIQUE (boot, seq)
) STRICT;

CREATE TABLE events (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	at INTEGER NOT NULL,
	received INTEGER NOT NULL,
	kind TEXT NOT NULL,
	agent TEXT NOT NULL,
	boot TEXT NOT NULL,
	conn INTEGER NOT NULL,
	reason TEXT NOT NULL,
	broker TEXT NOT NULL,
	detail TEXT
) STRICT;
-- A death is one event, however many brokers tell of it.
CREATE UNIQUE INDEX events_rip ON events (agent, boot, conn, reason) WHERE kind = 'rip' AND boot <> '';

CREATE TABLE agents (
	name TEXT PRIMARY KEY,
	boot TEXT NOT NULL,
	labels TEXT NOT NULL, -- a JSON object
	version TEXT NOT NULL,
	os TEXT NOT NULL,
	arch TEXT NOT NULL,
	seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far an exporter is; lost counts what retention deleted before it was.
CREATE TABLE cursors (
	name TEXT PRIMARY KEY,
	id INTEGER NOT NULL,
	lost INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW readable AS
SELECT r.id, b.agent, b.boot, r.seq,
	strftime('%Y-%m-%dT%H:%M:%fZ', r.at / 1000.0, 'unixepoch') AS at,
	strftime('%Y-%m-%dT%H:%M:%fZ', r.received / 1000.0, 'unixepoch') AS received,
	wb.word AS broker, wt.word AS target, wp.word AS probe, wa.word AS addr, r.family,
	r.sent, r.recv, r.late, r.loss,
	r.min_us / 1000.0 AS min, r.avg_us / 1000.0 AS avg, r.max_us / 1000.0 AS max, r.stddev_us / 1000.0 AS stddev,
	wc.word AS cause, wf.word AS sender, ws.word AS stamp
FROM results r JOIN boots b ON b.id = r.boot
	LEFT JOIN words wb ON wb.id = r.broker
	LEFT JOIN words wt ON wt.id = r.target
	LEFT JOIN words wp ON wp.id = r.probe
	LEFT JOIN words wa ON wa.id = r.addr
	LEFT JOIN words wc ON wc.id = r.cause
	LEFT JOIN words wf ON wf.id = r.sender
	LEFT JOIN words ws ON ws.id = r.stamp;
`
