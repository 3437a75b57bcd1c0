from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.dates import format_date, parse_date

RFC_MOMENT = 784111777.0  # the one moment that RFC 9110 section 5.6.7 writes in three forms
NOW_2026 = 1_780_000_000.0


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_forms_of_the_rfc_are_one_moment(text: str) -> None:
    assert parse_date(text, now=NOW_2026) == RFC_MOMENT


def test_dates_are_written_in_the_preferred_form() -> None:
    assert format_date(RFC_MOMENT) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_a_fraction_is_rounded_down_on_both_sides_of_1970() -> None:
    assert format_date(RFC_MOMENT + 0.999) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert format_date(-0.5) == "Wed, 31 Dec 1969 23:59:59 GMT"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e30, -1e12, 253402300800])
def test_moments_beyond_four_digit_years_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="HTTP date"):
        format_date(seconds)


@settings(deadline=None)
@given(st.integers(-62135596800, 253402300799))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_date(format_date(seconds)) == seconds


@settings(deadline=None)
@given(st.integers(0, 253402300799))
def test_the_standard_library_writes_the_same(seconds: int) -> None:
    assert format_date(seconds) == formatdate(seconds, usegmt=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_anything_else_is_no_date(text: str) -> None:
    assert parse_date(text) is None


def test_a_leap_second_is_a_date() -> None:
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_date("Sun, 01 Jan 2017 00:00:00 GMT")


@pytest.mark.parametrize(
    ("now", "text", "same"),
    [
        # exactly 50 years ahead is still the future, one second more is the past
        ("Thu, 28 May 2026 12:00:00 GMT", "Thursday, 28-May-76 12:00:00 GMT", "Thu, 28 May 2076 12:00:00 GMT"),
        ("Thu, 28 May 2026 12:00:00 GMT", "Friday, 28-May-76 12:00:01 GMT", "Fri, 28 May 1976 12:00:01 GMT"),
        ("Thu, 28 May 2026 12:00:00 GMT", "Friday, 28-May-99 12:00:00 GMT", "Fri, 28 May 1999 12:00:00 GMT"),
        ("Fri, 01 Jan 2094 00:00:00 GMT", "Friday, 01-Jan-05 00:00:00 GMT", "Thu, 01 Jan 2105 00:00:00 GMT"),
    ],
)
def test_two_digit_years_are_at_most_fifty_years_ahead(now: str, text: str, same: str) -> None:
    assert parse_date(text, now=parse_date(now)) == parse_date(same)
