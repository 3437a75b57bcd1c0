"""From an answer that is no success to the error that stands for it."""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock import errors
from penstock.client.errors import ServerError
from penstock.protocols.problem import Problem, slug_of
from penstock.protocols.ranges import parse_content_range

_PASSING = frozenset({429, 502, 503, 504})
"""Statuses that say "not now" rather than "no"."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success.

    Attributes:
        status: the HTTP status code.
        headers: the answer's fields.
        body: the first bytes of its body.
        name: the stream that the request was about; empty for a request about none.
        sent: what the request said about itself, for the error to repeat: ``offset``, ``content_type``, ``producer``.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    name: str = ""
    sent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status in _PASSING

    def error(self) -> errors.PenstockError:
        """Return the error: one of the domain where the problem has such a meaning, else a `ServerError`."""
        problem = self._problem()
        slug = slug_of(problem.type)
        meaning = slug or _BY_STATUS.get(self.status, "")
        make = _DOMAIN.get(meaning)
        if make is not None and (self.name or meaning in _ABOUT_NO_STREAM):
            return _with_text(make(self, problem), problem)
        title = problem.title or _phrase(self.status)
        detail = problem.detail or self._hint()
        return ServerError(self.status, title, detail, slug=slug, extra=problem.extra)

    def number(self, problem: Problem, key: str, otherwise: int = 0) -> int:
        """Return a whole number that the problem tells, or that the request told."""
        for value in (problem.extra.get(key), self.sent.get(key)):
            if isinstance(value, int):
                return value
        return otherwise

    def tail(self, problem: Problem) -> int:
        """Return the offset of the end, from wherever the answer tells it."""
        told = self.headers.get("stream-tail", "")
        if told.isascii() and told.isdigit():
            return int(told)
        try:
            complete = parse_content_range(self.headers.get("content-range", ""))[1]
        except ValueError:
            complete = None
        return self.number(problem, "tail", complete or 0)

    def _problem(self) -> Problem:
        try:
            return Problem.from_bytes(self.body)
        except ValueError:
            return Problem(status=self.status)

    def _hint(self) -> str:
        if 300 <= self.status < 400:
            return f"the server is at {self.headers.get('location', 'another address')}: use that address."
        return ""


def _with_text(error: errors.PenstockError, problem: Problem) -> errors.PenstockError:
    """Let an error say what the server said: it knows more of what happened than we do."""
    if problem.detail:
        error.args = (problem.detail,)
    return error


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _reason(refusal: Refusal, problem: Problem) -> str:
    told = urllib.parse.unquote(refusal.headers.get("stream-failure", ""))
    return str(problem.extra.get("reason") or told or "no reason was given")


# What an answer without a problem document means, as the answer to a HEAD is.
_BY_STATUS = {
    404: "not-found",
    410: "stream-gone",
    412: "precondition-failed",
    416: "range-not-satisfiable",
    507: "storage-full",
}

_ABOUT_NO_STREAM = frozenset({"storage-full", "storage-failed", "stopping"})

_DOMAIN: Mapping[str, Callable[[Refusal, Problem], errors.PenstockError]] = {
    "invalid-name": lambda r, p: errors.InvalidName(r.name, p.detail or "the server refuses it"),
    "invalid-record": lambda _r, p: errors.InvalidRecord(p.detail or "The server refuses the record."),
    "not-found": lambda r, _p: errors.StreamNotFound(r.name),
    "stream-exists": lambda r, _p: errors.StreamExists(r.name),
    "stream-is-open": lambda r, _p: errors.StreamIsOpen(r.name),
    "stream-busy": lambda r, _p: errors.StreamBusy(r.name),
    "not-an-upload": lambda r, _p: errors.NotAnUpload(r.name),
    "writer-evicted": lambda r, _p: errors.WriterEvicted(r.name),
    "stream-closed": lambda r, p: errors.StreamClosed(r.name, r.tail(p)),
    "stream-stopped": lambda r, p: errors.StreamStopped(r.name, r.tail(p), str(p.extra.get("reason", ""))),
    "stream-failed": lambda r, p: errors.StreamFailed(r.name, r.tail(p), _reason(r, p)),
    "stream-gone": lambda r, p: errors.StreamGone(r.name, str(p.extra.get("incarnation", ""))),
    "offset-mismatch": lambda r, p: errors.OffsetMismatch(r.name, r.number(p, "offset"), r.tail(p)),
    "offset-out-of-range": lambda r, p: errors.OffsetOutOfRange(r.name, r.number(p, "offset"), r.tail(p)),
    "range-not-satisfiable": lambda r, p: errors.OffsetOutOfRange(r.name, r.number(p, "offset"), r.tail(p)),
    "content-type-mismatch": lambda r, p: errors.ContentTypeMismatch(
        r.name, str(r.sent.get("content_type", "this")), str(p.extra.get("content_type", "another type"))
    ),
    "producer-fenced": lambda r, p: errors.ProducerFenced(
        r.name, str(r.sent.get("producer", "")), r.number(p, "epoch"), r.number(p, "current_epoch")
    ),
    "producer-out-of-sequence": lambda r, p: errors.ProducerOutOfSequence(
        r.name, str(r.sent.get("producer", "")), r.number(p, "sequence"), r.number(p, "expected")
    ),
    "precondition-failed": lambda r, _p: errors.PreconditionFailed(r.name),
    "storage-full": lambda _r, _p: errors.StorageFull(),
    "storage-failed": lambda _r, p: errors.StorageFailed(p.detail or "The server's storage failed."),
    "stopping": lambda _r, _p: errors.Stopping(),
}
