"""Uploads that outlive their writers, whose they are, and what protocols keep with a stream."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

import pytest

from penstock.errors import StreamBusy, StreamGone, WriterEvicted
from penstock.model import StreamSpec, Usage
from penstock.testing.driver import Driver, flow, read_range
from penstock.testing.harness import Lab, StoreHarness, law, law_if


async def upload(driver: Driver, name: str, incarnation: str, *sizes: int, durable: bool = True) -> None:
    """Append to an upload, as a new writer."""
    info = (await driver.take_over(name, incarnation, f"w{driver.now}")).info
    assert info is not None
    tail = info.tail
    for size in sizes:
        data = flow(incarnation, tail, size)
        await driver.append(name, data, incarnation=incarnation, writer=info.writer, durable=durable)
        tail += size


class UploadLaws(StoreHarness):
    """Streams that are written by one request after another, shown or not."""

    @law
    async def test_an_unpublished_upload_is_reached_by_its_incarnation_alone(self, lab: Lab) -> None:
        for size in (3, 300_000, 2_500_000):
            name = f"s{size}"
            await lab.put(name, b"old")
            old = await lab.info(name)
            new = await lab.begin_upload(name)
            await upload(lab, name, new, size)
            assert await lab.info(name) == old
            info = await lab.store.load(name, incarnation=new)
            assert info is not None
            assert (info.incarnation, info.published, info.upload, info.tail) == (new, False, True, size)
            assert await lab.content(name, incarnation=new) == flow(new, 0, size)
            assert await lab.content(name, incarnation=old.incarnation) == b"old"
            for other in ("elsewhere", "s"):
                assert await lab.store.load(other, incarnation=new) is None
                assert await lab.store.open(other, incarnation=new) is None
            assert await lab.store.load(name, incarnation="none") is None
            assert await lab.store.open(name, incarnation="none") is None

    @law
    async def test_only_the_last_writer_appends(self, lab: Lab) -> None:
        new = await lab.begin_upload("s")
        await lab.take_over("s", new, "one", offset=0)
        await lab.append("s", b"abc", incarnation=new, writer="one")
        await lab.take_over("s", new, "two", offset=3)
        for size in (3, 100_000):
            with pytest.raises(WriterEvicted):
                await lab.append("s", bytes(size), incarnation=new, writer="one")
            with pytest.raises(StreamBusy):
                await lab.append("s", bytes(size), incarnation=new)
        await lab.append("s", b"def", incarnation=new, writer="two")
        with pytest.raises(WriterEvicted):
            await lab.publish("s", new, writer="one")
        await lab.publish("s", new, writer="two")
        assert await lab.content("s") == b"abcdef"
        info = await lab.info("s")
        assert (info.complete, info.upload, info.writer) == (True, False, None)

    @law
    async def test_a_reader_of_an_upload_follows_it_until_it_is_deleted(self, lab: Lab) -> None:
        await lab.put("s", b"old")
        new = await lab.begin_upload("s")
        with await lab.reader("s", incarnation=new) as reader:
            for size in (10, 200_000, 7):
                await upload(lab, "s", new, size)
            info = await reader.refresh()
            assert await read_range(reader, 0, info.tail) == flow(new, 0, 200_017)
            await lab.delete("s", incarnation=new)
            with pytest.raises(StreamGone):
                await reader.refresh()
        assert await lab.content("s") == b"old"

    @law
    async def test_an_upload_expires_for_want_of_progress_until_it_is_complete(self, lab: Lab) -> None:
        await lab.put("hidden", b"old")
        uploads = {name: await lab.begin_upload(name, ttl=10) for name in ("hidden", "shown")}
        lab.now += 9
        await upload(lab, "shown", uploads["shown"], 5)
        await upload(lab, "hidden", uploads["hidden"], 5)
        assert list(await lab.store.expired(lab.now + 9, 10)) == []
        found = await lab.store.expired(lab.now + 10, 10)
        assert {info.incarnation for info in found} == set(uploads.values())
        for name, incarnation in uploads.items():
            await lab.take_over(name, incarnation, "last")
            await lab.publish(name, incarnation, writer="last")
        assert list(await lab.store.expired(lab.now + 1000, 10)) == []

    @law_if("persistent")
    async def test_uploads_outlive_their_store(self, lab: Lab) -> None:
        await lab.put("hidden", b"old")
        uploads = {name: await lab.begin_upload(name, ttl=60) for name in ("hidden", "shown")}
        for name, incarnation in uploads.items():
            await upload(lab, name, incarnation, 10, 100_000, 1_200_000)
        for crash in (False, True) if self.can_crash else (False,):
            await lab.reopen(crash=crash)
            await lab.store.tidy()
            for name, incarnation in uploads.items():
                info = await lab.store.load(name, incarnation=incarnation)
                assert info is not None
                assert (info.upload, info.upload_ttl, info.published) == (True, 60, name == "shown")
                assert await lab.content(name, incarnation=incarnation) == flow(incarnation, 0, info.tail)
                await upload(lab, name, incarnation, 10)
        assert await lab.content("hidden") == b"old"

    @law
    async def test_attributes_are_kept_with_every_change(self, lab: Lab) -> None:
        spec = StreamSpec(attributes={"a": 1, "b": ["x", None, {"\u00fc": 1.5}]})
        await lab.create("s", spec=spec)
        assert (await lab.info("s")).attributes == spec.attributes
        await lab.annotate("s", {"a": None, "c": True})
        await lab.append("s", b"abc")
        await lab.append("s", bytes(100_000), close=True)
        assert (await lab.info("s")).attributes == {"b": spec.attributes["b"], "c": True}
        await lab.annotate("s", {"b": None, "c": None})
        assert (await lab.info("s")).attributes == {}

    @law
    async def test_a_stream_is_found_by_its_owner_and_key(self, lab: Lab) -> None:
        await lab.create("one", spec=StreamSpec(owner="ann", key="k"))
        await lab.create("two", spec=StreamSpec(owner="bob", key="k"))
        await lab.create("three", spec=StreamSpec(key="k"))
        await lab.create("four", spec=StreamSpec(owner="ann"))
        lab.now += 1
        await lab.put("five", b"old")
        await lab.begin_upload("five", spec=StreamSpec(owner="bob", key="k2"))
        for owner, key, name in [
            ("ann", "k", "one"),
            ("bob", "k", "two"),
            (None, "k", "three"),
            ("bob", "k2", "five"),
            ("ann", "k2", None),
            ("zoe", "k", None),
        ]:
            info = await lab.store.find(owner, key)
            assert (None if info is None else info.name) == name
        await lab.create("younger", spec=StreamSpec(owner="ann", key="k"))
        assert (await lab.store.find("ann", "k")) == await lab.info("younger")
        await lab.delete("younger")
        assert (await lab.store.find("ann", "k")) == await lab.info("one")

    @law
    async def test_what_an_owner_has_is_counted(self, lab: Lab) -> None:
        assert await lab.store.usage("ann") == Usage(0, 0)
        await lab.put("done", b"12345", spec=StreamSpec(owner="ann"))
        await lab.put("other", b"12345", spec=StreamSpec(owner="bob"))
        await lab.put("nobody's", b"12345")
        declared = await lab.begin_upload("declared", spec=StreamSpec(owner="ann", length=100_000))
        await lab.begin_upload("done", spec=StreamSpec(owner="ann", length=7))
        growing = await lab.begin_upload("growing", spec=StreamSpec(owner="ann"))
        assert await lab.store.usage("ann") == Usage(4, 100_012)
        await upload(lab, "growing", growing, 70_000)
        await upload(lab, "declared", declared, 100_000)
        assert await lab.store.usage("ann") == Usage(4, 170_012)
        await lab.delete("growing")
        assert await lab.store.usage("ann") == Usage(3, 100_012)
