"""Media types, as they are compared (RFC 9110 section 8.3.1)."""

__all__ = ["essence"]


def essence(content_type: str) -> str:
    """Return a media type in lower case and without its parameters: ``text/plain`` of ``Text/Plain; charset=utf-8``."""
    return content_type.partition(";")[0].strip().lower()
