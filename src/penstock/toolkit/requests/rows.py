"""Tables of comma-separated values (RFC 4180) as the items of a body."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock.toolkit.problems import RequestError
from penstock.toolkit.requests.parsers import Parser, maker_of
from penstock.toolkit.requests.splitting import Found, Rows, SplitError

__all__ = ["Table"]

_ENCODINGS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
}
"""Encodings of text in which quotation marks and line ends are single bytes of their own."""


_MARK: Final = b"\xef\xbb\xbf"  # a byte order mark, which spreadsheets write before UTF-8


class _Refused(ValueError):
    """A row that is none."""


class Table:
    """Finds the rows of a table and makes items of them.

    Args:
        item: a type that can be made of texts by name. Without one, items are dicts of texts; lists where there are no
            names.
        header: whether the first row has the columns' names.
        columns: the names, instead of those.
        delimiter: what separates the fields.
        charset: the text's encoding.
        max_item: the most bytes of a row.

    Raises:
        RequestError: ``unsupported-media-type`` (415) for a charset that is not supported.
    """

    def __init__(
        self,
        item: Any,
        *,
        header: bool = True,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        charset: str = "utf-8",
        max_item: int,
    ) -> None:
        encoding = _ENCODINGS.get(charset.strip().strip('"').lower())
        if encoding is None:
            raise RequestError("unsupported-media-type", 415, "Send the rows in UTF-8.")
        self._encoding = encoding
        self._header = header
        self._columns = None if columns is None else list(columns)
        self._splitter = Rows(max_item)
        self._begun = False
        self._texts: deque[str] = deque()
        # It takes one text for each row: the splitter has seen to it that no row needs another one.
        self._reader = csv.reader(iter(self._texts.popleft, None), delimiter=delimiter, strict=True)
        self._make: Callable[[Any], Any] | None = None
        refusals: tuple[type[Exception], ...] = ()
        if item is not None:
            self._make, refusals = maker_of(item)
        self.parser: Parser[Any] = Parser(self._parse, (_Refused, UnicodeDecodeError, *refusals), lambda _: False)

    def feed(self, data: bytes, found: Found) -> None:
        """See `Splitter`."""
        try:
            self._splitter.feed(data, found)
        finally:
            self._begin(found)

    def finish(self, found: Found) -> None:
        """See `Splitter`."""
        try:
            self._splitter.finish(found)
        finally:
            self._begin(found)

    def _begin(self, found: Found) -> None:
        """Take the header away from what was found first."""
        if self._begun or not found:
            return
        self._begun = True
        offset, record = found[0]
        record = record.removeprefix(_MARK)
        if not self._header:
            found[0] = (offset, record)
            return
        del found[0]
        try:
            names = self._read(record)
        except (_Refused, UnicodeDecodeError) as error:
            found.clear()
            raise SplitError("malformed", offset, f"the header cannot be read: {error}") from None
        if self._columns is None:
            if len(set(names)) < len(names):
                found.clear()
                raise SplitError("malformed", offset, "the header has a name twice")
            self._columns = names

    def _read(self, record: bytes) -> list[str]:
        self._texts.append(record.decode(self._encoding).removesuffix("\r"))
        try:
            return next(self._reader)
        except csv.Error as error:
            raise _Refused(f"the row is not well-formed: {error}") from None
        except IndexError:
            raise _Refused("the row is not well-formed: a quotation mark is not closed") from None
        finally:
            self._texts.clear()

    def _parse(self, record: bytes) -> Any:
        row = self._read(record)
        columns = self._columns
        if columns is None:
            return row if self._make is None else self._make(row)
        if len(row) != len(columns):
            raise _Refused(f"the row has {len(row)} fields, and the columns are {len(columns)}")
        fields = dict(zip(columns, row, strict=True))
        return fields if self._make is None else self._make(fields)
