"""JSON schemas for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from penstock.toolkit.requests.parsers import is_struct


def schema_of(item: Any) -> dict[str, Any]:
    """Return the schema of a type: whatever pydantic knows, or a msgspec ``Struct``."""
    if is_struct(item):
        import msgspec

        (schema,), definitions = msgspec.json.schema_components([item], ref_template="#/$defs/{name}")
        return inlined({**schema, "$defs": definitions})
    return inlined(TypeAdapter(item).json_schema())


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its definitions where they are used: in an OpenAPI document, they would be elsewhere.

    A definition that leads to itself would never end: what is in there stays open.
    """
    result: dict[str, Any] = _inlined(schema, schema.pop("$defs", {}))
    return result


def _inlined(schema: Any, definitions: dict[str, Any], within: tuple[str, ...] = ()) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions, within) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        inner = {} if name in within else _inlined(definitions[name], definitions, (*within, name))
        return {**inner, **rest}
    return {key: _inlined(value, definitions, within) for key, value in schema.items()}
