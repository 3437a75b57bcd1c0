"""Values: what goes in comes out, and a name is only ever a name."""
# ruff: noqa: D102, S101 - these are tests: a name says what it proves, and assert is how pytest asserts

from __future__ import annotations

from dataclasses import replace

from penstock.model import StreamInfo, StreamSpec, check_name
from penstock.testing.harness import Lab, StoreHarness, law

SPECS = {
    "plain": StreamSpec(),
    "empty": StreamSpec(content_type="", length=0, metadata={}, ttl=0.0, expires_at=0.0),
    "text": StreamSpec(content_type='text/plain; charset="utf-8"; x=\u00e9', metadata={"filename": "\U0001f600.pdf"}),
    "odd text": StreamSpec(metadata={"": "", "empty": "", "a\x00b": "c\x00d\r\n\t", "'": '"\\', "\u2028": "\ue000"}),
    "large metadata": StreamSpec(metadata={f"key {number}": "v" * 500 for number in range(50)}),
    "huge length": StreamSpec(length=2**53 + 1),
    "long ago": StreamSpec(ttl=0.1, expires_at=-1.5),
    "far away": StreamSpec(ttl=1e15, expires_at=1e300),
    "fractions": StreamSpec(ttl=1 / 3, expires_at=1_700_000_000.1234567),
}  # fmt: skip

NAMES = [
    *(".hidden", "...", "a/.../b", "~", "~root/x", "C:/Windows/win.ini", "CON", "nul.txt", "COM1", "a:b", "a::$DATA"),
    *("%2e%2e%2fetc%2fpasswd", "..%2f", "-rf", "--help", " leading", "trailing ", "trailing.", " ", "   /   "),
    *("'; DROP TABLE streams; --", '"quoted"', "`id`", "$(id)", "${HOME}", "a|b>c<d&e", "*", "?", "[a-z]", "%", "_"),
    *("a?b=c#d", "http://x".replace("//", "/"), "null", "None", "true", "0", "1e3", "{}", "{0}", "%s", "%d"),
    *("data.sqlite", "index.db-wal", "catalog", "streams/0", "tmp", "lock"),
    *("A", "a", "\u00e9", "e\u0301", "\u212b", "\u00c5", "\u0130", "i\u0307", "\u00df", "ss", "\ufb01", "fi"),
    *("\u202egnp.exe", "\ufeffbom", "zero\u200bwidth", "\u00a0", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    *("\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "\U0010ffff", "\u65e5\u672c\u8a9e/\u30d5"),
    *("x" * 1024, "x" * 1023 + "y", "x" * 255, "x" * 256, "\u00e9" * 512, "\U0001f600" * 256, "a/" * 511 + "bc"),
]  # fmt: skip


class ValueLaws(StoreHarness):
    """Round trips."""

    async def _seen(self, lab: Lab, name: str) -> list[StreamInfo | None]:
        with await lab.reader(name) as reader:
            opened = reader.info
            refreshed = await reader.refresh()
        (listed,) = await lab.store.list(name, "", 1)
        return [await lab.store.load(name), opened, refreshed, listed, (await lab.view(name)).target]

    @law
    async def test_everything_that_the_creator_says_comes_back(self, lab: Lab) -> None:
        for name, spec in SPECS.items():
            lab.now += 0.001
            change = await lab.create(name, spec=spec)
            info = change.info
            assert info is not None
            assert StreamSpec(
                content_type=info.content_type,
                length=info.length,
                metadata=info.metadata,
                ttl=info.ttl,
                expires_at=info.expires_at,
            ) == replace(spec, metadata=info.metadata)
            for seen in await self._seen(lab, name):
                assert seen == info
                assert seen is not None
                assert dict(seen.metadata) == dict(spec.metadata)
                assert (seen.created_at, seen.modified_at) == (lab.now, lab.now)
                assert isinstance(seen.closed, bool)
                assert isinstance(seen.published, bool)
                assert isinstance(seen.provisional, bool)

    @law
    async def test_none_and_empty_are_not_the_same(self, lab: Lab) -> None:
        await lab.create("none", spec=SPECS["plain"])
        await lab.create("empty", spec=SPECS["empty"])
        none, empty = await lab.store.load("none"), await lab.store.load("empty")
        assert none is not None
        assert empty is not None
        assert (none.length, none.ttl, none.expires_at, none.failure) == (None, None, None, None)
        assert (empty.length, empty.ttl, empty.expires_at, empty.content_type) == (0, 0, 0, "")
        lab.now -= 1  # before its time had come
        await lab.create("broken", spec=StreamSpec())
        await lab.fail("broken", "")
        broken = await lab.info("broken")
        assert (broken.failure, broken.state) == ("", "failed")

    @law
    async def test_what_the_creator_said_outlives_appends_and_the_close(self, lab: Lab) -> None:
        spec = StreamSpec(content_type="a/b", length=5, metadata={"k": "v"}, ttl=60, expires_at=lab.now + 90)
        created = await lab.create("s", spec=spec)
        assert created.info is not None
        created_at = lab.now
        for data, close in ((b"ab", False), (b"cde", True)):
            lab.now += 1
            await lab.append("s", data, close=close)
        expected = replace(created.info, tail=5, closed=True, created_at=created_at, modified_at=lab.now)
        assert await self._seen(lab, "s") == [expected] * 5

    @law
    async def test_digests_come_back_byte_for_byte(self, lab: Lab) -> None:
        digests = {"sha-256": bytes(range(32)), "md5": b"\xff" * 16, "x-empty": b"", "x-text": b"'; --\x00"}
        change = await lab.put("s", b"abc", digests=digests)
        assert await self._seen(lab, "s") == [change.info] * 5
        assert dict((await lab.info("s")).digests) == digests
        assert all(isinstance(digest, bytes) for digest in (await lab.info("s")).digests.values())

    @law
    async def test_names_are_kept_as_they_are_and_touch_nothing_outside(self, lab: Lab) -> None:
        around = sorted(lab.path.parent.iterdir())
        for number, name in enumerate(NAMES):
            check_name(name)
            await lab.create(name, str(number).encode())
            if number % 5 == 0:
                await lab.append(name, bytes(80_000))
        assert await lab.names() == sorted(NAMES, key=str.encode)
        for number, name in enumerate(NAMES):
            info = await lab.info(name)
            assert info.name == name
            assert (await lab.content(name)).rstrip(b"\0") == str(number).encode()
        assert sorted(lab.path.parent.iterdir()) == around
        for name in NAMES[::2]:
            await lab.delete(name)
        await lab.store.tidy()
        assert await lab.names() == sorted(NAMES[1::2], key=str.encode)
