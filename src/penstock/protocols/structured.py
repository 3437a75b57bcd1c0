"""Structured fields (RFC 9651), as far as fields of this package are made of them: booleans, integers, dictionaries.

Digest fields, which are dictionaries of byte sequences, have a reader of their own in `penstock.protocols.digest`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["format_dictionary", "format_item", "parse_boolean", "parse_dictionary", "parse_integer"]

_KEY = r"[a-z*][a-z0-9_.*-]*+"
_INTEGER = r"-?[0-9]{1,15}+(?![0-9.])"
_BOOLEAN = r"\?[01]"
_BARE_ITEM = (
    rf"(?:(?P<boolean>{_BOOLEAN})|(?P<integer>{_INTEGER})"
    rf"|@{_INTEGER}|-?[0-9]{{1,12}}+\.[0-9]{{1,3}}+(?![0-9.])"
    r'|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'
    r'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"'
    r"|:[A-Za-z0-9+/=]*+:"
    r"|[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*+)"
)
# No field here defines parameters: they are checked, and read over (RFC 9651 section 3.1.2).
_ANY_ITEM = re.sub(r"\?P<\w+>", "?:", _BARE_ITEM)
_PARAMETERS = rf"(?:;[ ]*+{_KEY}(?:={_ANY_ITEM})?+)*+"
_INNER_LIST = rf"\([ ]*+(?:{_ANY_ITEM}{_PARAMETERS}(?:[ ]++(?!\))|[ ]*+(?=\))))*+\)"
_ITEM: Final = re.compile(rf"[ ]*+{_BARE_ITEM}{_PARAMETERS}[ ]*+")
_MEMBER: Final = re.compile(rf"(?P<key>{_KEY})(?:=(?:{_BARE_ITEM}|{_INNER_LIST}))?+{_PARAMETERS}")
_SEPARATOR: Final = re.compile(r"[ \t]*+(?:(?P<comma>,)[ \t]*+|\Z)")


def parse_boolean(value: str) -> bool | None:
    """Read an item that must be a boolean; None for anything else."""
    match = _ITEM.fullmatch(value)
    return None if match is None or match["boolean"] is None else match["boolean"] == "?1"


def parse_integer(value: str) -> int | None:
    """Read an item that must be an integer, of at most 15 digits; None for anything else."""
    match = _ITEM.fullmatch(value)
    return None if match is None or match["integer"] is None else int(match["integer"])


def parse_dictionary(value: str) -> dict[str, int | bool | None] | None:
    """Read a dictionary of integers and booleans; None if it is no dictionary.

    Returns:
        values by key, in the order of the field; of a key that comes twice, the last value. A value of another type,
        which is for the caller to judge, is None.
    """
    members: dict[str, int | bool | None] = {}
    try:
        for member in _members(value.lstrip(" ")):
            members[member["key"]] = _value(member)
    except ValueError:
        return None
    return members


def _members(text: str) -> Iterator[re.Match[str]]:
    """Yield the members of a dictionary (RFC 9651 section 4.2.2)."""
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            raise ValueError(text)
        yield member
        separator = _SEPARATOR.match(text, member.end())
        if separator is None or (separator["comma"] and separator.end() == len(text)):
            raise ValueError(text)
        position = separator.end()


def _value(member: re.Match[str]) -> int | bool | None:
    if member["integer"] is not None:
        return int(member["integer"])
    if member["boolean"] is not None:
        return member["boolean"] == "?1"
    # A key alone is true (section 3.2).
    return None if "=" in member[0].partition(";")[0] else True


def format_item(value: bool | int) -> str:
    """Write a boolean or an integer.

    Raises:
        ValueError: the integer has more than 15 digits.
    """
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if abs(value) > 999_999_999_999_999:
        raise ValueError(f"not an integer of structured fields: {value}")
    return str(value)


def format_dictionary(members: Mapping[str, int]) -> str:
    """Write a dictionary of integers."""
    return ", ".join(f"{key}={format_item(value)}" for key, value in members.items())
