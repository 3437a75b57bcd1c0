"""Problem details (RFC 9457): errors as ``application/problem+json``, with types that stay the same."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

__all__ = ["BASE", "IANA", "MEDIA_TYPE", "Problem", "slug_of", "type_uri"]

MEDIA_TYPE: Final = "application/problem+json"
BASE: Final = "https://penstock.dev/problems/"
"""What every type of this package's own begins with. The rest, the slug, is what clients may depend on."""

IANA: Final = "https://iana.org/assignments/http-problem-types#"
"""What the types begin with that others may use too; see the registry "HTTP Problem Types"."""

_REGISTERED: Final = frozenset({"completed-upload", "inconsistent-upload-length", "mismatching-upload-offset"})
"""The slugs of the types that resumable uploads define (draft-ietf-httpbis-resumable-upload)."""

_SLUG: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "instance"})


def type_uri(slug: str) -> str:
    """Return the type of a problem by its slug: ``not-found`` gives ``https://penstock.dev/problems/not-found``.

    Those that a standard defines have the type that they have there.

    Raises:
        ValueError: The slug is not lower-case words joined with hyphens.
    """
    if not _SLUG.fullmatch(slug):
        raise ValueError(f"not a slug: {slug!r}")
    return (IANA if slug in _REGISTERED else BASE) + slug


def slug_of(type_: str) -> str | None:
    """Return the slug in a type that this package uses; None if the type is not one of them."""
    slug = type_.removeprefix(BASE).removeprefix(IANA)
    return slug if _SLUG.fullmatch(slug) and type_ == type_uri(slug) else None


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong with one request (RFC 9457 section 3).

    Attributes:
        type: URI of the kind of problem; ``about:blank`` says no more than the status does.
        title: The kind of problem in a few words, the same each time.
        status: HTTP status code; None if it is not said.
        detail: What went wrong this time, and how to go on.
        instance: URI of this occurrence.
        extra: Extension members: what programs can use, JSON values by name.

    Raises:
        ValueError: An extension member has the name of a standard one.
    """

    type: str = "about:blank"
    title: str = ""
    status: int | None = None
    detail: str | None = None
    instance: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if clash := _MEMBERS & self.extra.keys():
            raise ValueError(f"extension members cannot be named {', '.join(sorted(clash))}")

    def members(self) -> dict[str, Any]:
        """Return the members of the JSON document; those without a value are left out."""
        members = {
            "type": self.type,
            "title": self.title or None,
            "status": self.status,
            "detail": self.detail,
            "instance": self.instance,
        }
        return {name: value for name, value in members.items() if value is not None} | dict(self.extra)

    def to_bytes(self) -> bytes:
        """Return the JSON document in UTF-8.

        Raises:
            ValueError: An extension member holds NaN or an infinity.
            TypeError: An extension member is not a JSON value.
        """
        text = json.dumps(self.members(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # A lone surrogate (out of a file name, say) becomes \udc80, which inside a JSON string is its escape.
        return text.encode(errors="backslashreplace")

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Read a problem document.

        Members of the wrong JSON type are ignored, as section 3.1 demands of consumers; a ``type`` that is not
        there means ``about:blank``.

        Args:
            body: The response's body.

        Raises:
            ValueError: Not a JSON object.
        """
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a problem document: {error}") from error
        if not isinstance(document, dict):
            raise ValueError("not a problem document: not a JSON object")  # noqa: TRY004 -- of bytes, it is the value
        status = document.get("status")
        return cls(
            type=_text(document, "type") or "about:blank",
            title=_text(document, "title") or "",
            # JSON's true is an int for Python, but no status for anybody.
            status=status if isinstance(status, int) and not isinstance(status, bool) else None,
            detail=_text(document, "detail"),
            instance=_text(document, "instance"),
            extra={name: value for name, value in document.items() if name not in _MEMBERS},
        )


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
