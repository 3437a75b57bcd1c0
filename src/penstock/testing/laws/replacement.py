"""Replacements: written unseen, published in one step."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from penstock.core.ports import View
from penstock.errors import StreamGone
from penstock.model import Producer, ProducerState, StreamSpec
from penstock.testing.driver import flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law


class ReplacementLaws(StoreHarness):
    """Drafts, their publication, and what becomes of the stream that was there before."""

    @law
    async def test_a_replacement_of_nothing_is_seen_as_it_grows(self, lab: Lab) -> None:
        new = await lab.begin("s", spec=StreamSpec(content_type="text/plain"))
        await lab.append("s", b"abc", incarnation=new)
        info = await lab.info("s")
        assert (info.incarnation, info.published, info.provisional, info.tail) == (new, True, True, 3)
        assert await lab.content("s") == b"abc"
        assert await lab.names() == ["s"]
        await lab.publish("s", new, digests={"sha-256": b"digest"})
        info = await lab.info("s")
        assert (info.complete, info.provisional, info.digests) == (True, False, {"sha-256": b"digest"})

    @law
    async def test_an_unpublished_replacement_is_seen_by_nobody(self, lab: Lab) -> None:
        await lab.put("s", b"old")
        before = await lab.all()
        draft = await lab.begin("s", spec=StreamSpec(expires_at=lab.now + 1))
        for size in (3, 100_000, 1_100_000):
            await lab.append("s", bytes(size), incarnation=draft)
            assert await lab.all() == before
            assert (await lab.view("s")).target == before["s"][0]
        assert list(await lab.store.expired(lab.now + 1, 10)) == []

    @law
    async def test_a_commit_sees_the_draft_as_its_target_and_what_the_name_shows_as_current(self, lab: Lab) -> None:
        old = await lab.put("s", b"old")
        draft = await lab.begin("s", spec=StreamSpec(length=4, metadata={"a": "b"}))
        await lab.append("s", b"ne", incarnation=draft)
        appended = await lab.append("s", b"w!", incarnation=draft, producer=Producer("p", 0, 0))
        view = await lab.view("s", incarnation=draft, producer="p")
        assert view == View(appended.info, old.info, ProducerState(Producer("p", 0, 0), 4))
        assert view.target is not None
        assert (view.target.published, view.target.provisional, view.target.tail) == (False, True, 4)

    @law
    async def test_a_published_replacement_takes_the_place_of_the_old_stream(self, lab: Lab) -> None:
        for sizes in ((3, 4), (2_000_000, 5), (5, 2_000_000), (500_000, 600_000)):
            old = await lab.put("s", bytes(sizes[0]))
            draft = await lab.begin("s")
            await lab.append("s", flow("s", 0, sizes[1]), incarnation=draft)
            published = await lab.publish("s", draft, digests={"md5": b"1"})
            assert old.info is not None
            info = await lab.info("s")
            assert info == published.info
            assert (info.incarnation, info.tail, info.complete, info.published) == (draft, sizes[1], True, True)
            assert await lab.content("s") == flow("s", 0, sizes[1])
            assert await lab.names() == ["s"]
            assert (await lab.view("s", incarnation=old.info.incarnation)).target is None

    @law
    async def test_a_name_shows_the_old_stream_or_the_new_one_and_never_none(self, lab: Lab) -> None:
        await lab.put("s", b"old" * 30_000)
        draft = await lab.begin("s")
        await lab.append("s", b"new" * 500_000, incarnation=draft)
        publishing = asyncio.create_task(lab.publish("s", draft))
        for _ in range(200):
            info = await lab.info("s")
            assert (info.incarnation == draft) == (info.tail == 1_500_000)
            with await lab.reader("s") as reader:
                assert await read_range(reader, 0, 3) == (b"new" if reader.info.incarnation == draft else b"old")
            if publishing.done():
                break
            await asyncio.sleep(0)
        await publishing
        assert (await lab.info("s")).incarnation == draft

    @law
    async def test_readers_of_the_replaced_stream_finish_it(self, lab: Lab) -> None:
        for size in (30, 3_000_000):
            name = f"s{size}"
            await lab.put(name, flow(name, 0, size))
            with await lab.reader(name) as reader:
                assert await read_range(reader, 0, 10) == flow(name, 0, 10)
                draft = await lab.begin(name)
                await lab.append(name, b"new", incarnation=draft)
                await lab.publish(name, draft)
                await lab.store.tidy()
                assert await read_range(reader, 10, size) == flow(name, 10, size - 10)
                assert reader.info.tail == size
                with pytest.raises(StreamGone):
                    await reader.refresh()
            assert await lab.content(name) == b"new"

    @law
    async def test_a_whole_stream_can_be_replaced_in_one_step(self, lab: Lab) -> None:
        for number, size in enumerate((0, 5, 300_000, 1, 2_500_000, 0)):
            lab.now += 1
            data = flow(f"s{number}", 0, size)
            change = await lab.put("s", data, spec=StreamSpec(length=size), digests={"sha-256": bytes([number])})
            assert await lab.info("s") == change.info
            assert await lab.content("s") == data
            assert await lab.names() == ["s"]

    @law
    async def test_a_discarded_replacement_leaves_no_trace(self, lab: Lab) -> None:
        await lab.put("s", b"old")
        before = await lab.all()
        for size in (3, 2_000_000):
            draft = await lab.begin("s")
            await lab.append("s", bytes(size), incarnation=draft)
            await lab.discard("s", draft)
            await lab.store.tidy()
            assert await lab.all() == before
            assert (await lab.view("s", incarnation=draft)).target is None
            with pytest.raises(StreamGone):
                await lab.append("s", b"late", incarnation=draft)
            with pytest.raises(StreamGone):
                await lab.publish("s", draft)
        assert await lab.all() == before

    @law
    async def test_drafts_of_one_name_do_not_mix_and_the_last_published_stays(self, lab: Lab) -> None:
        await lab.put("s", b"old")
        drafts = [await lab.begin("s") for _ in range(4)]
        for size in (10, 100_000):
            await asyncio.gather(*(lab.append("s", draft.encode() * size, incarnation=draft) for draft in drafts))
        for draft in drafts[:3]:
            await lab.publish("s", draft)
            with await lab.reader("s") as reader:
                assert reader.info.incarnation == draft
                assert await read_range(reader, 0, reader.info.tail) == draft.encode() * 100_010
        await lab.discard("s", drafts[3])
        assert (await lab.info("s")).incarnation == drafts[2]

    @law
    async def test_a_draft_outlives_the_stream_that_it_was_to_replace(self, lab: Lab) -> None:
        await lab.put("s", b"old")
        draft = await lab.begin("s")
        await lab.append("s", b"draft", incarnation=draft)
        await lab.delete("s")
        assert await lab.store.load("s") is None
        assert await lab.names() == []
        await lab.append("s", b"ed", incarnation=draft)
        await lab.publish("s", draft)
        assert await lab.content("s") == b"drafted"

    @law
    async def test_a_producer_of_a_draft_is_known_to_the_published_stream(self, lab: Lab) -> None:
        await lab.create("s", b"old", producer=Producer("p", 5, 0), close=True)
        draft = await lab.begin("s")
        assert (await lab.view("s", incarnation=draft, producer="p")).producer is None
        await lab.append("s", b"new", incarnation=draft, producer=Producer("p", 1, 0))
        await lab.publish("s", draft)
        assert (await lab.view("s", producer="p")).producer == ProducerState(Producer("p", 1, 0), 3)

    @law
    async def test_an_expired_stream_gives_way_to_a_replacement_at_once(self, lab: Lab) -> None:
        old = await lab.create("s", b"old", spec=StreamSpec(expires_at=lab.now + 1))
        lab.now += 1
        new = await lab.begin("s")
        assert old.info is not None
        info = await lab.info("s")
        assert (info.incarnation, info.published, info.provisional) == (new, True, True)
        assert (await lab.view("s", incarnation=old.info.incarnation)).target is None

    @law
    async def test_a_broken_replacement_of_nothing_stays_with_what_arrived(self, lab: Lab) -> None:
        new = await lab.begin("s")
        await lab.append("s", b"abc", incarnation=new)
        failed = await lab.fail("s", "the client left", incarnation=new)
        assert failed.info is not None
        assert not failed.info.provisional
        assert await lab.all() == {"s": (replace(failed.info), b"abc")}
