"""Digest fields (RFC 9530): ``Content-Digest``, ``Repr-Digest`` and the ``Want-`` fields."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

__all__ = ["SUPPORTED", "DigestError", "format_digests", "parse_digests", "parse_want", "preferred"]

SUPPORTED: Final[Mapping[str, str]] = MappingProxyType({"sha-256": "sha256", "sha-512": "sha512"})
"""The algorithms that are active in RFC 9530's registry, with hashlib's names for them."""

_SIZES: Final = {name: hashlib.new(python).digest_size for name, python in SUPPORTED.items()}

# What of structured fields (RFC 9651) a digest field can hold: a dictionary of byte sequences or integers,
# each with parameters, which no digest field defines and which are therefore read over.
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_BYTES = r":[A-Za-z0-9+/]*+={0,2}:"
_INTEGER = r"-?[0-9]{1,15}+(?![0-9.])"
_BARE_ITEM = (
    rf"(?:{_BYTES}|\?[01]|@?{_INTEGER}|-?[0-9]{{1,12}}+\.[0-9]{{1,3}}+"
    r'|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'
    r'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"'
    r"|[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*+)"
)
_MEMBER: Final = re.compile(
    rf"(?P<key>{_KEY})=(?:(?P<bytes>{_BYTES})|(?P<integer>{_INTEGER}))(?:;[ ]*+{_KEY}(?:={_BARE_ITEM})?+)*+"
)
_COMMA: Final = re.compile(r"[ \t]*+,[ \t]*+")
_KEY_ONLY: Final = re.compile(_KEY)


class DigestError(ValueError):
    """A digest field that cannot be read. Its text says what is wrong, and is fit to be sent to the client."""


def parse_digests(value: str) -> dict[str, bytes]:
    """Read a ``Content-Digest`` or ``Repr-Digest`` field (RFC 9530 sections 2 and 3).

    Args:
        value: The field's value; several lines joined with ``", "``.

    Returns:
        Digests by algorithm, in the order of the field. Algorithms outside `SUPPORTED` are included, for the
        caller to ignore.

    Raises:
        DigestError: Not a dictionary of byte sequences, or the digest of a supported algorithm does not have
            that algorithm's length.
    """
    digests: dict[str, bytes] = {}
    for member in _members(value):
        name, written = member["key"], member["bytes"]
        if written is None:
            raise DigestError(f"the {name} digest must be a byte sequence, written :base64:")
        digests[name] = _decode(name, written)
    return digests


def _decode(name: str, written: str) -> bytes:
    text = written.strip(":").rstrip("=")
    try:
        # Padding may be missing (RFC 9651 section 4.2.7).
        digest = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise DigestError(f"the {name} digest is not valid base64") from error
    size = _SIZES.get(name, len(digest))
    if len(digest) != size:
        raise DigestError(f"a {name} digest has {size} bytes, this one has {len(digest)}")
    return digest


def format_digests(digests: Mapping[str, bytes]) -> str:
    """Write a ``Content-Digest`` or ``Repr-Digest`` field.

    Args:
        digests: Digests by algorithm, for example ``{"sha-256": hashlib.sha256(body).digest()}``.

    Returns:
        For example ``sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:``.

    Raises:
        ValueError: An algorithm's name is not a key of structured fields.
    """
    for name in digests:
        if not _KEY_ONLY.fullmatch(name):
            raise ValueError(f"not the name of a digest algorithm: {name!r}")
    return ", ".join(f"{name}=:{base64.b64encode(digest).decode()}:" for name, digest in digests.items())


def parse_want(value: str) -> dict[str, int]:
    """Read a ``Want-Content-Digest`` or ``Want-Repr-Digest`` field (RFC 9530 section 4).

    Args:
        value: The field's value; several lines joined with ``", "``.

    Returns:
        Weights by algorithm: 1 (least preferred) to 10 (most preferred), or 0 for "not acceptable".

    Raises:
        DigestError: Not a dictionary of integers from 0 to 10. The field is a wish only: ignoring one that
            cannot be read is a proper answer to it.
    """
    weights: dict[str, int] = {}
    for member in _members(value):
        weight = -1 if member["integer"] is None else int(member["integer"])
        if not 0 <= weight <= 10:
            raise DigestError(f"the weight of {member['key']} must be an integer from 0 to 10")
        weights[member["key"]] = weight
    return weights


def preferred(want: Mapping[str, int], supported: Sequence[str] = tuple(SUPPORTED)) -> str | None:
    """Choose the algorithm that a client wants most.

    Args:
        want: What `parse_want` returned.
        supported: Algorithms to choose from, the best first: it decides between equal weights.

    Returns:
        An algorithm, or None if none of them is wanted.
    """
    best = max(supported, key=lambda name: want.get(name, 0), default=None)
    return best if best is not None and want.get(best, 0) > 0 else None


def _members(value: str) -> Iterator[re.Match[str]]:
    """Yield a dictionary's members (RFC 9651 section 4.2.2). Of a repeated key the last one counts."""
    text = value.strip(" ")
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            raise DigestError(f"not a digest field, from character {position}: {text[position : position + 60]!r}")
        yield member
        position = member.end()
        if position == len(text):
            return
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            raise DigestError(f"a comma and one more algorithm must follow character {position}")
        position = comma.end()
