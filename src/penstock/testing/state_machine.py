"""Any store in lockstep with the memory store: Hypothesis makes the changes, and both must answer alike."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.ports import Change, Reader, View
from penstock.errors import OffsetOutOfRange, PenstockError, StreamGone
from penstock.model import Producer, StreamInfo, StreamSpec
from penstock.stores.memory import MemoryStore
from penstock.testing.driver import NOON, Driver, flow, read_range
from penstock.testing.harness import Lab, StoreHarness

T = TypeVar("T")
Draft: TypeAlias = tuple[str, str]
"""A name, and the incarnation of a replacement."""

PRODUCERS = ["p", "q"]
# Few, so that changes meet.
names = st.sampled_from(["a", "a", "a/b", "a%", "\uffff", "\U00010000"])
# Mostly small, sometimes around the sizes at which a store may take bytes in another way.
sizes = st.sampled_from([0, 1, 2, 3, 7, 10, 10, 50, 100, 100, 999, 5000, 65_535, 65_536, 65_537, 150_000, 1_048_577])
owners = st.sampled_from([None, None, "ann", "bob"])
keys = st.sampled_from([None, None, "k"])
writers = st.sampled_from([None, "one", "one", "two"])
specs = st.builds(
    StreamSpec,
    content_type=st.sampled_from(["application/octet-stream", "text/plain"]),
    length=st.sampled_from([None, None, None, None, 0, 10, 100, 70_000]),
    metadata=st.sampled_from([{}, {}, {"filename": "\u00fc.txt", "": ""}]),
    ttl=st.sampled_from([None, None, None, 1.0, 30.0]),
    expires_at=st.sampled_from([None, None, None, NOON + 20]),
    owner=owners,
    key=keys,
    attributes=st.sampled_from([{}, {}, {"a": [1, "x", None]}]),
)
# Most streams are to stay open for a while.
rarely = st.sampled_from([False, False, False, False, True])
# Steps from the last append of a producer: mostly the next one or a repetition, sometimes what must be refused.
producers = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(PRODUCERS),
        st.sampled_from([0, 0, 0, 0, 1, -1]),
        st.sampled_from([1, 1, 1, 0, 0, -1, 2]),
    ),
)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1))
Steps: TypeAlias = tuple[str, int, int] | None


@dataclass(slots=True)
class _Readers:
    """Readers of the same incarnation, in the store and in the model, and the bytes that there are to read."""

    mine: Reader
    model: Reader
    opened_open: bool
    first: int
    data: bytes

    def close(self) -> None:
        self.mine.close()
        self.model.close()


class StoreMachine(RuleBasedStateMachine):
    """Makes random changes on a store and on a `MemoryStore`, and compares what comes of them."""

    harness: ClassVar[StoreHarness]
    drafts: Bundle[Draft] = Bundle("drafts")
    uploads: Bundle[Draft] = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.path = Path(tempfile.mkdtemp(prefix="penstock-machine-"))
        self.lab = Lab(self.harness, self.path)
        self.model = Driver(MemoryStore())
        self.numbers = itertools.count()
        self.begun: list[Draft] = []
        self.readers: list[_Readers] = []
        self.runner.run(self.lab.start())

    def teardown(self) -> None:
        try:
            self._same(_everything)
        finally:
            self._close_readers()
            self.runner.run(self.lab.end())
            self.runner.close()
            shutil.rmtree(self.path)

    # -- changes

    @initialize()
    def begin_with_an_open_stream(self) -> None:
        self.create("a", StreamSpec(), 10, close=False, steps=None)

    @rule(name=names, spec=specs, size=sizes, close=rarely, steps=producers)
    def create(self, name: str, spec: StreamSpec, size: int, close: bool, steps: Steps) -> None:
        data, new, producer = self._data(size), self._incarnation(), self._producer(name, None, steps)
        self._same(lambda driver: driver.create(name, data, spec=spec, close=close, producer=producer, incarnation=new))

    @rule(
        name=names,
        size=sizes,
        parts=st.integers(1, 3),
        by=st.sampled_from([None, None, 0, 0, 0, 1, -1]),
        close=rarely,
        steps=producers,
        durable=st.booleans(),
    )
    def append(
        self, name: str, size: int, parts: int, by: int | None, close: bool, steps: Steps, durable: bool
    ) -> None:
        data = self._data(size)
        cut = size // parts + 1
        buffers = [memoryview(data)[start : start + cut] for start in range(0, size, cut)]
        tail = self._tail(name)
        offset = None if by is None or tail is None else max(0, tail + by)
        producer = self._producer(name, None, steps)
        self._same(
            lambda driver: driver.append(name, *buffers, offset=offset, close=close, producer=producer, durable=durable)
        )

    @rule(items=st.dictionaries(names, sizes, min_size=2))
    def append_to_many_at_once(self, items: dict[str, int]) -> None:
        work = [(name, self._data(size)) for name, size in items.items()]

        async def burst(driver: Driver) -> list[Any]:
            return await asyncio.gather(*(_outcome(driver.append(name, data)) for name, data in work))

        self._same(burst)

    @rule(target=drafts, name=names, spec=specs)
    def begin_replacement(self, name: str, spec: StreamSpec) -> Draft:
        new = self._incarnation()
        self._same(lambda driver: driver.begin(name, spec=spec, incarnation=new))
        self.begun.append((name, new))
        return name, new

    @rule(draft=drafts, size=sizes, close=rarely, steps=producers)
    def append_to_draft(self, draft: Draft, size: int, close: bool, steps: Steps) -> None:
        name, incarnation = draft
        data, producer = self._data(size), self._producer(name, incarnation, steps)
        self._same(lambda driver: driver.append(name, data, close=close, producer=producer, incarnation=incarnation))

    @rule(draft=drafts, digests=st.sampled_from([{}, {"sha-256": b"\x00digest"}]))
    def publish(self, draft: Draft, digests: dict[str, bytes]) -> None:
        self._same(lambda driver: driver.publish(*draft, digests=digests))

    @rule(draft=drafts)
    def discard(self, draft: Draft) -> None:
        self._same(lambda driver: driver.discard(*draft))

    @rule(draft=drafts)
    def fail_draft(self, draft: Draft) -> None:
        name, incarnation = draft
        self._same(lambda driver: driver.fail(name, "the writer left", incarnation=incarnation))

    @rule(target=uploads, name=names, spec=specs, ttl=st.sampled_from([None, None, 10.0]))
    def begin_upload(self, name: str, spec: StreamSpec, ttl: float | None) -> Draft:
        new = self._incarnation()
        self._same(lambda driver: driver.begin_upload(name, spec=spec, ttl=ttl, incarnation=new))
        return name, new

    @rule(upload=uploads, writer=writers)
    def take_over(self, upload: Draft, writer: str | None) -> None:
        self._same(lambda driver: driver.take_over(*upload, writer))

    @rule(upload=uploads, size=sizes, writer=writers, durable=st.booleans())
    def append_to_upload(self, upload: Draft, size: int, writer: str | None, durable: bool) -> None:
        name, incarnation = upload
        data = self._data(size)
        self._same(lambda driver: driver.append(name, data, incarnation=incarnation, writer=writer, durable=durable))

    @rule(upload=uploads, writer=writers)
    def complete(self, upload: Draft, writer: str | None) -> None:
        self._same(lambda driver: driver.publish(*upload, writer=writer))

    @rule(upload=uploads, share=shares)
    def read_upload(self, upload: Draft, share: tuple[float, float]) -> None:
        name, incarnation = upload

        async def read(driver: Driver) -> bytes:
            with await driver.reader(name, incarnation=incarnation) as reader:
                return await read_range(reader, *_part(reader.info, share))

        self._same(read)

    @rule(upload=uploads)
    def delete_upload(self, upload: Draft) -> None:
        name, incarnation = upload
        self._same(lambda driver: driver.delete(name, incarnation=incarnation))

    @rule(name=names, attributes=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([None, 1, "x"])))
    def annotate(self, name: str, attributes: dict[str, object]) -> None:
        self._same(lambda driver: driver.annotate(name, attributes))

    @rule(name=names, size=sizes, spec=specs)
    def put(self, name: str, size: int, spec: StreamSpec) -> None:
        data, new = self._data(size), self._incarnation()
        self._same(lambda driver: driver.put(name, data, spec=spec, digests={"md5": b"1"}, incarnation=new))

    @rule(name=names, source=names, share=st.floats(0, 1), size=sizes, tail=st.booleans())
    def fork(self, name: str, source: str, share: float, size: int, tail: bool) -> None:
        end = self._tail(source)
        offset = None if end is None or tail else round(share * end)
        data, new = self._data(size), self._incarnation()
        self._same(lambda driver: driver.fork(name, source, offset, data, incarnation=new))

    @rule(share=st.floats(0, 1), name=names)
    def drop_beginning(self, name: str, share: float) -> None:
        tail = self._tail(name)
        if tail is not None:
            self._same(lambda driver: driver.drop_beginning(name, round(share * tail)))

    @rule(name=names)
    def renew(self, name: str) -> None:
        self._same(lambda driver: driver.renew(name))

    @rule()
    def reap_orphans(self) -> None:
        async def reap(driver: Driver) -> list[tuple[str, str]]:
            orphans = sorted((info.name, info.incarnation) for info in await driver.store.orphans(100))
            for name, incarnation in orphans:
                await driver.reap(name, incarnation=incarnation)
            return orphans

        self._same(reap)

    @rule(name=names)
    def fail(self, name: str) -> None:
        self._same(lambda driver: driver.fail(name, "it broke"))

    @rule(name=names)
    def delete(self, name: str) -> None:
        self._same(lambda driver: driver.delete(name))

    @rule(name=names)
    def expire(self, name: str) -> None:
        self._same(lambda driver: driver.expire(name))

    @rule(name=names, algorithm=st.sampled_from(["sha-256", "md5"]), digest=st.binary(max_size=4))
    def add_digest(self, name: str, algorithm: str, digest: bytes) -> None:
        self._same(lambda driver: driver.add_digest(name, algorithm, digest))

    # -- looks

    @rule(name=names, share=shares)
    def read(self, name: str, share: tuple[float, float]) -> None:
        async def read(driver: Driver) -> bytes:
            with await driver.reader(name) as reader:
                return await read_range(reader, *_part(reader.info, share))

        self._same(read)

    @rule(name=names, producer=st.sampled_from(PRODUCERS))
    def look_at_a_producer(self, name: str, producer: str) -> None:
        self._same(lambda driver: driver.view(name, producer=producer))

    @rule(draft=drafts, producer=st.sampled_from(PRODUCERS))
    def look_at_a_draft(self, draft: Draft, producer: str) -> None:
        name, incarnation = draft
        self._same(lambda driver: driver.view(name, incarnation=incarnation, producer=producer))

    @rule(
        prefix=st.sampled_from(["", "a", "a/", "a%", "\uffff"]),
        after=st.one_of(st.just(""), names),
        limit=st.integers(1, 6),
    )
    def list_page(self, prefix: str, after: str, limit: int) -> None:
        self._same(lambda driver: driver.store.list(prefix, after, limit))

    @rule(by=st.sampled_from([0.0, 1.0, 25.0]))
    def list_expired(self, by: float) -> None:
        async def expired(driver: Driver) -> list[str]:
            return sorted(info.name for info in await driver.store.expired(driver.now + by, 100))

        self._same(expired)

    @rule(owner=st.sampled_from(["ann", "bob"]))
    def count(self, owner: str) -> None:
        self._same(lambda driver: driver.store.usage(owner))

    @rule(owner=owners)
    def find(self, owner: str | None) -> None:
        async def found(driver: Driver) -> float | None:  # of several that are as young, either may be found
            info = await driver.store.find(owner, "k")
            return None if info is None else info.created_at

        self._same(found)

    @rule(name=names)
    def open_reader(self, name: str) -> None:
        async def both() -> None:
            mine, model = await self.lab.store.open(name), await self.model.store.open(name)
            if mine is not None and model is not None:
                first = model.info.start
                data = await read_range(model, first, model.info.tail)
                self.readers.append(_Readers(mine, model, not model.info.closed, first, data))
            else:
                assert (mine, model) == (None, None)

        self.runner.run(both())

    @precondition(lambda self: self.readers)
    @rule(index=st.integers(0, 99), share=shares)
    def read_from_reader(self, index: int, share: tuple[float, float]) -> None:
        readers = self.readers[index % len(self.readers)]
        start, stop = _part(readers.model.info, share)
        expected = self.runner.run(_outcome(read_range(readers.model, start, stop)))
        actual = self.runner.run(_outcome(read_range(readers.mine, start, stop)))
        info, data = readers.model.info, readers.data[start - readers.first : stop - readers.first]
        if readers.opened_open and self._is_gone(info):
            # It may return what it still has, or say that the stream is gone.
            assert actual == data or actual == self._gone(info) or self._is_dropped(actual)
        elif self._is_dropped(expected):
            assert actual == data or self._is_dropped(actual)
        else:
            assert actual == expected == data

    @precondition(lambda self: self.readers)
    @rule(index=st.integers(0, 99))
    def refresh_reader(self, index: int) -> None:
        readers = self.readers[index % len(self.readers)]
        self._same_of(readers.mine.refresh(), readers.model.refresh())
        info = readers.model.info
        assert readers.mine.info == info
        if (info.start, info.tail) != (readers.first, readers.first + len(readers.data)):
            readers.first = info.start
            outcome = self.runner.run(_outcome(read_range(readers.model, info.start, info.tail)))
            readers.data = outcome if isinstance(outcome, bytes) else readers.data

    @precondition(lambda self: self.readers)
    @rule(index=st.integers(0, 99))
    def close_reader(self, index: int) -> None:
        self.readers.pop(index % len(self.readers)).close()

    # -- what happens around

    @rule(seconds=st.sampled_from([0.25, 1.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.lab.now += seconds
        self.model.now += seconds

    @rule()
    def tidy(self) -> None:
        self.runner.run(self.lab.store.tidy())

    @precondition(lambda self: self.harness.persistent)
    @rule()
    def restart(self) -> None:
        self._reopen(crash=False)

    @precondition(lambda self: self.harness.persistent and self.harness.can_crash)
    @rule()
    def crash(self) -> None:
        self._reopen(crash=True)

    @invariant()
    def shows_the_same_streams(self) -> None:
        self._same(lambda driver: driver.store.list("", "", 100))

    # -- how

    def _reopen(self, *, crash: bool) -> None:
        self._close_readers()
        self.runner.run(self.lab.reopen(crash=crash))
        for name, incarnation in self.begun:
            self.runner.run(self.model.discard(name, incarnation))
        self._same(_everything)

    def _close_readers(self) -> None:
        while self.readers:
            self.readers.pop().close()

    def _same(self, act: Callable[[Driver], Awaitable[Any]]) -> None:
        self._same_of(act(self.lab), act(self.model))

    def _same_of(self, mine: Awaitable[Any], model: Awaitable[Any]) -> None:
        expected = self.runner.run(_outcome(model))
        actual = self.runner.run(_outcome(mine))
        assert actual == expected

    def _data(self, size: int) -> bytes:
        return flow(f"data {next(self.numbers)}", 0, size)

    def _incarnation(self) -> str:
        return f"{next(self.numbers):016x}"

    def _view(self, name: str, incarnation: str | None = None, producer: str | None = None) -> View:
        return self.runner.run(self.model.view(name, incarnation=incarnation, producer=producer))

    def _is_dropped(self, outcome: object) -> bool:
        return isinstance(outcome, tuple) and outcome[0] is OffsetOutOfRange

    def _is_gone(self, info: StreamInfo) -> bool:
        return self._view(info.name, info.incarnation).target is None

    def _gone(self, info: StreamInfo) -> object:
        return StreamGone, vars(StreamGone(info.name, info.incarnation))

    def _tail(self, name: str) -> int | None:
        target = self._view(name).target
        return None if target is None else target.tail

    def _producer(self, name: str, incarnation: str | None, steps: Steps) -> Producer | None:
        if steps is None:
            return None
        producer, epochs, sequences = steps
        known = self._view(name, incarnation, producer).producer
        if known is None:
            return Producer(producer, 1 + epochs, max(0, sequences - 1))
        if epochs:
            return Producer(producer, known.producer.epoch + epochs, 0)
        return Producer(producer, known.producer.epoch, max(0, known.producer.sequence + sequences))


def _part(info: StreamInfo, share: tuple[float, float]) -> tuple[int, int]:
    start, stop = sorted(info.start + round(part * (info.tail - info.start)) for part in share)
    return start, stop


async def _everything(driver: Driver) -> object:
    streams = await driver.all()
    return streams, [await driver.view(name, producer=producer) for name in streams for producer in PRODUCERS]


async def _outcome(work: Awaitable[Any]) -> object:
    """Return what came of it in a form that can be compared: a store makes the same error, not the same object."""
    try:
        result = await work
    except PenstockError as error:
        return type(error), vars(error)
    if isinstance(result, Change):
        return result.info, result.offset, result.duplicate
    return result


def store_machine(harness: StoreHarness) -> type[StoreMachine]:
    """Return a Hypothesis state machine for the stores that ``harness`` makes.

    ::

        TestMyStoreMachine = store_machine(MyHarness()).TestCase

    Set ``TestMyStoreMachine.settings`` for a longer search than the short one that it begins with.
    """
    machine: type[StoreMachine] = type(f"{type(harness).__name__}Machine", (StoreMachine,), {"harness": harness})
    machine.TestCase.settings = settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        phases=set(Phase) - {Phase.explain},  # it takes long, and says little of a sequence of steps
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return machine
