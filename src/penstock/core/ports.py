"""What the core needs of the outside: a store, a notifier, a clock.

Each is a contract in prose; the suite in `penstock.testing` checks a store against it.

The contract of a store
-----------------------
**Atomicity.** `Store.commit` runs the caller's `decide` on the state as it is at the moment of the commit, and applies
the `Change` that it returns as a whole: bytes, tail, closed, producer and publication change together, or not at all.
Two commits on one stream never interleave, whichever process they come from. `decide` is pure; a store may call it
more than once, and in another thread; what is applied is the change that it decides on for the final state. What it
raises passes through to the caller, and nothing is changed.

**Durability.** When `commit` returns, a `durable` change survives a crash of the process, and, if the store is set to
``fsync``, of the machine. A change that is not durable survives a crash of the process. A later durable change of the
same stream makes the earlier ones durable too.

**Visibility.** Once `commit` has returned, every `load`, `open` and `refresh`, in any process, shows the change.

**Ownership of buffers.** The buffers of a change belong to the store until `commit` returns; the caller must not change
them before. A buffer that `Reader.read` returns may be a view of storage: it stays valid while the reader is open or
the buffer is referenced, and must not be written to.

**Cancellation.** `commit` is not interrupted. Where its caller is cancelled, it finishes first, then raises the
cancellation. Every other method may be cancelled at any await, and releases what it holds.

**Errors.** No room: `StorageFull`, and nothing of the change is kept; the store works on when there is room again.
Any other trouble of the engine: `StorageFailed`. A value that a store cannot keep (an integer of 65 bits, a text that
is not Unicode) is refused with either, and harms no other commit.

**Deleted streams.** A reader that was opened on a closed stream may finish it after a deletion. Any other raises
`StreamGone` at its next `refresh`; until then, `read` returns the true bytes or raises `StreamGone`.

**Forks.** A stream with an `origin` has its own bytes from `start` on, at the same offsets as if it had all of them;
the others are read from the origin, by who opens both. An incarnation that is the origin of others is not removed by a
change that takes its place: it stays, unpublished and `deleted`, to be found by incarnation, until a change to itself
removes it.

**The beginning of a stream** is dropped by a change whose `start` is after the stream's: the bytes before it are not
read any more, and their room is given back in time. Offsets stay what they are.

**Provisional streams** (`StreamInfo.provisional`) are discarded when the store instance that wrote them last has ended,
at the latest when the next one starts on the same storage.

**After a crash of the machine** an open stream may be shorter than it was, but has every byte of its last durable
change; the others are cut off, never replaced by anything else.

**Wake-ups** are not the store's: the service tells the notifier after a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from penstock.model import Buffer, ProducerState, StreamInfo, Usage


@dataclass(frozen=True, slots=True)
class View:
    """What a decision is made on: the state at the moment of the commit.

    Attributes:
        target: the stream that the commit is about, or None if there is none. Expired ones are shown: the rules know
            what time it is, a store does not.
        current: what the name shows now. The same as ``target``, unless that is an unpublished replacement.
        producer: the last accepted append of the producer that the commit named, or None.
        shown: returns what another name shows, at the same moment.
        forks: returns how many streams have an incarnation as their `StreamInfo.origin`, at the same moment.
    """

    target: StreamInfo | None
    current: StreamInfo | None
    producer: ProducerState | None = None
    shown: Callable[[str], StreamInfo | None] = field(default=lambda _name: None, compare=False)
    forks: Callable[[str], int] = field(default=lambda _incarnation: 0, compare=False)


class Change(NamedTuple):
    """What a decision says to do. It is applied as a whole.

    Attributes:
        info: the state of the target afterwards; None deletes it. Another incarnation than the target's takes the
            target's place (an expired stream that is created anew). A published one takes the place of what the name
            showed before, which is deleted in the same commit.
        data: bytes to append at the old tail (of a new incarnation, at its ``start``), in order. ``info.tail`` counts
            them.
        producer: the producer's new state, or None to leave it.
        duplicate: whether nothing is to be done, because this append was accepted before; ``info`` is the target.
        offset: the offset after the appended bytes, for the caller; of a duplicate, the offset after the producer's
            last accepted append.
    """

    info: StreamInfo | None
    data: Sequence[Buffer] = ()
    producer: ProducerState | None = None
    duplicate: bool = False
    offset: int = 0


Decide: TypeAlias = Callable[[View], Change]


class Proposal(NamedTuple):
    """One of several commits, durable. See `Store.commit` for what the fields mean."""

    name: str
    decide: Decide
    size: int
    incarnation: str | None = None


class Reader(Protocol):
    """An open handle on one incarnation of a stream. Close it; it is a context manager."""

    @property
    def info(self) -> StreamInfo:
        """The state when the reader was opened, or at the last `refresh`."""

    async def refresh(self) -> StreamInfo:
        """Look at the stream again, and return its state.

        Raises:
            StreamGone: the incarnation was deleted.
        """

    async def read(self, start: int, stop: int) -> Buffer:
        """Return bytes from offset ``start``: at least one and at most ``stop - start``.

        ``info.start <= start < stop <= info.tail``. How many come at once is the store's choice, and bounded by it.

        Raises:
            StreamGone: the incarnation was deleted, and the bytes with it.
            OffsetOutOfRange: the bytes were dropped since the last `refresh`.
        """

    def close(self) -> None:
        """Release what the reader holds. Again is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """Where bytes and state live. Dumb and narrow: it decides nothing about streams. The contract is above."""

    async def start(self) -> None:
        """Open the storage, and recover what a crash left behind."""

    async def stop(self) -> None:
        """Finish the commits under way, and release everything. Not to be used afterwards."""

    async def load(self, name: str, *, incarnation: str | None = None) -> StreamInfo | None:
        """Return the state of the stream that ``name`` shows, or of an incarnation, published or not; else None."""

    async def open(self, name: str, *, incarnation: str | None = None) -> Reader | None:
        """Open the stream that ``name`` shows for reading, or an incarnation, published or not; else return None."""

    async def commit(
        self,
        name: str,
        decide: Decide,
        *,
        incarnation: str | None = None,
        producer: str | None = None,
        size: int = 0,
        durable: bool = True,
    ) -> Change:
        """Decide on a change and apply it, atomically; return the change that was applied.

        Args:
            name: the stream's name.
            decide: see `View` and `Change`; pure.
            incarnation: the target, published or not, where it is not just what the name shows. It is looked up under
                ``name`` only. A change that begins an unpublished stream must give its incarnation here, or it takes
                the place of what the name shows.
            producer: the id of the producer whose state `decide` needs.
            size: how many bytes the change appends, so that a store can choose how to take them; a change may append
                none instead (a duplicate).
            durable: whether the change must survive a crash of the machine (where the store is set to).
        """

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[StreamInfo]:
        """Return up to ``limit`` published streams whose names begin with ``prefix`` and come after ``after``.

        But for deleted ones. In the order of the names' UTF-8 bytes.
        """

    async def expired(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """Return up to ``limit`` streams whose deadline is at or before ``now`` (Unix seconds).

        Published or not; but not the unpublished ones that are provisional, which are their writers'.
        """

    async def overdue(self, now: float, limit: int) -> Sequence[StreamInfo]:
        """Return up to ``limit`` published streams whose ``trim_at`` is at or before ``now`` (Unix seconds)."""

    async def orphans(self, limit: int) -> Sequence[StreamInfo]:
        """Return up to ``limit`` streams that are `deleted` and the origin of no other, published or not."""

    async def find(self, owner: str | None, key: str) -> StreamInfo | None:
        """Return the youngest stream with this owner and key, published or not, but not deleted, or None."""

    async def usage(self, owner: str) -> Usage:
        """Return what an owner has: published, provisional and unfinished streams, but not deleted ones."""

    async def tidy(self) -> None:
        """Do the chores that can wait: space of what was deleted, what other instances that ended left behind."""


@runtime_checkable
class CollectingStore(Store, Protocol):
    """An ability that a store may have: to take several commits together, at less than what they cost one by one."""

    async def commit_each(self, proposals: Sequence[Proposal]) -> Sequence[Change | BaseException]:
        """Carry out commits, each for itself and in this order, and return what was applied or raised for each.

        For small ones: what they append together must not be more than a few megabytes.
        """


@runtime_checkable
class GenerationStore(Store, Protocol):
    """An ability that a store may have: to tell without waiting that what a name shows has not changed."""

    def generation(self, name: str) -> int | None:
        """Return a number that stays the same as long as what the name shows does; None if that is not certain now.

        Ask for it before `load` or `open`: if it is the same later, what they returned then is what is there now.
        Changes of other processes count. It is quick, and for the event loop.
        """


@runtime_checkable
class JoiningStore(Store, Protocol):
    """An ability that a store may have: to append the bytes of other streams without handing them out."""

    async def join(self, name: str, decide: Decide, parts: Sequence[StreamInfo], *, incarnation: str) -> Change:
        """Decide on a change as a durable `commit` does; instead of data, it appends the bytes of ``parts``, in order.

        Args:
            name: the stream's name.
            decide: see `commit`; the tail of the state that it returns counts the bytes of the parts.
            parts: closed streams, published or not; one may be there several times.
            incarnation: the target, which is there, and empty.

        Raises:
            StreamGone: one of the parts is gone; nothing was changed.
        """


@runtime_checkable
class PromptReader(Reader, Protocol):
    """A reader that may have bytes at hand."""

    def read_now(self, start: int, stop: int) -> Buffer | None:
        """Return all bytes from ``start`` to ``stop``, if they can be had without waiting; else None."""


class FileExtent(NamedTuple):
    """A part of an open file."""

    descriptor: int
    offset: int
    size: int

    def fileno(self) -> int:
        """Return the file's descriptor, as files do."""
        return self.descriptor


@runtime_checkable
class FileReader(Reader, Protocol):
    """A reader whose bytes may be in a file, from where the system can send them without a copy."""

    async def extent(self, start: int, stop: int) -> FileExtent | None:
        """Return where some of the bytes from offset ``start`` are, which are in memory now; or None: `read` them.

        At most ``stop - start``, as of `read`. The descriptor is the reader's, and open as long as the reader is.
        """


@runtime_checkable
class RecallingReader(Reader, Protocol):
    """A reader that may know what this process has just committed, without asking the storage."""

    def recall(self, offset: int) -> tuple[StreamInfo, Buffer] | None:
        """Return a state that this process committed, and the bytes from ``offset`` to its tail; None if not known.

        There may be none. Another process may have committed more since: only `refresh` tells.
        """


class Watch(Protocol):
    """A registration for the wake-ups of one name."""

    def clear(self) -> None:
        """Forget the hints so far. Clear first, then read, then wait: so none is lost between."""

    async def wait(self, timeout: float) -> bool:
        """Return at the next hint since `clear`, or after ``timeout`` seconds.

        Returns:
            whether there were hints, and all of them at changes that this process made.
        """

    def close(self) -> None:
        """End the registration. Again is harmless."""


class GroupWatch(Protocol):
    """A registration for the wake-ups of many names, those of streams that are yet to come among them."""

    def take(self) -> set[str] | None:
        """Return the names that were hinted at since the last time; None for all that there may be.

        Take first, then read, then wait: so none is lost between.
        """

    async def wait(self, timeout: float) -> bool:
        """Return at the next hint since `take`, or after ``timeout`` seconds."""

    def close(self) -> None:
        """End the registration. Again is harmless."""


class Notifier(Protocol):
    """Wakes the followers of a name. A hint carries no data; a lost one costs latency only."""

    async def start(self) -> None:
        """Begin to give and take hints."""

    async def stop(self) -> None:
        """End, and wake everybody who waits."""

    def watch(self, name: str) -> Watch:
        """Register for a name; the registration holds when this returns."""

    def watch_group(self, prefix: str | None, names: Sequence[str] = ()) -> GroupWatch:
        """Register for all names that begin with ``prefix`` (nothing, or what ends in a slash), and for ``names``."""

    def notify(self, name: str) -> None:
        """Wake the watchers of ``name``, here and in the other processes that share the store. Never blocks."""

    def notify_all(self) -> None:
        """Wake every watcher of this process."""

    def on_question(self, answer: Callable[[bytes], bytes]) -> None:
        """Have the questions of other processes answered: with at most 32 KiB, at once."""

    async def ask(self, question: bytes) -> Sequence[bytes]:
        """Return what the other processes answer that share the store, those that do within half a second."""


class Clock(Protocol):
    """The time. Tests have their own."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
