"""``Content-Disposition`` (RFC 6266) with names of any script (RFC 8187), safe to write and safe to read."""

import re
import unicodedata
import urllib.parse
from typing import Final, Literal

__all__ = ["cleaned", "content_disposition", "filename_from"]

# Control characters, separators of paths and lines, marks that reorder what a person sees (so that
# "exe.txt" is not read where "txt.exe" is meant), surrogates and byte order marks.
_HOSTILE: Final = re.compile("[\x00-\x1f\x7f-\x9f/\\\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_MAX_BYTES: Final = 255  # the longest name that common file systems store
_MAX_SUFFIX_BYTES: Final = 32

_ATTR_CHAR: Final = "!#$&+^`|~-._"  # of RFC 8187's attr-char what is neither letter nor digit
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 -- a grammar's token, not a secret
_TYPE: Final = re.compile(rf"[ \t]*+{_TOKEN}")
_PARAMETER: Final = re.compile(
    rf'[ \t]*+;[ \t]*+(?:({_TOKEN})[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^ \t;"]++)))?', re.DOTALL
)
_EXT_VALUE: Final = re.compile(
    r"(utf-8|iso-8859-1)'[^']*'((?:%[0-9a-f]{2}|[!#$&+.^_`|~0-9a-z-])*+)", re.IGNORECASE | re.ASCII
)


def content_disposition(filename: str | None, kind: Literal["attachment", "inline"] = "attachment") -> str:
    """Write a ``Content-Disposition`` field (RFC 6266 section 4).

    Whatever the name holds, the value is printable ASCII on one line. Control characters, path separators, line
    separators, bidirectional controls and lone surrogates become ``_``; a name longer than 255 bytes loses the
    end of its stem. ``filename*`` is added only to a name that the plain parameter cannot carry to every client:
    one with non-ASCII characters, and also one with ``"`` or ``%``, which some clients do not unescape
    or take for an escape (RFC 6266 appendix D).

    Args:
        filename: The name to suggest; None, or one of white space only, suggests none.
        kind: ``attachment`` (save it) or ``inline`` (show it).

    Returns:
        For example ``attachment; filename="naive.txt"; filename*=UTF-8''na%C3%AFve.txt``.
    """
    name = _neutralised(filename or "")
    if name in {".", ".."}:
        name = "_" * len(name)
    if not name:
        return kind
    plain = _ascii(name).replace('"', r"\"")
    value = f'{kind}; filename="{plain}"'
    if not name.isascii() or '"' in name or "%" in name:
        value += f"; filename*=UTF-8''{urllib.parse.quote(name, safe=_ATTR_CHAR)}"
    return value


def filename_from(value: str) -> str | None:
    r"""Read the file name out of a ``Content-Disposition`` field, for saving under it.

    ``filename*`` is preferred to ``filename`` (RFC 6266 section 4.3). Only what follows the last ``/`` or ``\`` is
    used, and it is cleaned as `content_disposition` does, so that the result names a file inside whatever
    folder it is joined to.

    Args:
        value: The field's value, as received.

    Returns:
        A name that is not empty, not ``.`` or ``..``, has no separators or control characters, and is at most
        255 bytes long in UTF-8; or None if the field holds no such name.
    """
    parameters = _parameters(value)
    extended = _decode_extended(parameters.get("filename*"))
    for candidate in (extended, parameters.get("filename")):
        name = None if candidate is None else cleaned(candidate)
        if name is not None:
            return name
    return None


def cleaned(name: str) -> str | None:
    """Return what `filename_from` makes of a name that came in another way."""
    own = _neutralised(re.split(r"[/\\]", name)[-1])
    return None if own in {"", ".", ".."} else own


def _neutralised(name: str) -> str:
    return _shortened(_HOSTILE.sub("_", name).strip()).strip()


def _shortened(name: str) -> str:
    """Cut a name to what file systems store, and keep its suffix, which says how to open it."""
    if len(name) <= _MAX_BYTES // 4 or len(name.encode()) <= _MAX_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    ending = (dot + suffix).encode()
    if not stem or len(ending) > _MAX_SUFFIX_BYTES:
        stem, ending = name, b""
    return (stem.encode()[: _MAX_BYTES - len(ending)] + ending).decode(errors="ignore")


def _ascii(name: str) -> str:
    """Return the nearest ASCII: letters without their accents, and ``_`` for everything else."""
    if name.isascii():
        return name
    # Canonical decomposition only. The compatibility one turns look-alikes into separators and quotes.
    base = (char for char in unicodedata.normalize("NFD", name) if not unicodedata.combining(char))
    return "".join(char if char.isascii() and char not in '"\\/' else "_" for char in base)


def _parameters(value: str) -> dict[str, str]:
    """Read as many parameters as are well-formed, by lower-case name. The first of a repeated name counts."""
    found: dict[str, str] = {}
    match = _TYPE.match(value)
    while match and (match := _PARAMETER.match(value, match.end())):
        name, quoted, token = match.groups()
        if name is not None:
            text = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            found.setdefault(name.lower(), text)
    return found


def _decode_extended(value: str | None) -> str | None:
    """Decode RFC 8187's ext-value; None if it is malformed, for ``filename`` to be used instead."""
    match = value and _EXT_VALUE.fullmatch(value)
    if not match:
        return None
    try:
        return urllib.parse.unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return None
