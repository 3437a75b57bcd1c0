"""What the OpenAPI document says of bodies that FastAPI does not read itself, and so cannot see in a signature.

A dependency that reads the body, `ReadsBody`, knows what it takes and what it refuses. Once an application's document
is to show that (`show_bodies`), it does for every operation that has such a dependency, wherever among its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant

__all__ = ["PROBLEM", "ReadsBody", "body_docs_of", "show_bodies"]

PROBLEM: Final[dict[str, Any]] = {
    "application/problem+json": {
        "schema": {
            "title": "Problem",
            "description": "What went wrong (RFC 9457)",
            "type": "object",
            "required": ["type", "title", "status"],
            "properties": {
                "type": {"type": "string", "format": "uri"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
        }
    }
}
"""The content of a response that is a problem."""

_DETAIL: Final[dict[str, Any]] = {
    "application/json": {"schema": {"title": "Refusal", "type": "object", "properties": {"detail": {"type": "string"}}}}
}
"""The content of a refusal as FastAPI writes it."""


class ReadsBody:
    """A dependency that reads the body of a request, when its handler asks for it.

    Attributes:
        docs: what the document says of the body. It is shown by itself in an application with
            `install_problem_handlers`, with the lifespans of penstock, or on a `ProblemRoute`; anywhere else, it is for
            ``openapi_extra``.
        refusals: why what statuses may be answered on account of the body.
    """

    docs: dict[str, Any]
    refusals: Mapping[int, str]


def show_bodies(app: FastAPI, *, problems: bool) -> None:
    """Have an application's document show the bodies that its dependencies read, and how they are refused.

    Args:
        app: the application. What it says itself of an operation stays.
        problems: whether its errors are problems. Then parameters that are not valid are, too, and not FastAPI's 422.
    """
    original = app.openapi
    if getattr(original, "_shows_bodies", False):
        return

    def openapi() -> dict[str, Any]:
        document = original()
        for path, method, dependant in _operations(app):
            operation = document.get("paths", {}).get(path, {}).get(method)
            if operation is not None:
                _describe(operation, body_docs_of(dependant, problems=problems), problems=problems)
        return document

    openapi._shows_bodies = True  # type: ignore[attr-defined] # a mark, so that it is done once
    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents


def body_docs_of(dependant: Dependant, *, problems: bool) -> dict[str, Any]:
    """Return what an operation's document says on account of the dependencies that read its body."""
    found: dict[str, Any] = {}
    for reader in _readers(dependant):
        content = PROBLEM if problems else _DETAIL
        refused = {str(status): {"description": why, "content": content} for status, why in reader.refusals.items()}
        found = {**copy.deepcopy(reader.docs), "responses": {**found.get("responses", {}), **copy.deepcopy(refused)}}
    return found


def _readers(dependant: Dependant) -> Iterator[ReadsBody]:
    if isinstance(dependant.call, ReadsBody):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _readers(inner)


def _operations(app: FastAPI) -> Iterator[tuple[str, str, Dependant]]:
    # Newer versions of FastAPI keep included routers as they are, and tell what there is in them.
    contexts = getattr(routing, "iter_route_contexts", iter)(app.routes)
    for context in contexts:
        route: Any = context
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant) and getattr(route, "methods", None):
            for method in route.methods:
                yield route.path_format, method.lower(), dependant


def _describe(operation: dict[str, Any], docs: dict[str, Any], *, problems: bool) -> None:
    if "requestBody" in docs:
        operation.setdefault("requestBody", docs["requestBody"])
    responses = operation.setdefault("responses", {})
    if problems and "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
        responses["400"] = {"description": "The parameters are not valid", "content": copy.deepcopy(PROBLEM)}
    for status, response in docs.get("responses", {}).items():
        responses.setdefault(status, response)
