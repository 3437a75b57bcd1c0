"""The values that every room of penstock speaks of. Frozen, and without I/O.

A *stream* is a named, append-only sequence of bytes. Its bytes are addressed by *offset* (bytes from the start), its
*tail* is the offset of its end, and it is open (still growing), closed, or failed.
"""

from __future__ import annotations

import os
import random
import secrets
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Self, TypeAlias

from penstock.errors import InvalidName

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes in memory. A memoryview is one of single bytes (format ``B``), so that ``len`` counts bytes."""

MAX_NAME_BYTES = 1024
RESERVED = "__ds"
"""The first segment of the names of what is not for everybody: state of the server's own."""
OCTETS = "application/octet-stream"


def check_name(name: str) -> str:
    """Return ``name`` if it can name a stream.

    A name is path-like: segments separated by ``/``, at most 1,024 bytes of UTF-8. Names never reach the file system,
    so what is refused here is what would confuse people, URLs and the tools that turn a name into a local path: empty
    segments, ``.`` and ``..``, backslashes, control characters and line separators, and text that is not Unicode.

    Raises:
        InvalidName: with the reason, in words for the person who chose the name.
    """
    if not name:
        raise InvalidName(name, "it is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(name, "it is not valid Unicode text") from None
    if size > MAX_NAME_BYTES:
        raise InvalidName(name, f"it has {size} bytes of UTF-8, and at most {MAX_NAME_BYTES} are allowed")
    if name.partition("/")[0] == RESERVED:
        raise InvalidName(name, f"names that begin with {RESERVED} are the server's own")
    for segment in name.split("/"):
        if not segment:
            raise InvalidName(name, "it has an empty segment: it begins or ends with '/', or has '//' in it")
        if segment in {".", ".."}:
            raise InvalidName(name, f"it has the segment '{segment}'")
    for character in name:
        if character == "\\":
            raise InvalidName(name, "it has a backslash")
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}:
            raise InvalidName(name, f"it has the control character U+{ord(character):04X}")
    return name


def new_incarnation() -> str:
    """Return an id for a stream that is being created: 16 characters, safe in URLs, headers and file names.

    It must be new, not secret: so it comes from a generator of this process, not from the system at each append.
    """
    return f"{_ids.getrandbits(64):016x}"


_ids = random.Random(secrets.randbits(256))  # noqa: S311 - see above
os.register_at_fork(after_in_child=lambda: _ids.seed(secrets.randbits(256)))


RETAINED = "retention"
"""The attribute of a stream of which not all is kept."""

COMPACTED = "compact"
"""The attribute of a stream of which the last value of each key is kept: the member that is the key."""


STOPPED = "stopped"
"""The attribute of a stream that a reader stopped: why."""

QUIET_AFTER = "quiet-after"
"""The attribute of a stream whose producer appends at least every so many seconds, or is taken for gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a stream is kept. What is more is dropped from its beginning, a moment later; offsets stay the same.

    Attributes:
        age: seconds for which at least it is kept, or None.
        bytes: how many of the last bytes at most, or None.
        records: how many of the last lines at most, or None.
        lines: whether the beginning is always that of a line.
    """

    age: float | None = None
    bytes: int | None = None
    records: int | None = None
    lines: bool = True

    def members(self) -> dict[str, float | int | bool]:
        """Return what is set, by name, as JSON keeps it."""
        set_ = {"age": self.age, "bytes": self.bytes, "records": self.records}
        return {**{name: value for name, value in set_.items() if value is not None}, "lines": self.lines}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """What the creator of a stream says about it.

    Attributes:
        content_type: the media type of the bytes.
        length: the final size in bytes where it is known from the start, else None. A stream cannot grow past it, nor
            be closed short of it.
        metadata: text that travels with the stream; penstock itself only reads ``filename``.
        ttl: seconds after the last change at which the stream expires, or None.
        expires_at: when the stream expires (Unix seconds), or None. With both given, the earlier one counts.
        owner: whose stream it is, in the application's own terms, or None. What somebody owns can be counted.
        key: what the owner finds the stream by beside its name, or None.
        attributes: what a protocol keeps with the stream: small JSON values by names of the protocol's own.
        retention: how much of it is kept; None for all.
        compact_by: of a stream of JSON records: the member of them that is a key. Only the last record of each key is
            sure to be kept; it may be appended once more, when those before it are dropped.
        timed: whether it can be read from a time on (`StreamService.offset_at`).
    """

    content_type: str = OCTETS
    length: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ttl: float | None = None
    expires_at: float | None = None
    owner: str | None = None
    key: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    retention: Retention | None = None
    compact_by: str | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """The stream that a fork begins with.

    Attributes:
        name: what it is called, or was.
        incarnation: which one.
    """

    name: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """The state of a stream at one moment: all there is to know of it but its bytes.

    Attributes:
        name: what the stream is called.
        incarnation: an id new for each creation of a name. Bytes at an offset never change within an incarnation.
        content_type: the media type of the bytes.
        tail: the offset of the end: how many bytes there are.
        closed: whether the stream has ended, well or badly. Nothing can be appended to a closed stream.
        failure: why the stream broke, or None. A failed stream is closed, and its bytes are not the whole.
        length: the declared final size in bytes, or None.
        metadata: text that travels with the stream.
        created_at: when it was created (Unix seconds).
        modified_at: when it last changed (Unix seconds); never goes back.
        ttl: seconds after ``modified_at``, or ``renewed_at`` if that is later, at which it expires, or None.
        expires_at: when it expires at the latest (Unix seconds), or None.
        digests: digests of the whole that are known, by their RFC 9530 names (``sha-256``). Only of closed streams.
        published: whether this is what its name shows. A replacement that is still being written is not.
        provisional: whether the stream goes when the process that writes it goes: a PUT that is under way.
        upload: whether it is an upload that is not complete: it grows by its own writers alone, one after another, and
            outlives them.
        upload_ttl: seconds after ``modified_at`` at which an upload that is not complete expires, or None.
        writer: who appends to the upload: an id new for each request that does, or None. Any other writer is refused.
        owner: whose stream it is, in the application's own terms, or None.
        key: what the owner finds the stream by beside its name, or None.
        attributes: what a protocol keeps with the stream: small JSON values by names of the protocol's own.
        start: the offset of the first byte that the stream itself has; more than 0 of a fork, and of a stream whose
            beginning was dropped.
        origin: the stream that has the bytes before ``start``, of a fork; else None.
        deleted: whether the stream was deleted, and is kept for forks that read its bytes. Nobody else does.
        trim_at: when something of it becomes too old to be kept (Unix seconds), or None.
        renewed_at: reads up to this time (Unix seconds) are reckoned with in `deadline`: see ``ttl``.
    """

    name: str
    incarnation: str
    content_type: str = OCTETS
    tail: int = 0
    closed: bool = False
    failure: str | None = None
    length: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    modified_at: float = 0.0
    ttl: float | None = None
    expires_at: float | None = None
    digests: Mapping[str, bytes] = field(default_factory=dict)
    published: bool = True
    provisional: bool = False
    upload: bool = False
    upload_ttl: float | None = None
    writer: str | None = None
    owner: str | None = None
    key: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    start: int = 0
    origin: Origin | None = None
    deleted: bool = False
    renewed_at: float = 0.0
    trim_at: float | None = None

    @property
    def shrinks(self) -> bool:
        """Whether its beginning is dropped from time to time."""
        return RETAINED in self.attributes or COMPACTED in self.attributes

    @property
    def stopped(self) -> str | None:
        """Why a reader had it closed before its producer did, or None."""
        reason: str | None = self.attributes.get(STOPPED)
        return reason

    @property
    def quiet_after(self) -> float | None:
        """Within how many seconds of the last append the next one comes, from a producer that lives; or None."""
        seconds: float | None = self.attributes.get(QUIET_AFTER)
        return seconds

    @property
    def retention(self) -> Retention | None:
        """How much of it is kept, or None for all."""
        members = self.attributes.get(RETAINED)
        return None if members is None else Retention(**members)

    def grown(self, tail: int, *, closed: bool, modified_at: float) -> Self:
        """Return what `dataclasses.replace` would, in a fifth of the time: every append needs one."""
        grown = object.__new__(type(self))
        for write, value in zip(_WRITERS, _values(self), strict=True):
            write(grown, value)
        _write_tail(grown, tail)
        _write_closed(grown, closed)
        _write_modified_at(grown, modified_at)
        return grown

    def differs_by_growth(self, after: Self) -> bool:
        """Tell whether a state differs from this one by its tail and time only: so it is with most appends."""
        return bool(_fixed(self) == _fixed(after))

    @property
    def state(self) -> str:
        """``open``, ``closed`` or ``failed``."""
        if self.failure is not None:
            return "failed"
        return "closed" if self.closed else "open"

    @property
    def complete(self) -> bool:
        """Whether the bytes are the whole: closed, and not failed."""
        return self.closed and self.failure is None

    @property
    def deadline(self) -> float | None:
        """When the stream expires if it is not changed before (Unix seconds), or None if it never does."""
        if self.deleted:
            return None
        ttl = self.ttl
        if self.upload and self.upload_ttl is not None:
            ttl = self.upload_ttl if ttl is None else min(ttl, self.upload_ttl)
        by_ttl = None if ttl is None else max(self.modified_at, self.renewed_at) + ttl
        if by_ttl is None or self.expires_at is None:
            return self.expires_at if by_ttl is None else by_ttl
        return min(by_ttl, self.expires_at)

    def expired(self, now: float) -> bool:
        """Tell whether the stream's time has come at ``now`` (Unix seconds)."""
        deadline = self.deadline
        return deadline is not None and deadline <= now


# The fields' own descriptors write to a frozen instance, which is nobody's yet.
_names = tuple(each.name for each in fields(StreamInfo))
_values = attrgetter(*_names)
_fixed = attrgetter(*(name for name in _names if name not in {"tail", "modified_at"}))
_WRITERS: tuple[Callable[[StreamInfo, Any], None], ...] = tuple(vars(StreamInfo)[name].__set__ for name in _names)
_write_tail, _write_closed, _write_modified_at = (
    _WRITERS[_names.index(name)] for name in ("tail", "closed", "modified_at")
)


@dataclass(frozen=True, slots=True)
class Producer:
    """Who appends, for an append that may be repeated safely.

    Attributes:
        id: the producer's name, chosen by it.
        epoch: grows by one each time the producer starts anew; a lower epoch is fenced off.
        sequence: 0 for the first append of an epoch, then one more for each.
    """

    id: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ProducerState:
    """The last append that a stream accepted of a producer.

    Attributes:
        producer: its id, epoch and sequence.
        offset: the tail after it, which a repetition is answered with.
    """

    producer: Producer
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of a stream's bytes.

    Attributes:
        offset: of the first byte.
        data: the bytes; never empty. It may be a view of a mapped file: use it, do not keep it.
    """

    offset: int
    data: Buffer

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an append.

    Attributes:
        info: the stream after it.
        offset: the offset after the appended bytes; less than ``info.tail`` for a repetition of an earlier append.
        duplicate: whether the producer had sent this append before, so that nothing was written now.
        created: whether the append created the stream.
    """

    info: StreamInfo
    offset: int
    duplicate: bool = False
    created: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What an owner has.

    Attributes:
        streams: how many streams, uploads that are not complete among them.
        size: their bytes; of one with a declared length that it has not reached yet, that length.
    """

    streams: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing, in the order of the names' UTF-8 bytes.

    Attributes:
        streams: what was found.
        next: the name to go on ``after``, or None where the listing ends.
    """

    streams: Sequence[StreamInfo] = field(default_factory=tuple)
    next: str | None = None
