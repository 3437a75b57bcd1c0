"""All streams of a prefix, however many pages they are."""

from __future__ import annotations

from penstock import Streams, StreamSpec
from penstock.core import rules
from penstock.core.service.reading import PAGE
from penstock.model import RESERVED


async def test_every_stream_comes_once_and_in_order_over_several_pages() -> None:
    names = [f"many/{number:05}" for number in range(2 * PAGE + 1)]
    async with Streams(":memory:") as streams:
        for name in ("a", *names, "z"):
            await streams.create(name)
        assert [info.name async for info in streams.list_all("many/")] == names
        assert [info.name async for info in streams.list_all()] == ["a", *names, "z"]
        assert [info.name async for info in streams.list_all("none/")] == []


async def test_the_servers_own_come_to_who_asks_for_them() -> None:
    async with Streams(":memory:") as streams:
        await streams.create("a")
        own = f"{RESERVED}/own"
        await streams.commit(own, lambda view: rules.create(view, own, StreamSpec(), incarnation="0" * 16, now=0.0))
        assert [info.name async for info in streams.list_all()] == ["a"]
        assert [info.name async for info in streams.list_all(reserved=True)] == [own, "a"]
