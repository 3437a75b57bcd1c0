"""``multipart/form-data`` as it arrives (RFC 7578), without I/O: chunks of the body in, its parts' pieces out.

The delimiters are found by the parser of the package ``multipart``, the extra ``penstock[forms]``. Here is what
surrounds it: what may come before the first and after the last delimiter, what a part's header means, and how it is
refused.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from penstock.protocols.disposition import cleaned
from penstock.toolkit.problems import RequestError, bad_request

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MultipartReader", "PartEvent", "PartHead", "boundary_of", "parser_package"]

MAX_HEADER_SIZE: Final = 8 * 1024
MAX_HEADERS: Final = 16

_FRINGE: Final = 8 * 1024
"""The most bytes before the first delimiter, which nobody reads. HTTP clients send none, or an empty line."""

# RFC 2046 section 5.1.1; the last character is no space.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = re.compile(
    r"""[ \t]*+;[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^";]*+))?""", re.DOTALL
)
_EXT_VALUE: Final = re.compile(r"(utf-8|us-ascii|iso-8859-1)?'[^']*'(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_AS_IT_IS: Final = frozenset({"7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class PartHead:
    """What a part's header says.

    Attributes:
        name: the name of the form's field.
        filename: the file's name, safe to be joined to a folder; empty where a browser's file input was left empty;
            None for a part that is no file.
        content_type: the part's media type; by default ``text/plain``, of a file ``application/octet-stream``.
        charset: the encoding that the media type names, or None.
        headers: all of the part's fields, by their lower-case names.
        path: the file's name with the folders that it was sent with, safe to be joined to a folder; see `_path`.
    """

    name: str
    filename: str | None
    content_type: str
    charset: str | None
    headers: Mapping[str, str]
    path: str


PartEvent: TypeAlias = PartHead | bytes | None
"""A part's head, some of its bytes, or its end."""


def boundary_of(content_type: str | None) -> str:
    """Return the boundary that a request's ``Content-Type`` names.

    Raises:
        RequestError: ``unsupported-media-type`` (415) for another type than ``multipart/form-data``; ``bad-request``
            for a boundary that is missing, repeated or malformed.
    """
    media_type, separator, rest = (content_type or "").partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        raise RequestError("unsupported-media-type", 415, "Send the form as multipart/form-data.")
    boundary = _parameters(separator + rest, "The Content-Type").get("boundary", "")
    boundary = _unquoted(boundary)
    if not _BOUNDARY.fullmatch(boundary):
        raise bad_request("The Content-Type names no valid boundary: 1 to 70 characters (RFC 2046 section 5.1.1).")
    return boundary


class MultipartReader:
    """Takes a form's body apart. What it holds is bounded: a header line, or what may become a delimiter.

    The result does not depend on where the body was cut into chunks.

    Args:
        boundary: what separates the parts; see `boundary_of`.
        max_header_size: the most bytes of one line of a part's header.
        max_headers: the most lines of a part's header.
    """

    def __init__(
        self, boundary: str, *, max_header_size: int = MAX_HEADER_SIZE, max_headers: int = MAX_HEADERS
    ) -> None:
        self._lib = parser_package()
        self._parser = self._lib.PushMultipartParser(
            boundary, max_header_size=max_header_size, max_header_count=max_headers
        )
        self._delimiter = b"--" + boundary.encode()
        self._preamble: bytes | None = b""
        self._idle = 0
        self._most_idle = max_header_size * (max_headers + 1) + _FRINGE

    def feed(self, chunk: bytes) -> Iterator[PartEvent]:
        """Yield what a chunk of the body completes; to be taken to its end before the next one is fed.

        Raises:
            RequestError: ``bad-request`` for what is no form, ``too-large`` for a header past its limits,
                ``unsupported-media-type`` for a part in a coding that forms have not (RFC 7578 sections 4.3, 4.7).
        """
        if self._preamble is not None:
            chunk = self._from_first_delimiter(self._preamble + chunk)
        if not chunk:
            return
        self._idle += len(chunk)
        try:
            for event in self._parser.parse(chunk):
                self._idle = 0
                yield event if event is None or isinstance(event, bytes) else head_of(event.headerlist)
        except self._lib.ParserLimitReached as error:
            raise RequestError("too-large", 413, f"A part's header is too large: {error}.") from None
        except self._lib.MultipartError as error:
            raise bad_request(f"The body is no well-formed form: {error}.") from None
        # More than any header has: this comes after the last delimiter. The parser, which ignores it, does not tell
        # where in a chunk that was, so that as much as a chunk may be ignored besides.
        if self._idle > self._most_idle:
            raise bad_request("The body goes on after the form's end.")

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            RequestError: ``body-incomplete`` if the last delimiter did not come.
        """
        if self._preamble is not None and not self._delimiter.startswith(self._preamble):
            raise _no_beginning()
        try:
            self._parser.close()
        except self._lib.MultipartError:
            raise RequestError("body-incomplete", 400, "The body ended before the form's last delimiter.") from None

    def _from_first_delimiter(self, data: bytes) -> bytes:
        """Return the body from its first delimiter on; nothing while the preamble (RFC 2046 section 5.1.1) lasts."""
        start = data.find(self._delimiter, 0, _FRINGE)
        if start < 0 and len(data) < _FRINGE:
            self._preamble = data
            return b""
        if start < 0 or not (b"\r\n" + data[:start]).endswith(b"\r\n"):
            raise _no_beginning()
        self._preamble = None
        return data[start:]


def head_of(fields: Sequence[tuple[str, str]]) -> PartHead:
    """Return what a part's header says.

    Raises:
        RequestError: ``bad-request`` for a header that could be understood in several ways, or has no name;
            ``unsupported-media-type`` for a nested multipart and for a transfer encoding.
    """
    headers: dict[str, str] = {}
    for field, value in fields:
        if _CONTROLS.search(value):
            raise bad_request(f"A part's {field} has a control character or a bare line feed in it.")
        if field.lower() in headers:
            raise bad_request(f"A part has {field} more than once.")
        headers[field.lower()] = value
    kind, separator, rest = headers.get("content-disposition", "").partition(";")
    if kind.strip().lower() != "form-data":
        raise bad_request("A part's Content-Disposition is not form-data.")
    parameters = _parameters(separator + rest, "A part's Content-Disposition")
    name = _text(parameters, "name")
    if name is None:
        raise bad_request("A part has no name.")
    filename = _text(parameters, "filename", is_filename=True)
    given = headers.get("content-type", "").strip()
    media_type, separator, rest = given.partition(";")
    if media_type.lower().startswith("multipart/") and filename is None:
        raise _unsupported("A form within a form is not supported: send several parts of the same name instead.")
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in _AS_IT_IS:
        raise _unsupported("A Content-Transfer-Encoding is not supported: send the bytes as they are.")
    charset = _parameters(separator + rest, "A part's Content-Type").get("charset")
    return PartHead(
        name,
        None if filename is None else _safe(filename),
        given or ("text/plain" if filename is None else "application/octet-stream"),
        None if charset is None else _unquoted(charset),
        headers,
        _path(filename or ""),
    )


def _parameters(text: str, where: str) -> dict[str, str]:
    """Return the parameters, by their lower-case names; each once, or what is meant would be anybody's guess."""
    found: dict[str, str] = {}
    position = 0
    while match := _PARAMETER.match(text, position):
        position = match.end()
        name, value = match.groups()
        if name is not None:
            if name.lower() in found:
                raise bad_request(f"{where} has the parameter {name[:80]!r} more than once.")
            found[name.lower()] = value
    if text[position:].strip(" \t"):
        raise bad_request(f"{where} is not well-formed.")
    return found


def _text(parameters: Mapping[str, str], name: str, *, is_filename: bool = False) -> str | None:
    """Return the text of a parameter as any of the usual clients writes it.

    Browsers send UTF-8 as it is (RFC 7578 section 5.1). Others send RFC 8187's ``name*``, which then is preferred, or
    mailers' pieces, ``name*0``, ``name*1*`` (RFC 2231 section 3).
    """
    for value in (parameters.get(f"{name}*"), _joined(parameters, name)):
        if value is not None and (decoded := _decoded(value)) is not None:
            return decoded
    plain = parameters.get(name)
    return None if plain is None else _unquoted(plain, is_filename=is_filename)


def _joined(parameters: Mapping[str, str], name: str) -> str | None:
    """Return the pieces of a parameter as one ext-value, or None if it did not come in pieces."""
    pieces: list[str] = []
    prefix = "utf-8''"
    for number in range(len(parameters)):
        encoded, plain = parameters.get(f"{name}*{number}*"), parameters.get(f"{name}*{number}")
        if encoded is not None:
            pieces.append(encoded)
            prefix = "" if number == 0 else prefix
        elif plain is not None:
            pieces.append(urllib.parse.quote(_unquoted(plain)))
        else:
            break
    return prefix + "".join(pieces) if pieces else None


def _decoded(value: str) -> str | None:
    """Decode RFC 8187's ext-value; None if it is malformed, for the plain parameter to be used instead."""
    match = _EXT_VALUE.fullmatch(_unquoted(value))
    if match is None:
        return None
    try:
        return urllib.parse.unquote_to_bytes(match[2]).decode(match[1] or "utf-8")
    except UnicodeDecodeError:
        return None


def _unquoted(value: str, *, is_filename: bool = False) -> str:
    """Undo what browsers do (``%22`` for a quotation mark), and what other clients do (a backslash before it)."""
    text: str = parser_package().content_disposition_unquote(value.strip(" \t"), is_filename)
    return text


def _safe(filename: str) -> str:
    """Return the file's name for saving under it; empty if it is empty, and never one that leads elsewhere."""
    return (cleaned(filename) or "unnamed") if filename else ""


def _path(filename: str) -> str:
    """Return the relative path that browsers send as the name of a file from a folder that was chosen as a whole.

    Its segments are cleaned as names are. Of a name that is no such path (it is absolute, names a drive, has a
    backslash, or a segment that is empty, ``.`` or ``..``), only what `_safe` leaves of it is returned.
    """
    segments = filename.split("/")
    if "\\" in filename or filename[1:2] == ":" or not {"", ".", ".."}.isdisjoint(segments):
        return _safe(filename)
    return "/".join(map(_safe, segments))


@functools.cache
def parser_package() -> Any:
    """Return the package ``multipart``, which only who reads forms needs.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        import multipart  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        multipart = None
    # A package of the name that python-multipart once had, and still brings along, is another one.
    if not hasattr(multipart, "PushMultipartParser"):
        raise RuntimeError("Forms need the package multipart: install penstock[forms].")
    return multipart


def _no_beginning() -> RequestError:
    return bad_request("The body does not begin with the boundary that the Content-Type names.")


def _unsupported(detail: str) -> RequestError:
    return RequestError("unsupported-media-type", 415, detail)
