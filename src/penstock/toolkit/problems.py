"""Errors as HTTP sees them: which status and which problem type (RFC 9457) an error of the domain has."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock import errors
from penstock.protocols.problem import MEDIA_TYPE, Problem, type_uri
from penstock.toolkit.requests.lingering import Exchange, Lingering, LingeringResponse
from penstock.toolkit.requests.openapi import PROBLEM, body_docs_of, show_bodies

logger = logging.getLogger("penstock")


class RequestError(errors.PenstockError):
    """A request that is refused for what it says, as ``status`` and ``slug`` tell.

    Args:
        slug: the last part of the problem's type.
        status: the HTTP status.
        detail: what is wrong and what to do about it.
        headers: fields for the answer.
        facts: further members of the problem.
    """

    def __init__(
        self, slug: str, status: int, detail: str, headers: Mapping[str, str] | None = None, **facts: object
    ) -> None:
        self.slug = slug
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.facts = facts
        super().__init__(detail)


def bad_request(detail: str) -> RequestError:
    """Return the error for a request that is not well-formed."""
    return RequestError("bad-request", 400, detail)


_TABLE: Mapping[type[errors.PenstockError], tuple[str, int, str]] = {
    errors.InvalidName: ("invalid-name", 400, "The name is not valid"),
    errors.InvalidRecord: ("invalid-record", 422, "The record is not valid"),
    errors.StreamNotFound: ("not-found", 404, "There is no such stream"),
    errors.StreamExists: ("stream-exists", 409, "The stream exists"),
    errors.StreamIsOpen: ("stream-is-open", 409, "The stream is open"),
    errors.StreamBusy: ("stream-busy", 409, "The stream is being uploaded"),
    errors.NotAnUpload: ("not-an-upload", 409, "The stream is not an upload"),
    errors.WriterEvicted: ("writer-evicted", 409, "Another request took over"),
    errors.StreamClosed: ("stream-closed", 409, "The stream is closed"),
    errors.StreamStopped: ("stream-stopped", 409, "The stream was stopped"),
    errors.StreamFailed: ("stream-failed", 409, "The stream failed"),
    errors.StreamGone: ("stream-gone", 410, "The stream is gone"),
    errors.OffsetMismatch: ("offset-mismatch", 409, "The offset is not the tail"),
    errors.OffsetOutOfRange: ("offset-out-of-range", 410, "The offset cannot be read from"),
    errors.LengthMismatch: ("length-mismatch", 400, "The length is not the declared one"),
    errors.ContentTypeMismatch: ("content-type-mismatch", 409, "The stream holds another content type"),
    errors.ProducerFenced: ("producer-fenced", 403, "Another producer took over"),
    errors.ProducerOutOfSequence: ("producer-out-of-sequence", 409, "An append is missing"),
    errors.EpochNotBegun: ("epoch-not-begun", 400, "A new epoch begins with sequence 0"),
    errors.SequenceRegression: ("sequence-regression", 409, "The sequence is not after the last one"),
    errors.ForksRemain: ("forks-remain", 409, "The stream is kept for its forks"),
    errors.ForkOutOfRange: ("fork-out-of-range", 400, "The stream cannot be forked there"),
    errors.PreconditionFailed: ("precondition-failed", 412, "The precondition failed"),
    errors.DigestMismatch: ("digest-mismatch", 400, "The digest does not match"),
    errors.StorageFull: ("storage-full", 507, "The storage is full"),
    errors.StorageFailed: ("storage-failed", 503, "The storage failed"),
    errors.TooManyStreams: ("too-many-streams", 400, "These are too many streams"),
    errors.Stopping: ("stopping", 503, "The server is stopping"),
}

_FACTS: Mapping[type[errors.PenstockError], Mapping[str, str]] = {
    errors.StreamClosed: {"tail": "tail"},
    errors.StreamStopped: {"tail": "tail", "reason": "reason"},
    errors.StreamFailed: {"tail": "tail", "reason": "reason"},
    errors.OffsetMismatch: {"offset": "offset", "tail": "tail"},
    errors.OffsetOutOfRange: {"offset": "offset", "tail": "tail", "start": "start"},
    errors.LengthMismatch: {"length": "length", "size": "size"},
    errors.ContentTypeMismatch: {"content_type": "content_type"},
    errors.ProducerFenced: {"current_epoch": "current"},
    errors.ProducerOutOfSequence: {"expected": "expected"},
    errors.SequenceRegression: {"last": "last"},
    errors.ForkOutOfRange: {"offset": "offset", "tail": "tail"},
}
"""Which attributes of an error are members of its problem, by the members' names."""

_STATUS_SLUGS: Mapping[int, str] = {
    400: "bad-request",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    422: "bad-request",
}

_PHRASES: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}


def problem_of(error: Exception) -> Problem:
    """Return what there is to say about an error, for where that is told by other means than a response."""
    return _problem(error)[0]


def problem_response(error: Exception, facts: Mapping[str, object] | None = None) -> Response:
    """Return the answer to a request that ended in ``error``, before anything of a response was sent.

    Args:
        error: what happened.
        facts: further members of the problem.
    """
    known, headers = _problem(error)
    problem = replace(known, extra={**known.extra, **(facts or {})})
    fields = {"cache-control": "no-store", **(headers or {})}
    return Response(problem.to_bytes(), problem.status or 500, fields, media_type=MEDIA_TYPE)


def http_exception(error: errors.PenstockError | ClientDisconnect) -> HTTPException:
    """Return the framework's exception for an error of the domain: for applications that do not know ours."""
    problem, headers = _problem(error)
    return HTTPException(problem.status or 500, problem.detail, headers)


def handles_problems(app: Any) -> bool:
    """Tell whether an application's errors of the domain are answered: see `install_problem_handlers`."""
    return errors.PenstockError in getattr(app, "exception_handlers", {})


@contextmanager
def answered(request: Request) -> Iterator[None]:
    """Let the errors of a request's body become answers in any application: around a dependency's ``yield``.

    They are problems where the application handles them, and otherwise what FastAPI answers in its own form.
    """
    try:
        yield
    except (errors.PenstockError, ClientDisconnect) as error:
        if handles_problems(request.app):
            raise
        raise http_exception(error) from error


def install_problem_handlers(app: FastAPI) -> None:
    """Answer errors with problems (RFC 9457) in an application of one's own, before it is started.

    Errors of penstock, ``HTTPException`` and validation errors become ``application/problem+json``. Besides, an answer
    that comes before the whole body has reaches the client also while that is still sending, whoever gave it, and the
    rest of the body is not read on forever (`Lingering`). The OpenAPI document shows all of that, and the bodies that
    dependencies of penstock read (`show_bodies`).
    """

    async def answer(_: Request, error: Exception) -> Response:
        return problem_response(error)

    for kind in (errors.PenstockError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, answer)
    app.add_middleware(Lingering)
    show_bodies(app, problems=True)


def _problem(error: Exception) -> tuple[Problem, Mapping[str, str] | None]:
    """Return what there is to say about an error, and the fields that go with it."""
    if isinstance(error, RequestError):
        return _of_ours(error.slug, error.status, _title(error.slug), error.detail, error.facts), error.headers
    if isinstance(error, HTTPException):
        return _other(error), error.headers
    if isinstance(error, RequestValidationError):
        return _of_ours("bad-request", 400, _title("bad-request"), _validation(error)), {}
    if isinstance(error, ClientDisconnect):  # nobody reads it; the log tells
        return _of_ours("body-incomplete", 400, _title("body-incomplete"), "The body ended before its end."), {}
    for kind in type(error).__mro__:
        if kind in _TABLE:
            slug, status, title = _TABLE[kind]
            facts = {member: getattr(error, name) for member, name in _FACTS.get(kind, {}).items()}
            return _of_ours(slug, status, title, str(error), facts), _retry_later(status)
    logger.error("A request failed unexpectedly.", exc_info=error)
    return _of_ours("internal", 500, _title("internal"), "The server failed; its log tells more."), {}


def _other(error: HTTPException) -> Problem:
    """Return the problem for an exception of the framework or the application."""
    slug = _STATUS_SLUGS.get(error.status_code)
    given: object = error.detail  # of FastAPI's, whatever JSON can tell
    detail = given if isinstance(given, str) else json.dumps(given, default=str)
    if slug is not None:
        return _of_ours(slug, error.status_code, _title(slug), detail)
    # A type would promise that we know what this is about (RFC 9457 section 4.2.1).
    title = _PHRASES.get(error.status_code, "Refused")
    return Problem(title=title, status=error.status_code, detail=detail)


_NO_FACTS: Mapping[str, object] = {}


def _of_ours(slug: str, status: int, title: str, detail: str, facts: Mapping[str, object] = _NO_FACTS) -> Problem:
    return Problem(type=type_uri(slug), title=title, status=status, detail=detail, extra=dict(facts))


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def _retry_later(status: int) -> dict[str, str]:
    return {"retry-after": "1"} if status == 503 else {}


def _validation(error: RequestValidationError) -> str:
    """Say in a sentence each what is wrong with the parameters."""
    sentences = []
    for part in error.errors():
        where, *path = part["loc"]
        sentences.append(f"The {where} parameter {'.'.join(map(str, path))!r}: {part['msg']}.")
    return " ".join(sentences)


class ProblemRoute(APIRoute):
    """A route whose errors are problems, in whoever's application it is mounted.

    Its answers reach clients that are still sending; see `penstock.toolkit.requests.lingering`. What it says of itself
    in the OpenAPI document shows the bodies that dependencies of penstock read.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        docs = body_docs_of(self.dependant, problems=True)
        self.responses = {"default": {"description": "A problem", "content": PROBLEM}, **self.responses}
        self.responses = {**docs.pop("responses", {}), **{str(status): told for status, told in self.responses.items()}}
        if docs:
            self.openapi_extra = {**docs, **(self.openapi_extra or {})}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with errors turned into answers."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            exchange = Exchange.begun(request.scope, request.receive)
            if exchange is not None:
                request = Request(request.scope, exchange.receive)
            try:
                response = await handler(request)
            except (errors.PenstockError, HTTPException, RequestValidationError, ClientDisconnect) as error:
                response = self.refusal(error)
            self.finish(request, response)
            return response if exchange is None else LingeringResponse(response, exchange)

        return handle

    def finish(self, request: Request, response: Response) -> None:
        """Add to a response what every answer of the route has; for subclasses."""

    def refusal(self, error: Exception) -> Response:
        """Return the answer to a request that ended in ``error``."""
        return problem_response(error)
