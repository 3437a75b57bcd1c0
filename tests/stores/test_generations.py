"""Numbers that tell, in every process, that what a name shows has not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import StreamGone, Streams, StreamSpec
from penstock.stores.local import LocalStore
from penstock.stores.local.generations import Generations

LINES = StreamSpec(content_type="text/plain")


async def test_every_change_of_what_a_name_shows_changes_its_number_for_all(tmp_path: Path) -> None:
    async with Streams(tmp_path / "data") as one, Streams(tmp_path / "data") as other:
        seen = [one.generation("a")]

        def changed() -> bool:
            assert one.generation("a") == other.generation("a")
            seen.append(other.generation("a"))
            return seen[-1] is not None and seen[-1] not in seen[:-1]

        await one.create("a", LINES)
        assert changed()
        await other.append("a", (b"1",))
        assert changed()
        await one.append("a", (bytes(100_000),))  # through the file
        assert changed()
        await one.append_each([])
        await other.load("a")
        assert not changed()
        await other.close("a")
        assert changed()
        await one.put("a", (b"new",))
        assert changed()
        draft = await other.replace("a")
        async with draft:
            await draft.write([b"newer"])
            await draft.publish()
        assert changed()
        await one.delete("a")
        assert changed()


async def test_an_append_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async with Streams(tmp_path / "data") as streams:
        await streams.create("a", LINES)
        before = streams.generation("a")
        with pytest.raises(StreamGone):
            await streams.append("a", (b"1",), incarnation="another")
        assert streams.generation("a") == before


async def test_what_an_ended_process_was_writing_changes_its_name_when_it_is_discarded(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    ended = Streams(store)
    await ended.start()
    await ended.replace("a")  # shown from the start, as it is the first of its name
    before = ended.generation("a")
    store.abandon()
    async with Streams(tmp_path / "data") as streams:
        assert await streams.load("a") is None
        assert streams.generation("a") != before


async def test_who_ends_in_the_middle_of_a_commit_leaves_it_uncertain_until_the_next(tmp_path: Path) -> None:
    async with Streams(tmp_path / "data") as streams:
        await streams.create("a", LINES)
        before = streams.generation("a")
        ended = Generations(tmp_path / "data" / "generations")
        ended.begin(["a"])
        ended.close()
        assert streams.generation("a") is None
        await streams.append("a", (b"1",))
        assert streams.generation("a") not in {None, before}


def test_a_store_without_them_cannot_tell() -> None:
    assert Streams(":memory:").generation("a") is None
