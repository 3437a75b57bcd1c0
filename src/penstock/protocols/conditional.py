"""Entity tags and preconditions (RFC 9110 sections 8.8 and 13)."""

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from penstock.protocols.dates import parse_date

__all__ = ["ETag", "ETagList", "Preconditions", "Verdict", "evaluate", "if_range_allows"]

_OPAQUE = r"[\x21\x23-\x7e\x80-\xff]*"
_VALUE: Final = re.compile(_OPAQUE)
_TAG: Final = re.compile(rf'(W/)?"({_OPAQUE})"')
# One list element, which may be empty, with its comma. Possessive, so that white space is scanned once only.
_ELEMENT: Final = re.compile(rf'[ \t]*+(?:(W/)?"({_OPAQUE})")?[ \t]*+(,|\Z)')
_OWS: Final = " \t"

_READS: Final = frozenset({"GET", "HEAD"})
_UNCONDITIONAL: Final = frozenset({"CONNECT", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class ETag:
    """An entity tag (RFC 9110 section 8.8.3).

    Attributes:
        value: The opaque text between the quotation marks.
        weak: Whether the tag promises equal meaning only, not equal bytes.
    """

    value: str
    weak: bool = False

    def __post_init__(self) -> None:
        if not _VALUE.fullmatch(self.value):
            raise ValueError(f"characters that an entity tag cannot hold: {self.value!r}")

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.value}"'

    @classmethod
    def parse(cls, value: str) -> Self | None:
        """Read one entity tag, as in an ``ETag`` field; None if it is malformed."""
        match = _TAG.fullmatch(value.strip(_OWS))
        return match and cls(match[2], weak=match[1] is not None)

    def matches_strongly(self, other: "ETag") -> bool:
        """Compare two tags by section 8.8.3.2's strong comparison: equal, and neither is weak."""
        return self.value == other.value and not (self.weak or other.weak)

    def matches_weakly(self, other: "ETag") -> bool:
        """Compare two tags by section 8.8.3.2's weak comparison: equal, weak or not."""
        return self.value == other.value


@dataclass(frozen=True, slots=True)
class ETagList:
    """The value of ``If-Match`` or ``If-None-Match``: ``*`` or a list of entity tags.

    Attributes:
        tags: The tags listed.
        any: Whether it is ``*``, which stands for whatever the current representation is.
        malformed: Whether it is neither. No tag of such a value is trusted, not even a well-formed one.
    """

    tags: tuple[ETag, ...] = ()
    any: bool = False
    malformed: bool = False

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read the field's value. An empty list is valid, and matches nothing (section 5.6.1.2)."""
        if value.strip(_OWS) == "*":
            return cls(any=True)
        tags: list[ETag] = []
        position, more = 0, True
        while more:
            element = _ELEMENT.match(value, position)
            if element is None:
                return cls(malformed=True)
            if element[2] is not None:
                tags.append(ETag(element[2], weak=element[1] is not None))
            position, more = element.end(), element[3] == ","
        return cls(tuple(tags))


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The conditions that a request carries; None where it carries none of that kind.

    Attributes:
        if_match: ``If-Match``.
        if_unmodified_since: ``If-Unmodified-Since``, Unix time. None also if it is not a valid date.
        if_none_match: ``If-None-Match``.
        if_modified_since: ``If-Modified-Since``, Unix time. None also if it is not a valid date.
    """

    if_match: ETagList | None = None
    if_unmodified_since: float | None = None
    if_none_match: ETagList | None = None
    if_modified_since: float | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Read the conditions from a request's fields.

        Args:
            headers: Values by lower-case field name. Several lines of one name must have been joined with
                ``", "`` (section 5.3), or all but one of them are lost.
        """
        match, none_match = headers.get("if-match"), headers.get("if-none-match")
        return cls(
            None if match is None else ETagList.parse(match),
            parse_date(headers.get("if-unmodified-since", "").strip(_OWS)),
            None if none_match is None else ETagList.parse(none_match),
            parse_date(headers.get("if-modified-since", "").strip(_OWS)),
        )

    def __bool__(self) -> bool:
        return self != _NONE


_NONE: Final = Preconditions()


class Verdict(enum.Enum):
    """What the preconditions say about a request."""

    PROCEED = "proceed"
    """Perform the method."""
    NOT_MODIFIED = "not modified"
    """Answer 304: the client has the current representation."""
    FAILED = "failed"
    """Answer 412: perform nothing."""


def evaluate(preconditions: Preconditions, *, method: str, etag: ETag | None, last_modified: float | None) -> Verdict:
    """Evaluate a request's preconditions in the order of precedence of RFC 9110 section 13.2.2.

    Call it after every other check and just before the method is performed, and not at all for a request that
    would be answered by something other than 2xx or 412 anyhow, such as a 404 (section 13.2.1).

    A malformed list of entity tags is decided on the safe side. ``If-Match`` then fails: the client wanted
    protection, and what it protects against is unknown. ``If-None-Match`` fails a method that changes state for
    the same reason, and lets GET and HEAD proceed, since sending the whole representation is always right.

    Args:
        preconditions: What the request carries.
        method: The request's method, in upper case.
        etag: The current representation's entity tag; None if there is no current representation.
        last_modified: Its modification time, Unix time; None if it has none, which disables the conditions on
            dates. Compared by whole seconds, as that is all a client was told.

    Returns:
        The verdict.
    """
    if method in _UNCONDITIONAL:  # methods that select no representation (section 13.2.1)
        return Verdict.PROCEED
    modified = None if etag is None or last_modified is None else math.floor(last_modified)

    if preconditions.if_match is not None:
        if not _if_match(preconditions.if_match, etag):
            return Verdict.FAILED
    elif _is_later(modified, preconditions.if_unmodified_since):
        return Verdict.FAILED

    reads = method in _READS
    if preconditions.if_none_match is not None:
        if not _if_none_match(preconditions.if_none_match, etag, reads=reads):
            return Verdict.NOT_MODIFIED if reads else Verdict.FAILED
    elif reads and _is_later(modified, preconditions.if_modified_since) is False:
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def _is_later(modified: int | None, since: float | None) -> bool | None:
    """Compare as sections 13.1.3 and 13.1.4 do; None where there is nothing to compare."""
    return None if modified is None or since is None else modified > since


def _if_match(wanted: ETagList, etag: ETag | None) -> bool:
    """Section 13.1.1."""
    if etag is None or wanted.malformed:
        return False
    return wanted.any or any(etag.matches_strongly(tag) for tag in wanted.tags)


def _if_none_match(unwanted: ETagList, etag: ETag | None, *, reads: bool) -> bool:
    """Section 13.1.2."""
    if unwanted.malformed:
        return reads
    if etag is None:
        return True
    return not unwanted.any and not any(etag.matches_weakly(tag) for tag in unwanted.tags)


def if_range_allows(value: str | None, etag: ETag | None) -> bool:
    """Tell whether ``If-Range`` lets a ``Range`` field take effect (RFC 9110 section 13.1.5).

    Args:
        value: The ``If-Range`` field's value; None if the request has none.
        etag: The current representation's entity tag; None if there is no current representation.

    Returns:
        True if ranges may be sent. False if the ``Range`` field must be ignored and the whole representation
        sent, which is also the answer to a malformed value.
    """
    if value is None:
        return True
    # A date never matches. It is a strong validator only where nothing can change twice within its second
    # (section 8.8.2.2), and a stream can: parts of two different contents would be joined as one.
    tag = ETag.parse(value)
    return tag is not None and etag is not None and etag.matches_strongly(tag)
