"""Items out of a body, or a form's part, or any other chunks of bytes, by their format."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from email.message import Message
from typing import Any, Final, Literal

from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.items import MAX_ITEM, Items, OnError
from penstock.toolkit.requests.parsers import Parser, json_parser
from penstock.toolkit.requests.rows import Table
from penstock.toolkit.requests.splitting import ArraySplitter, Lines, PrefixSplitter

__all__ = ["ITEM_TYPES", "csv_items", "items_of", "json_array_items", "length_prefixed_items", "ndjson_items"]

_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-l"}
)
_TABLES: Final = {"text/csv": ",", "text/tab-separated-values": "\t"}

ITEM_TYPES: Final = ("application/x-ndjson", "application/json", "text/csv")
"""The media types that `items_of` knows, as one would advertise them; others are spellings of these."""


def ndjson_items(
    chunks: AsyncIterator[bytes], item: Any = None, *, on_error: OnError = "stop", max_item: int = MAX_ITEM
) -> Items[Any]:
    """Return the items of one JSON text a line."""
    return Items(chunks, Lines(max_item), json_parser(item), on_error=on_error, max_item=max_item)


def json_array_items(
    chunks: AsyncIterator[bytes], item: Any = None, *, on_error: OnError = "stop", max_item: int = MAX_ITEM
) -> Items[Any]:
    """Return the elements of one JSON array. An element that is no JSON ends the reading, whatever the policy."""
    splitter, parser = ArraySplitter(max_item), json_parser(item)
    return Items(chunks, splitter, parser, on_error=on_error, max_item=max_item, syntax_stops=True)


def csv_items(
    chunks: AsyncIterator[bytes],
    item: Any = None,
    *,
    header: bool = True,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    charset: str = "utf-8",
    on_error: OnError = "stop",
    max_item: int = MAX_ITEM,
) -> Items[Any]:
    """Return the rows of a table (RFC 4180); see `Table`."""
    table = Table(item, header=header, columns=columns, delimiter=delimiter, charset=charset, max_item=max_item)
    return Items(chunks, table, table.parser, on_error=on_error, max_item=max_item)


def length_prefixed_items(
    chunks: AsyncIterator[bytes],
    item: Any = None,
    *,
    prefix: Literal[1, 2, 4, 8, "varint"] = 4,
    byteorder: Literal["big", "little"] = "big",
    on_error: OnError = "stop",
    max_item: int = MAX_ITEM,
) -> Items[Any]:
    """Return records that come after their length: JSON texts of the type ``item``, or without one their bytes."""
    splitter = PrefixSplitter(max_item, 0 if prefix == "varint" else prefix, byteorder)
    parser = Parser(bytes, (), lambda _: False) if item is None else json_parser(item)
    return Items(chunks, splitter, parser, on_error=on_error, max_item=max_item)


def items_of(
    chunks: AsyncIterator[bytes],
    content_type: str,
    item: Any = None,
    *,
    on_error: OnError = "stop",
    max_item: int = MAX_ITEM,
) -> Items[Any]:
    """Return the items of a body of that media type: NDJSON, a JSON array, comma- or tab-separated values.

    Raises:
        RequestError: ``unsupported-media-type`` (415) with ``Accept`` (RFC 9110 section 12.5.1) for any other.
    """
    message = Message()
    message["content-type"] = content_type
    media_type = message.get_content_type()
    if media_type in _LINES:
        return ndjson_items(chunks, item, on_error=on_error, max_item=max_item)
    if media_type == "application/json" or media_type.endswith("+json"):
        return json_array_items(chunks, item, on_error=on_error, max_item=max_item)
    if media_type in _TABLES:
        return csv_items(
            chunks,
            item,
            header=message.get_param("header") != "absent",
            delimiter=_TABLES[media_type],
            charset=str(message.get_param("charset", "utf-8")),
            on_error=on_error,
            max_item=max_item,
        )
    raise RequestError(
        "unsupported-media-type",
        415,
        f"Items cannot be read from {media_type}; send {', '.join(ITEM_TYPES)}.",
        {"accept": ", ".join(ITEM_TYPES)},
    )
