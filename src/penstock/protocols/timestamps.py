"""Times as RFC 3339 writes them: in header fields, and in JSON."""

from datetime import UTC, datetime

__all__ = ["parse_timestamp", "timestamp"]


def timestamp(seconds: float, precision: str = "microseconds") -> str:
    """Return a time in UTC: ``2030-01-02T03:04:05.000000Z``.

    Args:
        seconds: Unix seconds.
        precision: ``seconds``, ``milliseconds`` or ``microseconds``.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def parse_timestamp(text: str) -> float | None:
    """Return Unix seconds; None for what is no time, or has no zone, or is not in the years 1 to 9999 in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):  # the latter: the year, in UTC
        return None
