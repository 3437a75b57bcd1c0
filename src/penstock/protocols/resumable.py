"""Resumable uploads of the IETF: their header fields, and what each version of the draft asks of a server.

Source: draft-ietf-httpbis-resumable-upload. Drafts are told apart by their *interop version*, which a client sends as
``Upload-Draft-Interop-Version``. Sections are those of draft 11, which is of version 8, and of the editors' copy of
July 2026. A request without a version is taken for one of the standard that the draft will become: of that copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from penstock.protocols.structured import format_dictionary, format_item, parse_boolean, parse_dictionary, parse_integer

__all__ = [
    "EXPOSED",
    "INTERIM_STATUS",
    "MEDIA_TYPE",
    "REQUEST_FIELDS",
    "VERSION_FIELD",
    "Dialect",
    "InconsistentLength",
    "Limits",
    "UploadRequest",
    "dialect_of",
    "final_fields",
    "interim_fields",
    "total_length",
]

INTERIM_STATUS: Final = 104
"""Upload Resumption Supported (section 5)."""

MEDIA_TYPE: Final = "application/partial-upload"
"""What an append carries (section 6)."""

VERSION_FIELD: Final = "upload-draft-interop-version"

REQUEST_FIELDS: Final = (
    *("Upload-Complete", "Upload-Draft-Interop-Version", "Upload-Incomplete", "Upload-Length", "Upload-Offset"),
)
"""The request fields that a browser must be allowed to send from another origin."""

EXPOSED: Final = (*("Upload-Complete", "Upload-Incomplete", "Upload-Length", "Upload-Limit", "Upload-Offset"),)
"""The response fields that a script of another origin must be allowed to see."""

_COMPLETE: Final = "upload-complete"
_INCOMPLETE: Final = "upload-incomplete"
_OFFSET: Final = "upload-offset"
_LENGTH: Final = "upload-length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What an interop version asks, where versions differ.

    Attributes:
        version: the interop version; None for requests that tell none.
        inverted: completeness is told by ``Upload-Incomplete``, the opposite of ``Upload-Complete``.
        unsaid: what an append without a word of its completeness is: complete (True), or not; None if it is an error.
        typed: an append must be of the media type ``application/partial-upload``.
        appended: the status of an append after which the upload is not complete.
        bare: looking at an upload, or cancelling it, is refused (400) with fields that describe a transfer.
        relocated: the answer to a request that created and completed an upload tells the upload's URL as its Location.
        final: a completed upload refuses every append (400 ``completed-upload``); otherwise an append that has nothing
            to add is given the final answer again.
        ends_at_length: an upload is complete when it has its length, whatever its client says. A server may say so
            (section 4.1.2), and must to serve the most widespread client of the early drafts: tus-js-client 4 does not
            say that the last bytes of a file are the last, if others went before them, nor that an empty file is all.
        ends_on_excess: content that goes past the length ends the upload; otherwise what fits may stay.
        lifetime: the name of the limit that tells how long the upload is kept.
    """

    version: int | None = None
    inverted: bool = False
    unsaid: bool | None = None
    typed: bool = True
    appended: int = 204
    bare: bool = False
    relocated: bool = False
    final: bool = False
    ends_at_length: bool = False
    ends_on_excess: bool = True
    lifetime: str = "max-age"

    @property
    def answers_early(self) -> bool:
        """Whether 104 responses may be sent: only to a client that told a version that is known (appendix)."""
        return self.version is not None


NEWEST: Final = Dialect()

_EARLY: Final = Dialect(
    unsaid=False,
    typed=False,
    appended=201,
    bare=True,
    relocated=True,
    ends_at_length=True,
    ends_on_excess=False,
)

_DIALECTS: Final[Mapping[int, Dialect]] = {
    dialect.version: dialect
    for dialect in (
        # draft 01: the first with URLs for uploads. Apple's systems speak it since 2023.
        replace(_EARLY, version=3, inverted=True, unsaid=True),
        # draft 02: Upload-Complete.
        replace(_EARLY, version=4),
        # draft 03: progress in 104 responses.
        replace(_EARLY, version=5),
        # drafts 04 and 05: the media type, Upload-Length, Upload-Limit, problem types. They refuse appends to complete
        # uploads, too; but here the server itself may have completed one whose client is about to say so.
        replace(_EARLY, version=6, typed=True, lifetime="expires"),
        # drafts 06 to 08: the answer is that of the resource that was asked first.
        Dialect(version=7, final=True, ends_on_excess=False),
        # drafts 09 to 11.
        Dialect(version=8),
    )
    if dialect.version is not None
}


def dialect_of(headers: Mapping[str, str]) -> Dialect:
    """Return what a request's version asks. A version that is not known is taken like none.

    So no 104 is sent to it, as the draft demands (appendix "Draft Version Identification"), and nothing else is lost.
    """
    version = parse_integer(headers.get(VERSION_FIELD, ""))
    return NEWEST if version is None else _DIALECTS.get(version, NEWEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """What the fields of a request say of an upload. A field that is malformed counts as absent (section 4.1).

    Attributes:
        dialect: which version of the draft the client speaks.
        complete: whether the content of the request ends the representation; None if it is not said.
        offset: where the content belongs, in bytes.
        length: the whole representation's length in bytes.
    """

    dialect: Dialect
    complete: bool | None = None
    offset: int | None = None
    length: int | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Read the fields.

        Args:
            headers: values by lower-case field name, several lines of one name joined with ``", "``.
        """
        dialect = dialect_of(headers)
        if dialect.inverted:
            incomplete = parse_boolean(headers.get(_INCOMPLETE, ""))
            complete = None if incomplete is None else not incomplete
        else:
            complete = parse_boolean(headers.get(_COMPLETE, ""))
        return cls(
            dialect=dialect,
            complete=complete,
            offset=_size(headers.get(_OFFSET, "")),
            length=_size(headers.get(_LENGTH, "")),
        )

    @property
    def completes(self) -> bool | None:
        """Whether an append with these fields ends the representation; None if the dialect leaves that open."""
        return self.dialect.unsaid if self.complete is None else self.complete

    @property
    def transfers(self) -> bool:
        """Whether any field describes a transfer: what some dialects refuse in other requests."""
        return self.complete is not None or self.offset is not None or self.length is not None


def _size(value: str) -> int | None:
    number = parse_integer(value)
    return number if number is not None and number >= 0 else None


class InconsistentLength(ValueError):
    """What a client said of the length contradicts itself (section 4.1.3). The text is fit to be sent to it."""


def total_length(request: UploadRequest, *, offset: int, content: int | None, known: int | None = None) -> int | None:
    """Return the representation's length, by all that is known of it (section 4.1.3); None if that is not enough.

    Args:
        request: the fields of a request that creates the upload or appends to it.
        offset: where its content begins.
        content: how many bytes its content has (``Content-Length``); None if that is not told.
        known: what earlier requests told.

    Raises:
        InconsistentLength: two of them differ, or the content goes past the end.
    """
    ends = offset + content if request.completes and content is not None else None
    told = {length for length in (known, request.length, ends) if length is not None}
    if len(told) > 1:
        raise InconsistentLength(
            f"The length is told in ways that contradict each other: {_and(told)} bytes. Upload-Length, if it is"
            " given, and the offset after the last content must be the same in all requests."
        )
    length = told.pop() if told else None
    end = offset + (content or 0)
    if length is not None and end > length:
        raise InconsistentLength(f"The content would end at {end}, past the upload's length of {length} bytes.")
    return length


def _and(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server sets for uploads (section 4.1.4): ``Upload-Limit``. Sizes are bytes; None is no limit.

    Attributes:
        max_size: of a representation, at most.
        min_size: of a representation, for the upload to be resumable.
        max_append_size: of the content of one request, at most.
        min_append_size: of the content of one request, at least. It does not apply to one that ends the representation,
            nor to one without content that creates the upload.
        max_age: how many seconds the upload is kept from now on.
    """

    max_size: int | None = None
    min_size: int | None = None
    max_append_size: int | None = None
    min_append_size: int | None = None
    max_age: int | None = None

    def format(self, dialect: Dialect = NEWEST) -> str:
        """Write the field's value. Without any limit it is ``min-size=0``, since a field cannot be empty."""
        named = {
            "max-size": self.max_size,
            "min-size": self.min_size,
            "max-append-size": self.max_append_size,
            "min-append-size": self.min_append_size,
            dialect.lifetime: self.max_age,
        }
        return format_dictionary({name: value for name, value in named.items() if value is not None} or {"min-size": 0})

    @classmethod
    def parse(cls, value: str, dialect: Dialect = NEWEST) -> Self | None:
        """Read the field's value. Unknown limits are read over; None if a known one is not a number of any size."""
        members = parse_dictionary(value)
        if members is None:
            return None
        known = {
            "max_size": "max-size",
            "min_size": "min-size",
            "max_append_size": "max-append-size",
            "min_append_size": "min-append-size",
            "max_age": dialect.lifetime,
        }
        found: dict[str, int] = {}
        for attribute, name in known.items():
            if name in members:
                number = members[name]
                if number is None or isinstance(number, bool) or number < 0:
                    return None
                found[attribute] = number
        return cls(**found)


def final_fields(
    dialect: Dialect,
    *,
    complete: bool,
    offset: int | None = None,
    length: int | None = None,
    limits: Limits | None = None,
) -> dict[str, str]:
    """Return the fields of a final response.

    Args:
        dialect: the client's.
        complete: whether the response is that of the resource to which the representation was sent.
        offset: how many bytes are there, for sure.
        length: the representation's length.
        limits: what holds for the upload.
    """
    fields = {_INCOMPLETE: format_item(not complete)} if dialect.inverted else {_COMPLETE: format_item(complete)}
    if offset is not None:
        fields[_OFFSET] = format_item(offset)
    if length is not None:
        fields[_LENGTH] = format_item(length)
    if limits is not None:
        fields["upload-limit"] = limits.format(dialect)
    return fields


def interim_fields(
    dialect: Dialect, *, location: str | None = None, offset: int | None = None, limits: Limits | None = None
) -> dict[str, str]:
    """Return the fields of a 104 response: one that announces the upload's URL, or one that tells the progress.

    Args:
        dialect: the client's, which must have told a version.
        location: the upload's URL, in the first response of a request that created it (section 5).
        offset: how many bytes are there, for sure.
        limits: what holds for the upload.

    Raises:
        ValueError: the client told no version.
    """
    if dialect.version is None:
        raise ValueError("a 104 response is for clients that told their version")
    fields = {VERSION_FIELD: format_item(dialect.version)}
    if location is not None:
        fields["location"] = location
    if offset is not None:
        fields[_OFFSET] = format_item(offset)
    if limits is not None:
        fields["upload-limit"] = limits.format(dialect)
    return fields
