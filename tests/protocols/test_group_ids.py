"""Ids of many streams come back as the offsets that they were made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocols.group_ids import GroupIdError, entry, group_id, parse_group_id, tag_of

INCARNATIONS = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")


@given(st.dictionaries(INCARNATIONS, st.integers(0, 2**72 - 1), max_size=20))
def test_an_id_tells_each_offset(offsets: dict[str, int]) -> None:
    text = group_id({incarnation: entry(incarnation, offset) for incarnation, offset in offsets.items()})
    assert parse_group_id(text) == {tag_of(incarnation): offset for incarnation, offset in offsets.items()}
    assert text.isascii()
    assert text.isprintable()


def test_an_id_of_a_hundred_streams_fits_into_a_header_field() -> None:
    entries = {f"{number:016x}": entry(f"{number:016x}", 10_000_000) for number in range(500)}
    assert len(group_id(entries)) == 3 + 500 * 12


@pytest.mark.parametrize(
    "text", ["", "12", "v1", "v2.", "v1.x", "v1.AAAA", "v1.AAAAAAAB", "v1.AAAAAAAAAAA=", "v1.é", "v1.AAAAAAAD"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(GroupIdError):
        parse_group_id(text)
