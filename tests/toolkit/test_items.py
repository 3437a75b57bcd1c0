"""The items of a body: parsed, validated, counted, and told apart however they arrive."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict

from applications import serving
from penstock.toolkit.problems import RequestError, install_problem_handlers
from penstock.toolkit.requests.dependency import MiB, StreamBody, stream_body
from penstock.toolkit.requests.item_formats import (
    csv_items,
    items_of,
    json_array_items,
    length_prefixed_items,
    ndjson_items,
)
from penstock.toolkit.requests.items import InvalidItem, Items
from wire import Connection, request


class Reading(BaseModel):
    sensor: str
    value: float


@dataclass
class Row:
    sensor: str
    value: float


class Fields(TypedDict):
    sensor: str
    value: float


async def chunks_of(body: bytes, *places: int) -> AsyncGenerator[bytes, None]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    start = 0
    for end in ends:
        yield body[start:end]
        start = end


async def taken(items: Items[Any]) -> list[Any]:
    return [item async for item in items]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=10)
finite = st.lists(st.tuples(texts, st.floats(allow_nan=False, allow_infinity=False, width=32)), max_size=20)


@settings(max_examples=60)
@given(finite, st.lists(st.integers(0, 10**6)), st.sampled_from([Reading, Row, Fields, None]))
def test_items_are_the_same_in_every_format(values: list[tuple[str, float]], places: list[int], kind: Any) -> None:
    plain = [{"sensor": sensor, "value": value} for sensor, value in values]
    texts = [json.dumps(fields).encode() for fields in plain]
    table = io.StringIO()
    csv.writer(table).writerows([["sensor", "value"], *values])

    async def check() -> None:
        expected = [_made(kind, fields) for fields in plain]
        lines = chunks_of(b"\n".join(texts), *places)
        assert await taken(ndjson_items(lines, kind)) == expected
        array = chunks_of(b"[" + b" , ".join(texts) + b"]", *places)
        assert await taken(json_array_items(array, kind)) == expected
        if kind is not None:
            rows = chunks_of(table.getvalue().encode(), *places)
            assert await taken(csv_items(rows, kind)) == expected
        prefixed = b"".join(struct.pack(">I", len(text)) + text for text in texts)
        assert await taken(length_prefixed_items(chunks_of(prefixed, *places), kind or dict)) == expected

    asyncio.run(check())


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    return fields if kind in {None, Fields} else kind(**fields)


async def test_without_a_type_items_are_what_the_format_gives() -> None:
    table = b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n'
    assert await taken(csv_items(chunks_of(table))) == [{"a": "1", "b": "x\r\ny"}]
    assert await taken(csv_items(chunks_of(table), columns=["c", "d"])) == [{"c": "1", "d": "x\r\ny"}]
    assert await taken(csv_items(chunks_of(table), header=False)) == [["a", "b"], ["1", "x\r\ny"]]
    assert await taken(csv_items(chunks_of(table), header=False, columns=["a", "b"])) == [
        {"a": "a", "b": "b"},
        {"a": "1", "b": "x\r\ny"},
    ]
    assert await taken(csv_items(chunks_of("a;b\né;2".encode("latin-1")), delimiter=";", charset="ISO-8859-1")) == [
        {"a": "é", "b": "2"}
    ]
    assert await taken(json_array_items(chunks_of(b'[1, "a", null, [2], {}]'))) == [1, "a", None, [2], {}]
    assert await taken(length_prefixed_items(chunks_of(b"\x02ab\x00"), prefix="varint")) == [b"ab", b""]
    assert await taken(length_prefixed_items(chunks_of(b"\x02\0ab"), prefix=2, byteorder="little")) == [b"ab"]


async def test_structs_of_msgspec() -> None:
    msgspec = pytest.importorskip("msgspec")
    kind = msgspec.defstruct("Reading", [("sensor", str), ("value", float)])
    expected = [kind("a", 1.5), kind("b", 2.0)]
    lines = b'{"sensor": "a", "value": 1.5}\n{"sensor": "b", "value": 2}'
    assert await taken(ndjson_items(chunks_of(lines), kind)) == expected
    assert await taken(csv_items(chunks_of(b"sensor,value\na,1.5\nb,2"), kind)) == expected
    items = ndjson_items(chunks_of(b'{"sensor": 1, "value": 1.5}\n{\n' + lines), kind, on_error="skip")
    assert await taken(items) == expected
    assert [error.number for error in items.errors] == [1, 2]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_batches(size: int) -> None:
    body = b"\n".join(b"%d" % number for number in range(10_000))
    batches = [batch async for batch in ndjson_items(chunks_of(body, *range(0, 60_000, 777))).batches(size)]
    assert [item for batch in batches for item in batch] == list(range(10_000))
    assert {len(batch) for batch in batches[:-1]} == {size}


# -- policies -----------------------------------------------------------------------------------------------------

BAD = (
    b'{"sensor": "a", "value": 1}\n{"sensor": "b"}\n{oops\n{"sensor": "c", "value": "x"}\n{"sensor": "d", "value": 4}\n'
)


async def test_to_stop_is_to_say_which_item_it_was_after_those_before_it() -> None:
    seen: list[str] = []

    async def read() -> None:
        async for item in ndjson_items(chunks_of(BAD), Reading):
            seen.append(item.sensor)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(InvalidItem) as caught:
        await read()
    error = caught.value
    assert seen == ["a"]
    assert (error.number, error.offset, error.status, error.slug) == (2, 28, 422, "invalid-record")
    assert [part["loc"] for part in error.errors] == [("value",)]
    assert str(error) == "Record 2, at byte 28: value: Field required."


async def test_to_skip_is_to_count_and_remember() -> None:
    items = ndjson_items(chunks_of(BAD), Reading, on_error="skip")
    assert [item.sensor for item in await taken(items)] == ["a", "d"]
    assert (items.count, items.skipped, [error.number for error in items.errors]) == (5, 3, [2, 3, 4])
    assert all(BAD[error.offset - 1 : error.offset] == b"\n" for error in items.errors)


async def test_a_function_is_told_and_may_raise() -> None:
    told = []

    async def tell(error: InvalidItem) -> None:
        told.append(error.number)
        if len(told) == 2:
            raise error

    with pytest.raises(InvalidItem):
        await taken(ndjson_items(chunks_of(BAD), Reading, on_error=tell))
    assert told == [2, 3]
    assert len(await taken(ndjson_items(chunks_of(BAD), Reading, on_error=lambda _: None))) == 2


async def test_batches_before_an_error_are_yielded() -> None:
    seen: list[int] = []

    async def read() -> None:
        async for batch in ndjson_items(chunks_of(b"1\n2\n3\nx\n5")).batches(2):
            seen.extend(batch)

    with pytest.raises(InvalidItem):
        await read()
    assert seen == [1, 2, 3]


async def test_rows_that_do_not_fit_are_items_that_are_not_valid() -> None:
    body = b'a,b\n1,2\n1\n1,2,3\n"x"y,2\n\xff,1\n3,4'
    items = csv_items(chunks_of(body), on_error="skip")
    assert await taken(items) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert [(error.number, body[error.offset : error.offset + 1]) for error in items.errors] == [
        (2, b"1"),
        (3, b"1"),
        (4, b'"'),
        (5, b"\xff"),
    ]


async def test_an_element_that_is_no_json_ends_an_array_whatever_the_policy() -> None:
    with pytest.raises(InvalidItem):
        await taken(json_array_items(chunks_of(b"[1, 2 3, 4]"), on_error="skip"))
    items = json_array_items(chunks_of(b'[1, "x", 4]'), int, on_error="skip")
    assert await taken(items) == [1, 4]


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"[" * 100_000, b'"\xff"', b"\xef\xbb\xbf1", b"1 2"])
async def test_what_is_no_json_is_no_item(text: bytes) -> None:
    with pytest.raises(InvalidItem):
        await taken(ndjson_items(chunks_of(text)))


@pytest.mark.parametrize(("body", "word"), [(b"a,a\n1,2", "twice"), (b"\xff,a\n", "header"), (b'"a"b,c\n', "header")])
async def test_a_header_that_is_none(body: bytes, word: str) -> None:
    with pytest.raises(InvalidItem, match=word):
        await taken(csv_items(chunks_of(body), on_error="skip"))


async def test_the_content_type_tells_the_format() -> None:
    for content_type, body in (
        ("application/x-ndjson", b'{"a": "1"}\n'),
        ("application/jsonl; charset=utf-8", b'{"a": "1"}'),
        ("application/json", b'[{"a": "1"}]'),
        ("application/vnd.own+json", b'[{"a": "1"}]'),
        ("text/csv; charset=utf-8; header=present", b"a\n1"),
        ("text/tab-separated-values", b"a\n1"),
    ):
        assert await taken(items_of(chunks_of(body), content_type)) == [{"a": "1"}]
    assert await taken(items_of(chunks_of(b"1,2"), "text/csv; header=absent")) == [["1", "2"]]
    with pytest.raises(RequestError) as caught:
        items_of(chunks_of(b""), "text/html")
    assert (caught.value.status, caught.value.headers["accept"]) == (
        415,
        "application/x-ndjson, application/json, text/csv",
    )
    with pytest.raises(RequestError) as caught:
        items_of(chunks_of(b""), "text/csv; charset=utf-16")
    assert caught.value.status == 415


# -- over HTTP ----------------------------------------------------------------------------------------------------


def application() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    async def count(request: Request, body: StreamBody = Depends(stream_body(max_size=64 * MiB))) -> dict[str, int]:  # noqa: B008
        total = 0
        async for batch in body.items(on_error="stop").batches(1000):
            total += len(batch)
        return {"items": total}

    app.post("/items")(count)
    return app


async def test_an_unclosed_quotation_mark_in_a_short_table_is_a_422() -> None:
    async with serving(application()) as port:
        answer = await request(port, "POST", "/items", b'a,b\n1,2\n3,"4\n5,6\n', {"content-type": "text/csv"})
        told = answer.json()
        assert (answer.status, told["record"], told["offset"]) == (422, 2, 8)
        assert "quotation mark" in told["detail"]


async def test_a_million_rows_in_bounded_memory() -> None:
    row = b'{"sensor": "s1", "value": 12.5, "tags": ["a", "b"]}\n'
    async with serving(application()) as port, Connection(port) as connection:
        headers = {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"}
        await connection.begin("POST", "/items", headers)
        for _ in range(200):
            await connection.write_chunk(row * 5000)
        await connection.write_chunk(b"")
        assert (await connection.answer()).json() == {"items": 1_000_000}
