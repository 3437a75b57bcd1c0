"""HTTP dates (RFC 9110 section 5.6.7): written as IMF-fixdate, read in all three forms."""

import calendar
import datetime as dt
import math
import re
import time
from functools import lru_cache
from typing import Final

__all__ = ["format_date", "parse_date"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER: Final = {name: number for number, name in enumerate(_MONTHS, 1)}

_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

# HTTP-date is case-sensitive and fixed in its spacing, so nothing looser is accepted.
_FORMS: Final = (
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def format_date(seconds: float) -> str:
    """Write a moment as an HTTP date in the preferred form, IMF-fixdate.

    Args:
        seconds: Unix time in seconds. A fraction is cut off (rounded down, also before 1970), so that
            a date told to a client is never later than the moment that it stands for.

    Returns:
        For example ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Raises:
        ValueError: The moment lies outside the years 1 to 9999, or is not a number.
    """
    try:
        return _format_whole(math.floor(seconds))
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"not a moment that an HTTP date can express: {seconds!r}") from error


@lru_cache(maxsize=256)  # most responses of one second carry the same few dates
def _format_whole(seconds: int) -> str:
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    if not 1 <= year <= 9999:
        raise ValueError("the year does not have four digits")
    return f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{second:02d} GMT"


def parse_date(value: str, *, now: float | None = None) -> float | None:
    """Read an HTTP date in any of the three forms that recipients must accept.

    The day of the week is checked for its spelling only: it adds nothing to the date, and RFC 9110 does not
    make a contradicting one invalid. A leap second (``:60``) reads as the first second of the next minute.

    Args:
        value: The field's value, without surrounding white space.
        now: Unix time that decides the century of the obsolete two-digit years (RFC 850 form): the latest
            one that is not more than 50 years ahead. The system's clock if not given.

    Returns:
        Unix time in seconds, or None if the value is not a valid HTTP date. Such a value must be ignored,
        not answered with an error (RFC 9110 section 13.1.3).
    """
    for form in _FORMS:
        if match := form.fullmatch(value):
            break
    else:
        return None
    month, day = _MONTH_NUMBER[match["month"]], int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if hour > 23 or minute > 59 or second > 60:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second), time.time() if now is None else now)
    try:
        dt.date(year, month, day)
    except ValueError:
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _full_year(two_digits: int, rest: tuple[int, ...], now: float) -> int:
    today = time.gmtime(now)
    horizon = today.tm_year + 50
    year = horizon - (horizon - two_digits) % 100
    if year == horizon and rest > tuple(today[1:6]):
        year -= 100
    return year
