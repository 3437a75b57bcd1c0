"""Structured fields, compared with a complete implementation of RFC 9651."""

import time

import http_sf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.protocols.structured import (
    format_dictionary,
    format_item,
    parse_boolean,
    parse_dictionary,
    parse_integer,
)

PIECES = st.sampled_from(
    [
        *("?0", "?1", "?2", "1", "-7", "0", "00012", "1.5", "1.", "9" * 15, "9" * 16, "-", "@5", "a", "tok/en", '"x"'),
        *('"a;b=1"', '"\\""', '"', ":AA==:", ":A:", '%"f%c3%a9"', '%"%c3"', "(", ")", "(1 2)", "( a;b )", "()", ";a"),
        *(";a=1", "; b=?0", ";A", " ", "\t", ",", ", ", "=", "a=1", "max-size=10", "a=(1 2);x", "*k=?0", "é"),
    ]
)
FIELDS = st.lists(PIECES, max_size=8).map("".join)


def reference(value: str, kind: str) -> object:
    """What the reference reads; None where it refuses."""
    try:
        return http_sf.parse(value.encode(), tltype=kind)
    except (ValueError, UnicodeError):
        return None


def bare(item: object) -> object:
    """The value of an item, or None for one of another type than those that are read."""
    value = item[0] if isinstance(item, tuple) else item
    return value if type(value) in {bool, int} else None


def digits(value: object, text: str) -> bool:
    """Whether the reference took a date (@1) for an integer: it has a type of its own for it."""
    return isinstance(value, int) and not isinstance(value, bool) and "@" not in text


@given(FIELDS)
@example("?1;a=?0")
@example(" ?1 ")
@example("1\t")
def test_items_are_read_as_the_standard_says(text: str) -> None:
    value = bare(reference(text, "item")) if text.strip(" ") and text.isascii() else None
    assert parse_boolean(text) == (value if isinstance(value, bool) else None)
    assert parse_integer(text) == (value if digits(value, text) else None)


@given(FIELDS)
@example("a=1, a=?0")
@example("a;x=1, b=2;y")
@example("a=1,")
@example("a=1\t")
@example("\ta=1")
@example("\t")
@example('a="x=1"')
def test_dictionaries_are_read_as_the_standard_says(text: str) -> None:
    if not text.isascii():
        assert parse_dictionary(text) is None
        return
    expected = reference(text, "dictionary") if text.strip(" ") else {}
    found = parse_dictionary(text)
    if isinstance(expected, dict):
        assert found == {key: bare(item) for key, item in expected.items()}
    elif found is not None:  # what is inside of bytes, displayed strings and dates is not looked at
        assert any(mark in text for mark in (":", "%", "@"))


def test_values_are_written_as_they_are_read() -> None:
    assert [format_item(value) for value in (True, False, 0, -5, 10**15 - 1)] == ["?1", "?0", "0", "-5", "9" * 15]
    limits = {"max-size": 10**12, "min-size": 0}
    assert format_dictionary(limits) == "max-size=1000000000000, min-size=0"
    assert parse_dictionary(format_dictionary(limits)) == limits
    with pytest.raises(ValueError, match="1000000000000000"):
        format_item(10**15)


@pytest.mark.parametrize("piece", ["(", "( ", "(1 ", "a;", "a=1,", "a;b=1", '"\\', '%"', "1", ";a ", " "])
def test_no_field_takes_long(piece: str) -> None:
    text = "a=" + piece * 8000
    began = time.perf_counter()
    parse_dictionary(text), parse_boolean(text), parse_integer(text)
    assert time.perf_counter() - began < 1
