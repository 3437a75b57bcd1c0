"""Where records begin and end: the same however a body was cut into chunks, and in bounded memory."""

from __future__ import annotations

import csv
import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.toolkit.requests.rows import Table
from penstock.toolkit.requests.splitting import ArraySplitter, Found, Lines, PrefixSplitter, Rows, SplitError, Splitter

MOST = 10_000

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8) | st.sampled_from(
    ['"', 'a"b', '""', "a\nb", "a\r\nb", "\n", ",", " x "]
)


def cut(body: bytes, places: list[int]) -> Iterator[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    start = 0
    for end in ends:
        yield body[start:end]
        start = end


def split(make: Callable[[], Splitter], body: bytes, places: list[int]) -> Found:
    splitter, found = make(), list[tuple[int, bytes]]()
    for chunk in cut(body, places):
        splitter.feed(chunk, found)
    splitter.finish(found)
    return found


@given(st.lists(json_values, max_size=12), st.lists(st.integers(0, 10**6)), st.sampled_from([None, 1]), st.booleans())
def test_elements_of_an_array(values: list[Any], places: list[int], indent: int | None, escaped: bool) -> None:
    body = b" \n" + json.dumps(values, indent=indent, ensure_ascii=escaped).encode() + b"\r\n "
    found = split(lambda: ArraySplitter(MOST), body, places)
    assert [json.loads(element) for _, element in found] == values
    assert all(body[offset : offset + len(element)] == element for offset, element in found)


@given(st.binary(max_size=60) | st.text('[]{},"\\ ab1:', max_size=60).map(str.encode), st.lists(st.integers(0, 60)))
def test_whatever_an_array_is_made_of_the_chunks_do_not_matter(body: bytes, places: list[int]) -> None:
    def outcome(places: list[int]) -> tuple[Found, str | None]:
        splitter, found = ArraySplitter(50), list[tuple[int, bytes]]()
        try:
            for chunk in cut(body, places):
                splitter.feed(chunk, found)
            splitter.finish(found)
        except SplitError as error:
            return found, error.kind
        return found, None

    assert outcome(places) == outcome([])


@given(st.lists(json_values, max_size=12), st.lists(st.integers(0, 10**6)), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_lines(values: list[Any], places: list[int], end: str) -> None:
    body = end.join(map(json.dumps, values)).encode()
    found = split(lambda: Lines(MOST), body, places)
    assert [json.loads(line) for _, line in found] == values
    assert all(body[offset : offset + len(line)] == line for offset, line in found)


@given(
    st.lists(st.lists(fields, min_size=2, max_size=4), max_size=8),
    st.lists(st.integers(0, 10**6)),
    st.sampled_from(["\r\n", "\n"]),
)
def test_rows(rows: list[list[str]], places: list[int], end: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    body = text.getvalue().encode()
    found = split(lambda: Rows(MOST), body, places)
    table = Table(None, header=False, max_item=MOST)
    assert [table.parser.parse(row) for _, row in found] == rows
    assert all(body[offset : offset + len(row)] == row for offset, row in found)


@given(st.lists(st.binary(max_size=300), max_size=12), st.lists(st.integers(0, 10**6)), st.sampled_from([0, 2, 4]))
def test_records_after_their_length(records: list[bytes], places: list[int], size: int) -> None:
    body = b"".join(_prefixed(record, size) for record in records)
    found = split(lambda: PrefixSplitter(MOST, size), body, places)
    assert [record for _, record in found] == records


def _prefixed(record: bytes, size: int) -> bytes:
    if size:
        return len(record).to_bytes(size, "big") + record
    length, head = len(record), b""
    while length > 0x7F:
        head += bytes([length & 0x7F | 0x80])
        length >>= 7
    return head + bytes([length]) + record


@pytest.mark.parametrize(
    ("make", "body", "kind"),
    [
        (ArraySplitter, b"", "incomplete"),
        (ArraySplitter, b"[1, 2", "incomplete"),
        (ArraySplitter, b'["a', "incomplete"),
        (ArraySplitter, b"{}", "malformed"),
        (ArraySplitter, b"[1,,2]", "malformed"),
        (ArraySplitter, b"[1,]", "malformed"),
        (ArraySplitter, b"[{},]", "malformed"),
        (ArraySplitter, b"[,]", "malformed"),
        (ArraySplitter, b"[1}", "malformed"),
        (ArraySplitter, b"[1] 2", "malformed"),
        (ArraySplitter, b"[[" + b"1," * MOST, "too-large"),
        (ArraySplitter, b'["' + b"x" * MOST * 2 + b'"]', "too-large"),
        (ArraySplitter, b'[{"a": "' + b"x" * MOST + b'"}, 1]', "too-large"),
        (Lines, b"1\n" + b"x" * (MOST + 1), "too-large"),
        (Rows, b'a,b\n"x' + b"\n" * MOST, "too-large"),
        (Rows, b'a,b\n"x\n1,2\n', "malformed"),
        (Rows, b"x" * (MOST + 1), "too-large"),
        (PrefixSplitter, b"\x00\x00\x00\x05abc", "incomplete"),
        (PrefixSplitter, b"\x00\x00", "incomplete"),
        (PrefixSplitter, b"\xff\xff\xff\xff", "too-large"),
    ],
)
@pytest.mark.parametrize("places", [[], list(range(100))], ids=["whole", "bytes"])
def test_what_cannot_be_split_is_an_error(
    make: Callable[[int], Splitter], body: bytes, kind: str, places: list[int]
) -> None:
    with pytest.raises(SplitError) as caught:
        split(lambda: make(MOST), body, places)
    assert caught.value.kind == kind


def test_what_came_before_an_error_is_found() -> None:
    found: Found = []
    with pytest.raises(SplitError):
        ArraySplitter(MOST).feed(b"[1, {}, [2], }", found)
    assert [element for _, element in found] == [b"1", b"{}", b"[2]"]


def test_a_varint_that_never_ends_is_refused() -> None:
    with pytest.raises(SplitError):
        PrefixSplitter(MOST, 0).feed(b"\xff" * 10, [])


@pytest.mark.parametrize(
    ("make", "head", "piece"),
    [
        (ArraySplitter, b'["', b"\\\\"),
        (ArraySplitter, b"[", b"["),
        (ArraySplitter, b"[{", b'"a":{"b":"'),
        (ArraySplitter, b"[", b" "),
        (Lines, b"", b"x"),
        (Lines, b"", b"\n"),
        (Rows, b'"', b"x\n"),
        (Rows, b'"', b'""'),
        (PrefixSplitter, struct.pack(">I", 2**17), b"x"),
    ],
)
def test_a_hostile_body_in_tiny_chunks_takes_linear_time_and_bounded_memory(
    make: Callable[[int], Splitter], head: bytes, piece: bytes
) -> None:
    splitter, found = make(2**17), list[tuple[int, bytes]]()
    tracemalloc.start()
    began = time.perf_counter()
    try:
        splitter.feed(head, found)
        for _ in range(100_000):
            splitter.feed(piece, found)
    except SplitError as error:
        assert error.kind in {"too-large", "malformed"}  # noqa: PT017 - it may come, or not
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.perf_counter() - began < 30
    assert peak < 40 * 2**20
