"""The tus resumable upload protocol, version 1.0.0: its header fields, read and written.

Source: https://tus.io/protocols/resumable-upload (version 1.0.0 of 2016-03-25). Sections are named as there.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CHECKSUM_MISMATCH",
    "CONTENT_TYPE",
    "EXPOSED",
    "REQUEST_FIELDS",
    "VERSION",
    "Checksum",
    "Concatenation",
    "TusError",
    "UnsupportedChecksum",
    "extensions",
    "parse_checksum",
    "parse_concat",
    "parse_defer_length",
    "parse_metadata",
    "parse_size",
    "texts",
]

VERSION: Final = "1.0.0"
"""The one version of the protocol that is spoken."""

CONTENT_TYPE: Final = "application/offset+octet-stream"
"""What a PATCH carries, and a POST with bytes."""

CHECKSUM_MISMATCH: Final = 460
"""The status for bytes that are not those whose checksum was given (Checksum)."""

REQUEST_FIELDS: Final = (
    *("Tus-Resumable", "Upload-Checksum", "Upload-Concat", "Upload-Defer-Length", "Upload-Length"),
    *("Upload-Metadata", "Upload-Offset", "X-HTTP-Method-Override"),
)
"""The request fields that a browser must be allowed to send from another origin."""

EXPOSED: Final = (
    *("Tus-Checksum-Algorithm", "Tus-Extension", "Tus-Max-Size", "Tus-Resumable", "Tus-Version", "Upload-Concat"),
    *("Upload-Defer-Length", "Upload-Expires", "Upload-Length", "Upload-Metadata", "Upload-Offset"),
)
"""The response fields that a script of another origin must be allowed to see."""

_DIGITS: Final = re.compile(r"[0-9]{1,18}")  # what every store and every JSON reader counts as an integer of 64 bits
_KEY: Final = re.compile(r"[^\s,]+")
_ALGORITHM: Final = re.compile(r"[!-@\[-~]+")  # visible ASCII, no upper case


class TusError(ValueError):
    """A field that is not as the protocol says. Its text says what is wrong, and is fit to be sent to the client."""


class UnsupportedChecksum(TusError):
    """A checksum of an algorithm that cannot be computed here."""


def parse_size(field: str, value: str) -> int:
    """Read a number of bytes: ``Upload-Offset``, ``Upload-Length`` (Core Protocol, Headers).

    Args:
        field: the field's name, for the error.
        value: its value.

    Raises:
        TusError: it is not a non-negative integer of at most 18 digits.
    """
    text = value.strip()
    if not _DIGITS.fullmatch(text):
        raise TusError(f"{field} must be a number of bytes: digits alone, at most 18 of them.")
    return int(text)


def parse_defer_length(value: str) -> None:
    """Read ``Upload-Defer-Length`` (Creation, Headers).

    Raises:
        TusError: it is not ``1``, the one value that there is.
    """
    if value.strip() != "1":
        raise TusError("Upload-Defer-Length must be 1, or left out.")


def parse_metadata(value: str) -> dict[str, bytes]:
    """Read ``Upload-Metadata`` (Creation, Headers). An empty field, which some clients send, has no pairs.

    Args:
        value: the field's value. Whoever answers with it answers with this text, not with what was read from it.

    Returns:
        Values by key, in the order of the field. Values are any bytes; see `texts`.

    Raises:
        TusError: a key is missing, repeated or has white space, or a value is not Base64.
    """
    pairs: dict[str, bytes] = {}
    if not value.strip():
        return pairs
    for pair in value.split(","):
        key, _, written = pair.strip().partition(" ")
        if not _KEY.fullmatch(key):
            raise TusError("Upload-Metadata has a pair without a key.")
        if key in pairs:
            raise TusError(f"Upload-Metadata has the key {key!r} twice.")
        pairs[key] = _base64(written.strip(), f"Upload-Metadata: the value of {key!r}")
    return pairs


def texts(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Return the pairs whose values are text in UTF-8, as text."""
    found: dict[str, str] = {}
    for key, value in metadata.items():
        try:
            found[key] = value.decode()
        except UnicodeDecodeError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Concatenation:
    """What an upload is in a concatenation (Concatenation).

    Attributes:
        parts: of a final upload, the URLs of its parts, in order; of a part, none.
    """

    parts: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether it is the concatenation, and not one of its parts."""
        return bool(self.parts)


def parse_concat(value: str) -> Concatenation:
    """Read ``Upload-Concat``: ``partial``, or ``final;`` and URLs with spaces between (Concatenation, Headers).

    Raises:
        TusError: it is neither.
    """
    text = value.strip()
    if text == "partial":
        return Concatenation()
    kind, _, urls = text.partition(";")
    if kind.strip() != "final":
        raise TusError("Upload-Concat must be 'partial', or 'final;' and the URLs of the parts.")
    parts = tuple(urls.split())
    if not parts:
        raise TusError("Upload-Concat: a final upload needs the URL of one part at least.")
    return Concatenation(parts)


@dataclass(frozen=True, slots=True)
class Checksum:
    """The checksum of one request's body.

    Attributes:
        algorithm: its name, in lower case.
        digest: the raw bytes.
    """

    algorithm: str
    digest: bytes


def parse_checksum(value: str, sizes: Mapping[str, int]) -> Checksum:
    """Read ``Upload-Checksum``: an algorithm, a space, Base64 (Checksum, Headers).

    Args:
        value: the field's value.
        sizes: the algorithms that can be computed, and how many bytes their checksums have.

    Raises:
        UnsupportedChecksum: the algorithm is none of them.
        TusError: the field cannot be read, or the checksum does not have the algorithm's length.
    """
    algorithm, _, written = value.strip().partition(" ")
    if not _ALGORITHM.fullmatch(algorithm):
        raise TusError("Upload-Checksum must be an algorithm in lower case, a space, and the checksum in Base64.")
    if algorithm not in sizes:
        raise UnsupportedChecksum(f"Upload-Checksum: {algorithm!r} is not computed here; {', '.join(sizes)} are.")
    digest = _base64(written.strip(), "Upload-Checksum: the checksum")
    if len(digest) != sizes[algorithm]:
        raise TusError(f"Upload-Checksum: {algorithm} has {sizes[algorithm]} bytes, and this one {len(digest)}.")
    return Checksum(algorithm, digest)


def extensions(*, trailers: bool = False) -> str:
    """Return the value of ``Tus-Extension``.

    Args:
        trailers: whether the server sees the fields after a body.
    """
    names: Iterable[str] = (
        *("creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum"),
        *(("checksum-trailer",) if trailers else ()),
        *("termination", "concatenation", "concatenation-unfinished"),
    )
    return ",".join(names)


def _base64(written: str, what: str) -> bytes:
    try:
        # Padding is sometimes left out; what is there must be right.
        return base64.b64decode(written + "=" * (-len(written) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise TusError(f"{what} is not Base64.") from None
