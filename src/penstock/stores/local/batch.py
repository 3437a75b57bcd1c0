"""What one transaction changes: heads are read once and written once, however many jobs touch them. Blocking.

The heads are kept for the next transaction too. Another process may have changed some by then; `Generations` tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from penstock.core.ports import Change, Decide, View
from penstock.errors import StorageFull
from penstock.model import Buffer, ProducerState, StreamInfo
from penstock.stores.local.catalog import NOBODY, Catalog, EngineError, Head
from penstock.stores.local.generations import Generations

_MOST_KNOWN = 4096


class Moved(Exception):
    """The stream is another than the one whose file was written, or its file must be brought to the disk first."""


@dataclass(slots=True, eq=False)
class Slot:
    """A stream in the batch.

    Attributes:
        head: its state, as the jobs so far have left it.
        fresh: whether it has no row yet.
        touched: whether it changed in this transaction,
        rewritten: and that in more than by growing.
        removed: whether it was removed in this transaction.
        pending: bytes appended in this transaction, that begin at offset ``pending_at``.
        producers: those that changed in this transaction.
    """

    head: Head
    fresh: bool = False
    touched: bool = False
    rewritten: bool = False
    removed: bool = False
    pending: list[Buffer] = field(default_factory=list)
    pending_at: int = 0
    producers: dict[str, ProducerState] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of a name.

    Attributes:
        generation: the number of the name's commits, up to which that is so.
        epoch: the epoch of the batch in which that was looked at last.
        shown: what it shows, if that has been ``looked_up``.
        looked_up: see above.
        incarnations: those of its streams that are known, by incarnation.
    """

    generation: int
    epoch: int
    shown: Slot | None = None
    looked_up: bool = False
    incarnations: dict[str, Slot] = field(default_factory=dict)


class Filed(NamedTuple):
    """Bytes that are in the file of ``incarnation`` already: all up to ``stop``, the new ones from ``start`` on.

    Where others moved the tail on from ``start`` meanwhile, the new ones are not where they belong: they go to the
    catalog instead, and what came before them stays in the file. ``synced`` tells whether all that is in the file is as
    safe as the store's setting asks for.
    """

    incarnation: str
    start: int
    stop: int
    synced: bool


class Commit(NamedTuple):
    """A commit of the store, as the batch carries it out. See `Store.commit` for what its fields mean."""

    name: str
    decide: Decide
    incarnation: str | None
    producer: str | None
    durable: bool
    filed: Filed | None = None


class Applied(NamedTuple):
    """What a commit came to.

    Attributes:
        change: the change.
        removed: incarnations whose files are not needed any more.
        filed: how many bytes of the stream are in its file.
    """

    change: Change
    removed: tuple[str, ...] = ()
    filed: int = 0


class Batch:
    """The state as the jobs of a transaction see it. One transaction at a time, between `begin` and `commit`."""

    def __init__(self, catalog: Catalog, instance: str, generations: Generations) -> None:
        self.catalog = catalog
        self._instance = instance
        self._generations = generations
        self._changed: set[str] = set()
        self._last = -1  # the number of the last commit of all,
        self._epoch = 0  # and how often that was somebody else's
        self._room = True
        self._names: dict[str, _Known] = {}
        self._touched: list[Slot] = []

    def begin(self, *, durable: bool, grow: bool = True, insert: bool = True) -> None:
        """Begin a transaction; see `Catalog.begin`. Without ``insert`` there is no room for further streams."""
        self._room = insert
        self.catalog.begin(durable=durable, grow=grow)
        self._epoch += self._generations.last_of_all() != self._last
        if len(self._names) > _MOST_KNOWN:
            self._forget()

    def look_up(self, names: Iterable[str]) -> None:
        """Look several names up together that will be asked for: one statement instead of one for each."""
        unknown = [name for name in dict.fromkeys(names) if not self._of(name).looked_up]
        if len(unknown) > 1:
            found = {head.info.name: head for head in self.catalog.by_names(unknown)}
            for name in unknown:
                self._show(name, self._slot_of(found.get(name)))

    def commit(self) -> None:
        """Write what changed, and end the transaction."""
        self._write(self._touched)
        self._touched.clear()
        changing = self._generations.begin(self._changed)
        try:
            self.catalog.commit()
        finally:
            self._generations.end(changing)
        for name in self._changed:
            if name in self._names:
                self._names[name].generation = self._generations.last(name)
        self._changed.clear()
        self._last = self._generations.last_of_all()

    def rollback(self) -> None:
        """End the transaction with nothing changed."""
        self._forget()
        with suppress(EngineError):
            self.catalog.rollback()

    def _forget(self) -> None:
        self._names.clear()
        self._touched.clear()
        self._changed.clear()

    def by_name(self, name: str) -> Slot | None:
        """Return what the name shows."""
        known = self._of(name)
        if not known.looked_up:
            self._show(name, self._slot_of(self.catalog.by_name(name)))
        return known.shown

    def by_incarnation(self, incarnation: str, name: str) -> Slot | None:
        """Return an incarnation of a name."""
        slot = self._of(name).incarnations.get(incarnation) or self._slot_of(self.catalog.by_incarnation(incarnation))
        return slot if slot is not None and slot.head.info.name == name else None

    def _of(self, name: str) -> _Known:
        """Return what is known of a name, and still so."""
        known = self._names.get(name)
        if known is None or (known.epoch != self._epoch and known.generation != self._generations.last(name)):
            known = self._names[name] = _Known(self._generations.last(name), self._epoch)
        known.epoch = self._epoch
        return known

    def _slot_of(self, head: Head | None) -> Slot | None:
        if head is None:
            return None
        return self._of(head.info.name).incarnations.setdefault(head.info.incarnation, Slot(head))

    def _show(self, name: str, slot: Slot | None) -> None:
        known = self._of(name)
        known.shown, known.looked_up = slot, True

    def carry_out(self, commit: Commit) -> Applied:
        """Decide, and change the batch accordingly; raise with nothing changed."""
        current = self.by_name(commit.name)
        target = current
        if commit.incarnation is not None and (current is None or current.head.info.incarnation != commit.incarnation):
            target = self.by_incarnation(commit.incarnation, commit.name)
        change = commit.decide(self._view(target, current, commit.producer))
        if change.duplicate:
            return Applied(change, filed=0 if target is None else target.head.filed)
        if change.info is None:
            return Applied(change, removed=() if target is None else self._remove(target))
        same = target is not None and target.head.info.incarnation == change.info.incarnation
        self._check(commit, change, target if same else None)
        removed: list[str] = []
        if not same:
            if target is not None:
                removed += self._displace(target)
            target = self._insert(change.info)
        assert target is not None  # noqa: S101 - either there before, or inserted just now
        if change.info.published and current is not None and current is not target and self._is_there(current):
            removed += self._displace(current)
        self._apply(target, change.info, change, commit)
        return Applied(change, tuple(removed), target.head.filed)

    def cut_to_synced(self, incarnation: str) -> None:
        """Take back what was not on the disk when the machine went down, and was acknowledged to nobody."""
        head = self.catalog.by_incarnation(incarnation)
        slot = None if head is None else self.by_incarnation(incarnation, head.info.name)
        if slot is None or slot.head.info.closed or slot.head.synced == slot.head.filed:
            return
        head = slot.head
        self.catalog.drop_all_chunks(head.key)
        head.filed = head.synced
        head.info = replace(head.info, tail=head.synced)
        self._touch(slot)
        slot.rewritten = True

    def _view(self, target: Slot | None, current: Slot | None, producer: str | None) -> View:
        known = None
        if target is not None and producer is not None:
            known = target.producers.get(producer)
            if known is None and not target.fresh:
                known = self.catalog.producer(target.head.key, producer)
        return View(
            None if target is None else target.head.info,
            None if current is None else current.head.info,
            known,
            self._shown,
            self._forks,
        )

    def _shown(self, name: str) -> StreamInfo | None:
        slot = self.by_name(name)
        return None if slot is None else slot.head.info

    def _forks(self, incarnation: str) -> int:
        """Count those of the catalog, and those that this transaction has not written there yet."""
        begun = (slot.head.info.origin for slot in self._touched if slot.fresh and not slot.removed)
        return self.catalog.forks(incarnation) + sum(
            origin is not None and origin.incarnation == incarnation for origin in begun
        )

    def _check(self, commit: Commit, change: Change, target: Slot | None) -> None:
        """Refuse a change that there is no room for, or that does not go with what was done to the stream's file."""
        if target is None and not self._room:
            raise StorageFull
        if commit.filed is not None:
            if change.info is None or change.info.incarnation != commit.filed.incarnation:
                raise Moved
            if target is None and commit.filed.start != change.info.start:
                raise Moved
        elif commit.durable and target is not None and target.head.synced < target.head.filed:
            raise Moved

    def _apply(self, slot: Slot, info: StreamInfo, change: Change, commit: Commit) -> None:
        head = slot.head
        self._touch(slot)
        instance = self._instance if info.provisional else None
        if commit.filed is not None or instance != head.instance or not head.info.differs_by_growth(info):
            slot.rewritten = True
        filed = commit.filed
        if filed is not None:
            if head.filed < filed.start:
                self.catalog.drop_chunks(head.key, filed.start)
            head.filed = filed.start if head.info.tail != filed.start else filed.stop
            if filed.synced:
                head.synced = head.filed
        if filed is None or head.info.tail != filed.start:
            if not slot.pending:
                slot.pending_at = head.info.tail
            slot.pending += filter(len, change.data)
        if info.start > head.info.start:
            dropped = self.catalog.drop_beginning(head.key, info.start)
            if head.filed < dropped:  # there is a hole in the file now, which is as safe as what comes before it
                head.synced = dropped if head.synced == head.filed else head.synced
                head.filed = dropped
        head.info = info
        head.instance = instance
        if change.producer is not None:
            slot.producers[change.producer.producer.id] = change.producer
        if info.published:
            self._show(info.name, slot)

    def discard(self, head: Head) -> None:
        """Remove a stream that another instance was still writing."""
        self._changed.add(head.info.name)
        self.catalog.remove(head.key)

    def _touch(self, slot: Slot) -> None:
        self._changed.add(slot.head.info.name)
        if not slot.touched:
            slot.touched = True
            self._touched.append(slot)

    def _insert(self, info: StreamInfo) -> Slot:
        slot = Slot(Head.before(info), fresh=True)
        self._of(info.name).incarnations[info.incarnation] = slot
        return slot

    def _is_there(self, slot: Slot) -> bool:
        info = slot.head.info
        return self._of(info.name).incarnations.get(info.incarnation) is slot

    def _displace(self, slot: Slot) -> tuple[str, ...]:
        """Make room for what takes the stream's place. It stays for its forks."""
        head = slot.head
        if not self._forks(head.info.incarnation):
            return self._remove(slot)
        if self._of(head.info.name).shown is slot:
            self._show(head.info.name, None)
        head.info = replace(head.info, published=False, deleted=True)
        slot.rewritten = True
        self._write([slot])  # now, so that the catalog never sees two of one name
        return ()

    def _remove(self, slot: Slot) -> tuple[str, ...]:
        head = slot.head
        self._changed.add(head.info.name)
        slot.removed = True
        known = self._of(head.info.name)
        del known.incarnations[head.info.incarnation]
        if known.shown is slot:
            self._show(head.info.name, None)
        if not slot.fresh:
            self.catalog.remove(head.key)
        if not head.filed:
            return (head.info.incarnation,)
        # Should this process end before it has removed the file, another one finds it here.
        self.catalog.unsettle(head.info.incarnation, NOBODY)
        return (head.info.incarnation,)

    def _write(self, slots: Sequence[Slot]) -> None:
        grown: list[Head] = []
        chunks: list[tuple[int, int, Buffer]] = []
        for slot in slots:
            if slot.removed:
                continue
            head = slot.head
            if slot.fresh:
                head.key = self.catalog.insert(head)
            elif slot.rewritten:
                self.catalog.update(head)
            else:
                grown.append(head)
            slot.touched = slot.fresh = slot.rewritten = False
            if slot.pending:  # all that the jobs of this batch appended to a stream is one row
                data = slot.pending[0] if len(slot.pending) == 1 else b"".join(slot.pending)
                chunks.append((head.key, slot.pending_at, data))
                slot.pending.clear()
            for state in slot.producers.values():
                self.catalog.keep_producer(head.key, state)
            slot.producers.clear()
        self.catalog.grow(grown)
        self.catalog.add_chunks(chunks)
