from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidName
from penstock.model import Chunk, StreamInfo, check_name, new_incarnation

ACCEPTED = [
    *("a", "a/b", "a/b/c.txt", "with space", " ", "...", ".hidden", "a/...", "..a", "a..", "~", "-rf", "a:b", "C:/x"),
    *("%2e%2e", "..%2f", "a?b#c", "*", "'; DROP TABLE streams; --", '"', "é", "e\u0301", "日本語", "\U0001f600"),
    *("\u00a0", "\u200b", "\u202e", "\ufeff", "\ud7ff", "\ue000", "\uffff", "\U0010ffff"),
    *("x" * 1024, "é" * 512, "\U0001f600" * 256, "a/" * 511 + "bc"),
]

REFUSED = {
    "": "empty",
    "/": "empty segment",
    "/a": "empty segment",
    "a/": "empty segment",
    "a//b": "empty segment",
    ".": "segment '.'",
    "..": "segment '..'",
    "../a": "segment '..'",
    "a/../b": "segment '..'",
    "a/..": "segment '..'",
    "./a": "segment '.'",
    "a/./b": "segment '.'",
    "a\\b": "backslash",
    "..\\a": "backslash",
    "a\x00": "U+0000",
    "a\nb": "U+000A",
    "\r": "U+000D",
    "\t": "U+0009",
    "\x1b[31m": "U+001B",
    "\x7f": "U+007F",
    "\x85": "U+0085",
    "\u2028": "U+2028",
    "\u2029": "U+2029",
    "a\ud800": "Unicode",
    "\udfff": "Unicode",
    "x" * 1025: "1025 bytes",
    "é" * 512 + "x": "1025 bytes",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_name_that_can_be_used_is_returned_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_a_name_that_would_confuse_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(reason)) as refused:
        check_name(name)
    assert refused.value.name == name
    assert len(str(refused.value)) < 600


@given(st.text(st.characters(exclude_categories=[]), max_size=30))
def test_any_text_is_a_safe_name_or_refused(text: str) -> None:
    try:
        check_name(text)
    except InvalidName:
        return
    assert 0 < len(text.encode()) <= 1024
    assert not {"", ".", ".."} & set(text.split("/"))
    assert not set("\\\0\n\r\u2028\u2029") & set(text)
    assert len(text.splitlines()) == 1


def test_an_incarnation_is_new_each_time_and_safe_everywhere() -> None:
    ids = {new_incarnation() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", incarnation) for incarnation in ids)


def info(**values: object) -> StreamInfo:
    return StreamInfo(name="s", incarnation="i", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("closed", "failure", "state", "complete"),
    [
        (False, None, "open", False),
        (True, None, "closed", True),
        (True, "it broke", "failed", False),
        (True, "", "failed", False),
    ],
)
def test_a_stream_is_open_closed_or_failed(closed: bool, failure: str | None, state: str, complete: bool) -> None:
    stream = info(closed=closed, failure=failure)
    assert (stream.state, stream.complete) == (state, complete)


@pytest.mark.parametrize(
    ("ttl", "expires_at", "deadline"),
    [
        (None, None, None),
        (10, None, 110),
        (0, None, 100),
        (None, 105, 105),
        (None, 0, 0),
        (10, 105, 105),
        (3, 105, 103),
        (5, 105, 105),
    ],
)
def test_the_earlier_of_ttl_and_date_counts(
    ttl: float | None, expires_at: float | None, deadline: float | None
) -> None:
    assert info(modified_at=100, ttl=ttl, expires_at=expires_at).deadline == deadline


def test_a_stream_expires_at_its_deadline_and_not_before() -> None:
    stream = info(modified_at=100, ttl=10)
    assert [stream.expired(now) for now in (99, 109.9, 110, 111)] == [False, False, True, True]
    assert not info(modified_at=100).expired(1e18)


def test_a_ttl_counts_from_the_last_change() -> None:
    assert info(created_at=0, modified_at=100, ttl=10).deadline == 110


def test_the_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        info().tail = 5  # type: ignore[misc]


def test_a_chunk_ends_after_its_last_byte() -> None:
    assert Chunk(7, b"abc").end == 10
    assert Chunk(7, memoryview(bytearray(5))).end == 12


def test_growth_is_what_replace_does() -> None:
    info = StreamInfo(name="a", incarnation="b", tail=3, metadata={"x": "y"}, attributes={"z": 1}, ttl=4.0, start=1)
    grown = info.grown(9, closed=True, modified_at=5.0)
    assert grown == replace(info, tail=9, closed=True, modified_at=5.0)
    assert grown.attributes is info.attributes
    assert (info.tail, info.closed, info.modified_at) == (3, False, 0.0)
