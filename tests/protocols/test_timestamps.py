"""Times as RFC 3339 writes them."""

from __future__ import annotations

import pytest

from penstock.protocols.timestamps import parse_timestamp, timestamp

DAY = 86400.0


def test_a_time_is_written_in_utc_to_a_fraction_that_is_always_there() -> None:
    assert timestamp(DAY) == "1970-01-02T00:00:00.000000Z"
    assert timestamp(DAY + 0.25) == "1970-01-02T00:00:00.250000Z"
    assert timestamp(DAY + 0.25, "milliseconds") == "1970-01-02T00:00:00.250Z"


def test_a_time_is_read_with_its_zone() -> None:
    assert parse_timestamp("1970-01-02T00:00:00Z") == DAY
    assert parse_timestamp("1970-01-02T01:00:00.5+01:00") == DAY + 0.5
    assert parse_timestamp(timestamp(DAY + 0.123456)) == DAY + 0.123456


@pytest.mark.parametrize(
    "text", ["", "1970-01-02", "1970-01-02T00:00:00", "tomorrow", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59-01:00"]
)
def test_what_is_no_moment_is_none(text: str) -> None:
    assert parse_timestamp(text) is None
