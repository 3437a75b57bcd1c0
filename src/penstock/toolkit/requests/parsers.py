"""What makes items of records: plain values, or instances of a type, validated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

__all__ = ["Parser", "is_struct", "json_parser", "maker_of"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parser(Generic[T]):
    """Makes an item of a record's bytes.

    Attributes:
        parse: does it.
        refusals: the errors that it raises for records that are not valid.
        broken: tells of such an error whether the record does not even have the right syntax.
    """

    parse: Callable[[bytes], T]
    refusals: tuple[type[Exception], ...]
    broken: Callable[[Exception], bool]


def json_parser(item: Any) -> Parser[Any]:
    """Return a parser of JSON texts.

    Args:
        item: a type: a model, a dataclass, a TypedDict, whatever pydantic knows, or a msgspec ``Struct``. Without one,
            items are what JSON gives.
    """
    if item is None:
        return Parser(lambda record: from_json(record, allow_inf_nan=False), (ValueError,), lambda _: True)
    if is_struct(item):
        import msgspec

        decode = msgspec.json.Decoder(item).decode
        return Parser(decode, (msgspec.MsgspecError,), lambda error: not isinstance(error, msgspec.ValidationError))
    return Parser(_adapter(item).validate_json, (ValidationError,), _is_no_json)


def _adapter(item: Any) -> TypeAdapter[Any]:
    try:
        return _kept_adapter(item)
    except TypeError:  # a type that cannot be a key
        return TypeAdapter(item)


@functools.lru_cache(256)
def _kept_adapter(item: Any) -> TypeAdapter[Any]:
    """Return what validates a type; to make it takes longer than many a request."""
    return TypeAdapter(item)


def _is_no_json(error: Exception) -> bool:
    return isinstance(error, ValidationError) and error.errors(include_input=False)[0]["type"] == "json_invalid"


def is_struct(item: Any) -> bool:
    """Tell whether a type is a msgspec ``Struct``."""
    return isinstance(item, type) and hasattr(item, "__struct_fields__") and hasattr(item, "__struct_config__")


def maker_of(item: Any) -> tuple[Callable[[Any], Any], tuple[type[Exception], ...]]:
    """Return what makes an instance of a type out of a dict of texts, and the errors that it raises."""
    if is_struct(item):
        import msgspec

        return lambda fields: msgspec.convert(fields, item, strict=False), (msgspec.ValidationError,)
    return _adapter(item).validate_python, (ValidationError,)
