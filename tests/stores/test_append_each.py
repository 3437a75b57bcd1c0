"""Several appends together: each is as it would have been alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import ContentTypeMismatch, StreamClosed, StreamNotFound, Streams, StreamSpec
from penstock.core import rules
from penstock.core.ports import CollectingStore, Store
from penstock.core.service import Append, Put
from penstock.errors import InvalidName, StorageFailed
from penstock.model import Appended, StreamInfo
from penstock.stores.local import LocalStore
from penstock.stores.memory import MemoryStore

LINES = StreamSpec(content_type="text/plain")


@pytest.fixture(params=["local", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Streams]:
    return lambda: Streams(tmp_path / "data" if request.param == "local" else ":memory:")


async def content(streams: Streams, name: str) -> bytes:
    return b"".join([bytes(chunk.data) async for chunk in streams.read(name)])


def test_the_stores_are_one_with_the_ability_and_one_without(tmp_path: Path) -> None:
    with_it: Store = LocalStore(tmp_path / "data")
    without: Store = MemoryStore()
    assert isinstance(with_it, CollectingStore)
    assert not isinstance(without, CollectingStore)


async def test_each_has_its_own_outcome_in_their_order(opened: Callable[[], Streams]) -> None:
    async with opened() as streams:
        for name in ("a", "b", "ended"):
            await streams.create(name, LINES)
        await streams.append("ended", (b"x",), close=True)
        outcomes = await streams.append_each(
            [
                Append("a", b"1"),
                Append("absent", b"2"),
                Append("b", b"3", "text/plain"),
                Append("a", b"4", "image/png"),
                Append("a", b"56"),
                Append("ended", b"7"),
                Append("", b"8"),
                Append("a", b"9"),
            ]
        )
        offsets = [outcome.offset if isinstance(outcome, Appended) else type(outcome) for outcome in outcomes]
        assert offsets == [1, StreamNotFound, 1, ContentTypeMismatch, 3, StreamClosed, StreamNotFound, 4]
        assert [await content(streams, name) for name in ("a", "b", "ended")] == [b"1569", b"3", b"x"]
        last = outcomes[-1]
        assert isinstance(last, Appended)
        assert last.info == await streams.info("a")


async def test_a_wrong_name_among_several_is_its_own_loss(opened: Callable[[], Streams]) -> None:
    async with opened() as streams:
        outcomes = await streams.put_each([Put(name, b"x", LINES) for name in ("a", "b//c", "d")])
        assert [type(outcome) for outcome in outcomes] == [StreamInfo, InvalidName, StreamInfo]
        assert {info.name for info in (await streams.list()).streams} == {"a", "d"}


async def test_followers_hear_of_them(opened: Callable[[], Streams]) -> None:
    async with opened() as streams:
        await streams.create("a", LINES)
        following = aiter(streams.follow("a", 0))
        first = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        await streams.append_each([Append("a", b"1"), Append("a", b"2")])
        chunk = await asyncio.wait_for(first, 5)  # sooner than a follower looks by itself
        assert bytes(chunk.data) == b"12"
        await following.aclose()  # type: ignore[attr-defined]  # it is an asynchronous generator


async def test_they_are_there_after_a_crash(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    streams = Streams(store)
    await streams.start()
    await streams.create("a", LINES)
    await streams.append_each([Append("a", b"%d" % number) for number in range(10)])
    store.abandon()
    async with Streams(tmp_path / "data") as reopened:
        assert await content(reopened, "a") == b"0123456789"


async def test_what_is_partly_in_its_file_is_appended_to_as_ever(tmp_path: Path) -> None:
    """A stream with bytes in its file that are not on the disk yet has that brought there with the append."""
    store = LocalStore(tmp_path / "data")
    async with Streams(store) as streams:
        for name in ("a", "b"):
            await streams.create(name, LINES)
        await streams.commit(
            "a", lambda view: rules.append(view, "a", [bytes(100_000)], now=1.0), size=100_000, durable=False
        )
        outcomes = await streams.append_each([Append("a", b"1"), Append("b", b"2"), Append("a", b"3")])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)
        assert await content(streams, "a") == bytes(100_000) + b"13"
        assert await content(streams, "b") == b"2"


async def test_a_store_that_is_stopped_says_so(tmp_path: Path) -> None:
    streams = Streams(tmp_path / "data")
    async with streams:
        await streams.create("a", LINES)
    with pytest.raises(StorageFailed):
        await streams.append_each([Append("a", b"1")])
