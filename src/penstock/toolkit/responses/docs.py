"""What the OpenAPI document says of streamed responses: FastAPI cannot see it in a handler's signature."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter

from penstock.toolkit.requests.schemas import inlined

Shape: TypeAlias = Literal["bytes", "items", "array", "events"]
"""What a body is made of: bytes; JSON texts one after another; one JSON array; server-sent events."""

Responses: TypeAlias = dict[int | str, dict[str, Any]]
"""What the ``responses`` of a route are."""


def documented(media_type: str, shape: Shape, item: Any, description: str, status: int) -> Responses:
    """Return the ``responses`` for a route that streams.

    Items of a sequence are described by ``itemSchema``, as FastAPI does for its own streams, and by the ``schema`` of
    an array of them, as which a sequential media type is read as a whole (OpenAPI 3.2, "Sequential Media Types").
    """
    schema = {} if item is None else inlined(TypeAdapter(item).json_schema(mode="serialization"))
    match shape:
        case "bytes":
            content: dict[str, Any] = {"schema": {"type": "string"}}
        case "array":
            content = {"schema": {"type": "array", "items": schema}}
        case "items":
            content = {"schema": {"type": "array", "items": schema}, "itemSchema": schema}
        case "events":
            event = _event(None if item is None else schema)
            content = {"schema": {"type": "array", "items": event}, "itemSchema": event}
    return {status: {"description": description, "content": {media_type: content}}}


def _event(schema: dict[str, Any] | None) -> dict[str, Any]:
    """Return an event's schema (OpenAPI 3.2, "Special Considerations for Server-Sent Events")."""
    data: dict[str, Any] = {"type": "string"}
    if schema is not None:
        data |= {"contentMediaType": "application/json", "contentSchema": schema}
    properties = {
        "data": data,
        "event": {"type": "string"},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    }
    return {"type": "object", "properties": properties, **({} if schema is None else {"required": ["data"]})}


def documented_file(media_type: str) -> Responses:
    """Return the ``responses`` for a route that serves a file: with ranges and conditions."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": "The whole", "content": content},
        206: {"description": "The range that was asked for; or several, as multipart/byteranges", "content": content},
        304: {"description": "It is still what the client has"},
        412: {"description": "It is not what the request's conditions ask for"},
        416: {"description": "The range lies past the end"},
    }
