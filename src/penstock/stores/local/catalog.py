"""The catalog: every SQL statement of the local store. Blocking; one `Catalog` is one connection, for one thread."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from penstock.errors import StorageFailed, StorageFull
from penstock.model import Buffer, Origin, Producer, ProducerState, StreamInfo, Usage

EngineError = sqlite3.Error
"""What the engine raises; `translated` turns it into an error of the domain."""

_LONGEST_LOG = 16 * 1024 * 1024
_UPDATES_FROM = sqlite3.sqlite_version_info >= (3, 33)
_GROUPS = (64, 16, 4, 1)
_PAGE = 4096
_MOST_PAGES = 2**30

SCHEMA_VERSION = 4
NOBODY = ""
"""The instance of an unsettled file whose stream was deleted."""

_SCHEMA = """
CREATE TABLE streams (
    key INTEGER PRIMARY KEY,
    incarnation TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    published INTEGER NOT NULL,
    instance TEXT,                  -- who writes it, while it is provisional
    content_type TEXT NOT NULL,
    tail INTEGER NOT NULL,
    filed INTEGER NOT NULL,         -- up to where the bytes are in the file; those from there to the tail are in chunks
    synced INTEGER NOT NULL,        -- how many of the filed bytes are known to be on the disk
    closed INTEGER NOT NULL,
    failure TEXT,
    length INTEGER,
    metadata TEXT,
    created_at REAL NOT NULL,
    modified_at REAL NOT NULL,
    ttl REAL,
    expires_at REAL,
    deadline REAL,
    digests TEXT,
    upload INTEGER NOT NULL,
    upload_ttl REAL,
    writer TEXT,
    owner TEXT,
    label TEXT,                     -- the owner's key
    attributes TEXT,
    start INTEGER NOT NULL,
    origin_name TEXT,
    origin TEXT,                    -- the incarnation that has the bytes before the start
    deleted INTEGER NOT NULL,
    renewed_at REAL NOT NULL,
    trim_at REAL
);
CREATE UNIQUE INDEX streams_by_name ON streams (name) WHERE published;
CREATE INDEX streams_by_deadline ON streams (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX streams_by_instance ON streams (instance) WHERE instance IS NOT NULL;
CREATE INDEX streams_by_owner ON streams (owner) WHERE owner IS NOT NULL;
CREATE INDEX streams_by_label ON streams (label) WHERE label IS NOT NULL;
CREATE INDEX streams_by_origin ON streams (origin) WHERE origin IS NOT NULL;
CREATE INDEX streams_deleted ON streams (deleted) WHERE deleted;
CREATE INDEX streams_by_trim_at ON streams (trim_at) WHERE trim_at IS NOT NULL;

-- Not WITHOUT ROWID: rows of many kilobytes are better appended than kept in the order of a key.
CREATE TABLE chunks (stream INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX chunks_by_start ON chunks (stream, start);

CREATE TABLE producers (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) WITHOUT ROWID;

-- Files that may differ from what the streams say: being written by an instance, or left over by a deletion.
CREATE TABLE unsettled (incarnation TEXT NOT NULL, instance TEXT NOT NULL, PRIMARY KEY (incarnation, instance))
WITHOUT ROWID;
"""

_UPGRADE_FROM_1 = """
DROP INDEX streams_by_deadline;
DROP INDEX streams_by_owner;
ALTER TABLE streams RENAME COLUMN owner TO instance;
ALTER TABLE streams ADD COLUMN upload INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN upload_ttl REAL;
ALTER TABLE streams ADD COLUMN writer TEXT;
ALTER TABLE streams ADD COLUMN owner TEXT;
ALTER TABLE streams ADD COLUMN label TEXT;
ALTER TABLE streams ADD COLUMN attributes TEXT;
UPDATE streams SET synced = CASE WHEN synced THEN filed ELSE 0 END;
CREATE INDEX streams_by_deadline ON streams (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX streams_by_instance ON streams (instance) WHERE instance IS NOT NULL;
CREATE INDEX streams_by_owner ON streams (owner) WHERE owner IS NOT NULL;
CREATE INDEX streams_by_label ON streams (label) WHERE label IS NOT NULL;
"""

_UPGRADE_FROM_2 = """
ALTER TABLE streams ADD COLUMN start INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN origin_name TEXT;
ALTER TABLE streams ADD COLUMN origin TEXT;
ALTER TABLE streams ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN renewed_at REAL NOT NULL DEFAULT 0;
CREATE INDEX streams_by_origin ON streams (origin) WHERE origin IS NOT NULL;
CREATE INDEX streams_deleted ON streams (deleted) WHERE deleted;
"""

_UPGRADE_FROM_3 = """
ALTER TABLE streams ADD COLUMN trim_at REAL;
CREATE INDEX streams_by_trim_at ON streams (trim_at) WHERE trim_at IS NOT NULL;
"""

_CHANGES = (
    _SCHEMA,
    _UPGRADE_FROM_1 + _UPGRADE_FROM_2 + _UPGRADE_FROM_3,
    _UPGRADE_FROM_2 + _UPGRADE_FROM_3,
    _UPGRADE_FROM_3,
)
"""What there is to do for a folder of each version, from none on."""

_NAMES = (
    *("incarnation", "name", "published", "instance", "content_type", "tail", "filed", "synced", "closed", "failure"),
    *("length", "metadata", "created_at", "modified_at", "ttl", "expires_at", "digests"),
    *("upload", "upload_ttl", "writer", "owner", "label", "attributes"),
    *("start", "origin_name", "origin", "deleted", "renewed_at", "trim_at"),
)
_COLUMNS = ", ".join(("key", *_NAMES))
_INSERT = f"INSERT INTO streams ({', '.join(_NAMES)}, deadline) VALUES ({'?, ' * len(_NAMES)}?)"
_UPDATE = f"UPDATE streams SET {', '.join(f'{name} = ?' for name in _NAMES)}, deadline = ? WHERE key = ?"


@cache
def _of_group(sql: str, width: int, size: int) -> str:
    """Return a statement with the places of so many rows of so many values."""
    row = f"({', '.join('?' * width)})"
    return sql.format(", ".join([row] * size))


@dataclass(slots=True, kw_only=True)
class Head:
    """A stream as the catalog has it: its state, and where its bytes are.

    Attributes:
        key: of the row.
        info: the state.
        filed: up to which offset the bytes are in the file. They stand there at their offsets, so that the file of a
            stream that does not begin at 0 begins with a hole.
        synced: up to which offset they are known to be on the disk.
        instance: who writes it, while it is provisional.
    """

    key: int
    info: StreamInfo
    filed: int = 0
    synced: int = 0
    instance: str | None = None

    @classmethod
    def before(cls, info: StreamInfo) -> Self:
        """Return the head of a stream that is to be created, before it has any bytes of its own."""
        start = info.start
        begun = StreamInfo(name=info.name, incarnation=info.incarnation, start=start, tail=start, origin=info.origin)
        return cls(key=0, info=begun, filed=start, synced=start)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the engine's errors, and the operating system's, into the domain's."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(error) from error


def translate(error: Exception) -> StorageFull | StorageFailed:
    """Return the error of the domain for one of the engine's or of the operating system's."""
    import errno

    if isinstance(error, OSError):
        # EFBIG: the process's own limit on a file's size, which is a full disk in small.
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return StorageFull()
    elif getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFull()
    return StorageFailed(f"The storage reported an error: {error}")


class Catalog:
    """One connection to the catalog. Writes belong between `begin` and `commit`."""

    def __init__(self, path: Path) -> None:
        # isolation_level=None: transactions are begun and ended by hand. check_same_thread: the store closes the
        # connections of its threads when those have ended.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 67108864")
        # Some builds of SQLite overwrite what is deleted with zeros: that is twice the writing, and needs room.
        self._db.execute("PRAGMA secure_delete = OFF")
        self._durable = True
        self._grows = True

    def close(self) -> None:
        """Close the connection. Again is harmless."""
        self._db.close()

    def keep_log_below(self, size: int) -> None:
        """Have the log moved into the database whenever it is longer, by who commits then; a transaction is not split.

        The longer it is, the rarer the fsyncs of the database file; and 16 MiB are still a short log to recover.
        """
        self._db.execute(f"PRAGMA wal_autocheckpoint = {min(size, _LONGEST_LOG) // _PAGE}")

    def has_free_pages(self) -> bool:
        """Tell whether deletions left room within the database."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return bool(free)

    def checkpoint(self) -> bool:
        """Move the log into the database, and give its room back; tell whether that could be done."""
        try:
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except EngineError:
            return False
        return not busy

    def migrate(self) -> None:
        """Create the tables where there are none, and bring those of an older version up to date."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StorageFailed(
                f"The data folder was written by a newer penstock (format {version}; this one knows {SCHEMA_VERSION})."
            )
        if version < SCHEMA_VERSION:
            changes = _CHANGES[version]
            self._db.executescript(f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    # -- transactions ---------------------------------------------------------------------------------------------

    def begin(self, *, durable: bool, grow: bool = True) -> None:
        """Begin to write. A durable commit is on the disk when it returns; others are with the operating system.

        Where the database may not grow, only what fits into its free pages can be written.
        """
        if durable != self._durable:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._db.execute("BEGIN IMMEDIATE")
        if grow != self._grows:
            self._db.execute(f"PRAGMA max_page_count = {_MOST_PAGES if grow else 1}")  # never below what there is
            self._grows = grow

    def commit(self) -> None:
        """End the transaction: all of it is there."""
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction: nothing of it is there."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several reads see one state."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self.rollback()

    # -- streams --------------------------------------------------------------------------------------------------

    def by_name(self, name: str) -> Head | None:
        """Return what a name shows."""
        return self._one(f"SELECT {_COLUMNS} FROM streams WHERE name = ? AND published", (name,))

    def by_names(self, names: Sequence[str]) -> list[Head]:
        """Return what names show, of those that show something, in any order."""
        found: list[Head] = []
        at = 0
        for size in _GROUPS:
            while len(names) - at >= size:
                places = ", ".join("?" * size)
                sql = f"SELECT {_COLUMNS} FROM streams WHERE published AND name IN ({places})"
                found += self._all(sql, names[at : at + size])
                at += size
        return found

    def by_incarnation(self, incarnation: str) -> Head | None:
        """Return an incarnation, published or not."""
        return self._one(f"SELECT {_COLUMNS} FROM streams WHERE incarnation = ?", (incarnation,))

    def head(self, name: str, incarnation: str | None = None) -> Head | None:
        """Return what a name shows, or an incarnation of it, published or not."""
        if incarnation is None:
            return self.by_name(name)
        head = self.by_incarnation(incarnation)
        return head if head is not None and head.info.name == name else None

    def by_key(self, key: int) -> Head | None:
        """Return a stream by its key."""
        return self._one(f"SELECT {_COLUMNS} FROM streams WHERE key = ?", (key,))

    def written_by(self, instance: str) -> list[Head]:
        """Return the provisional streams that an instance was writing."""
        return self._all(f"SELECT {_COLUMNS} FROM streams WHERE instance = ?", (instance,))

    def labelled(self, owner: str | None, label: str) -> StreamInfo | None:
        """Return an owner's youngest stream of a key."""
        head = self._one(
            f"""SELECT {_COLUMNS} FROM streams WHERE label = ? AND owner IS ? AND NOT deleted
            ORDER BY created_at DESC LIMIT 1""",
            (label, owner),
        )
        return None if head is None else head.info

    def usage(self, owner: str) -> Usage:
        """Count what an owner has."""
        row = self._row(
            """SELECT count(*), coalesce(sum(max(tail, coalesce(length, 0))), 0) FROM streams
            WHERE owner = ? AND NOT deleted""",
            (owner,),
        )
        assert row is not None  # noqa: S101 - a count is a row
        return Usage(row[0], row[1])

    def listing(self, prefix: str, after: str, limit: int) -> list[StreamInfo]:
        """Return published streams by name. SQLite compares text as UTF-8 bytes, as the contract wants it."""
        rows = self._all(
            f"""SELECT {_COLUMNS} FROM streams WHERE published AND NOT deleted AND name > ? AND name >= ?
            ORDER BY name LIMIT ?""",
            (after, prefix, limit),
        )
        # The names with a prefix stand together, so the first other one ends them.
        found: list[StreamInfo] = []
        for head in rows:
            if not head.info.name.startswith(prefix):
                break
            found.append(head.info)
        return found

    def expired(self, now: float, limit: int) -> list[StreamInfo]:
        """Return streams whose deadline has come, but for what an instance is writing unseen."""
        rows = self._all(
            f"""SELECT {_COLUMNS} FROM streams WHERE deadline <= ? AND (published OR instance IS NULL)
            ORDER BY deadline LIMIT ?""",
            (now, limit),
        )
        return [head.info for head in rows]

    def forks(self, incarnation: str) -> int:
        """Count the streams that begin with the bytes of an incarnation."""
        row = self._row("SELECT count(*) FROM streams WHERE origin = ?", (incarnation,))
        return 0 if row is None else row[0]

    def overdue(self, now: float, limit: int) -> list[StreamInfo]:
        """Return published streams of which something has become too old."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM streams WHERE published AND trim_at <= ? ORDER BY trim_at LIMIT ?", (now, limit)
        )
        return [head.info for head in rows]

    def orphans(self, limit: int) -> list[StreamInfo]:
        """Return streams that were deleted, and have no forks any more."""
        rows = self._all(
            f"""SELECT {_COLUMNS} FROM streams AS one WHERE deleted AND NOT EXISTS
            (SELECT 1 FROM streams AS other WHERE other.origin = one.incarnation) LIMIT ?""",
            (limit,),
        )
        return [head.info for head in rows]

    def insert(self, head: Head) -> int:
        """Add a stream, and return its key."""
        cursor = self._db.execute(_INSERT, _values(head))
        assert cursor.lastrowid is not None  # noqa: S101 - an INSERT has one
        return cursor.lastrowid

    def update(self, head: Head) -> None:
        """Write a stream's state."""
        self._db.execute(_UPDATE, (*_values(head), head.key))

    def grow(self, heads: Sequence[Head]) -> None:
        """Write what appends change of states, at less than a third of the cost of `update` (4 against 15 us)."""
        rows = [(info.tail, info.modified_at, info.deadline, head.key) for head in heads for info in (head.info,)]
        # One statement for many takes 65 us to begin with, which are 15 times that of one row.
        together = len(rows) - len(rows) % _GROUPS[1] if _UPDATES_FROM else 0
        self._in_groups(
            "UPDATE streams SET tail = new.column1, modified_at = new.column2, deadline = new.column3"
            " FROM (VALUES {}) AS new WHERE key = new.column4",
            rows[:together],
        )
        self._db.executemany(
            "UPDATE streams SET tail = ?, modified_at = ?, deadline = ? WHERE key = ?", rows[together:]
        )

    def remove(self, key: int) -> None:
        """Remove a stream, with what the catalog holds of its bytes and producers."""
        self._db.execute("DELETE FROM streams WHERE key = ?", (key,))
        self.drop_all_chunks(key)
        self._db.execute("DELETE FROM producers WHERE stream = ?", (key,))

    # -- small appends --------------------------------------------------------------------------------------------

    def add_chunks(self, rows: Sequence[tuple[int, int, Buffer]]) -> None:
        """Keep bytes: of which stream (its key), the offset where they begin, and the bytes."""
        self._in_groups("INSERT INTO chunks (stream, start, data) VALUES {}", rows)

    def chunks(self, key: int, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks that hold bytes of ``start`` to ``stop``, with their offsets, in order."""
        return self._db.execute(
            """SELECT start, data FROM chunks WHERE stream = ?1 AND start < ?3 AND start >=
            coalesce((SELECT max(start) FROM chunks WHERE stream = ?1 AND start <= ?2), ?2) ORDER BY start""",
            (key, start, stop),
        )

    def drop_chunks(self, key: int, stop: int) -> None:
        """Forget the chunks that begin before offset ``stop``: those bytes are in the file now."""
        self._db.execute("DELETE FROM chunks WHERE stream = ? AND start < ?", (key, stop))

    def drop_all_chunks(self, key: int) -> None:
        """Forget all chunks of a stream."""
        self._db.execute("DELETE FROM chunks WHERE stream = ?", (key,))

    def drop_beginning(self, key: int, start: int) -> int:
        """Forget the chunks that end at or before offset ``start``, and return where the last of them ended, or 0."""
        row = self._row(
            "SELECT max(start + length(data)) FROM chunks WHERE stream = ? AND start + length(data) <= ?", (key, start)
        )
        dropped = 0 if row is None or row[0] is None else row[0]
        if dropped:
            self.drop_chunks(key, dropped)
        return dropped

    # -- producers ------------------------------------------------------------------------------------------------

    def producer(self, key: int, producer: str) -> ProducerState | None:
        """Return the last accepted append of a producer."""
        row = self._row("SELECT epoch, sequence, tail FROM producers WHERE stream = ? AND id = ?", (key, producer))
        return None if row is None else ProducerState(Producer(producer, row[0], row[1]), row[2])

    def keep_producer(self, key: int, state: ProducerState) -> None:
        """Keep the last accepted append of a producer."""
        known = state.producer
        self._db.execute(
            "INSERT OR REPLACE INTO producers (stream, id, epoch, sequence, tail) VALUES (?, ?, ?, ?, ?)",
            (key, known.id, known.epoch, known.sequence, state.offset),
        )

    # -- unsettled files ------------------------------------------------------------------------------------------

    def unsettle(self, incarnation: str, instance: str) -> None:
        """Note that a file may come to differ from what the catalog says."""
        self._db.execute(
            "INSERT OR IGNORE INTO unsettled (incarnation, instance) VALUES (?, ?)", (incarnation, instance)
        )

    def settle(self, incarnation: str, instance: str) -> None:
        """Note that the file is as the catalog says, as far as ``instance`` is concerned."""
        self._db.execute("DELETE FROM unsettled WHERE incarnation = ? AND instance = ?", (incarnation, instance))

    def unsettled(self, instance: str) -> list[str]:
        """Return the incarnations whose files an instance left unsettled."""
        return [row[0] for row in self._db.execute("SELECT incarnation FROM unsettled WHERE instance = ?", (instance,))]

    # -- rows -----------------------------------------------------------------------------------------------------

    def _one(self, sql: str, values: Sequence[Any]) -> Head | None:
        row = self._row(sql, values)
        return None if row is None else _head(row)

    def _row(self, sql: str, values: Sequence[Any]) -> Sequence[Any] | None:
        try:
            row: Sequence[Any] | None = self._db.execute(sql, values).fetchone()
        except (UnicodeError, OverflowError) as error:  # a text with half a character, an integer of 65 bits
            raise StorageFailed(f"A value cannot be stored: {error}") from error
        return row

    def _in_groups(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for many rows of values, which stand in the place of ``{}``: as few times as can be.

        Each statement gives up the interpreter's lock and has to get it back, which takes as long as the event loop
        likes to keep it. For 32 appends to as many streams that are 2 times instead of 64.
        """
        at = 0
        for size in _GROUPS:  # a few sizes only: their statements stay prepared
            while len(rows) - at >= size:
                group = rows[at : at + size]
                self._db.execute(_of_group(sql, len(group[0]), size), [value for row in group for value in row])
                at += size

    def _all(self, sql: str, values: Sequence[Any]) -> list[Head]:
        return [_head(row) for row in self._db.execute(sql, values)]


@lru_cache(1024)
def _attributes(text: str) -> Mapping[str, Any]:
    """Return attributes, the same ones for all who look at a stream that has not changed in that."""
    attributes: dict[str, Any] = json.loads(text)
    return MappingProxyType(attributes)


def _head(row: Sequence[Any]) -> Head:
    optional: dict[str, Any] = {}
    if row[12] is not None:
        optional["metadata"] = json.loads(row[12])
    if row[17] is not None:
        optional["digests"] = {name: b64decode(value) for name, value in json.loads(row[17]).items()}
    if row[23] is not None:
        optional["attributes"] = _attributes(row[23])
    info = StreamInfo(
        incarnation=row[1],
        name=row[2],
        published=bool(row[3]),
        provisional=row[4] is not None,
        content_type=row[5],
        tail=row[6],
        closed=bool(row[9]),
        failure=row[10],
        length=row[11],
        created_at=row[13],
        modified_at=row[14],
        ttl=row[15],
        expires_at=row[16],
        upload=bool(row[18]),
        upload_ttl=row[19],
        writer=row[20],
        owner=row[21],
        key=row[22],
        start=row[24],
        origin=None if row[26] is None else Origin(row[25], row[26]),
        deleted=bool(row[27]),
        renewed_at=row[28],
        trim_at=row[29],
        **optional,
    )
    return Head(key=row[0], info=info, filed=row[7], synced=row[8], instance=row[4])


def _values(head: Head) -> tuple[Any, ...]:
    """A row's values in the order of the columns, without the key, and with the deadline at the end."""
    info = head.info
    digests = {name: b64encode(value).decode() for name, value in info.digests.items()}
    return (
        info.incarnation,
        info.name,
        info.published,
        head.instance,
        info.content_type,
        info.tail,
        head.filed,
        head.synced,
        info.closed,
        info.failure,
        info.length,
        json.dumps(dict(info.metadata)) if info.metadata else None,
        info.created_at,
        info.modified_at,
        info.ttl,
        info.expires_at,
        json.dumps(digests) if digests else None,
        info.upload,
        info.upload_ttl,
        info.writer,
        info.owner,
        info.key,
        json.dumps(dict(info.attributes)) if info.attributes else None,
        info.start,
        None if info.origin is None else info.origin.name,
        None if info.origin is None else info.origin.incarnation,
        info.deleted,
        info.renewed_at,
        info.trim_at,
        info.deadline,
    )
