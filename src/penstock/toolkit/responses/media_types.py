"""Media types by the suffixes of file names, and which of them are compressed in themselves."""

from __future__ import annotations

import mimetypes
from typing import Final

from penstock.protocols.media_types import essence

__all__ = ["guessed", "is_compressed"]

_SUFFIXES: Final = mimetypes.MimeTypes()  # Python's own table: the machine's differs from server to server
for _suffix, _type in {
    ".7z": "application/x-7z-compressed",
    ".jsonl": "application/x-ndjson",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".zst": "application/zstd",
}.items():
    _SUFFIXES.add_type(_type, _suffix)
_CODINGS: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

_COMPRESSED: Final = frozenset(
    {
        *_CODINGS.values(),
        "application/epub+zip",
        "application/java-archive",
        "application/pdf",
        "application/vnd.apache.parquet",
        "application/vnd.rar",
        "application/x-7z-compressed",
        "application/x-rar-compressed",
        "application/x-zip-compressed",
        "application/zip",
        "application/zstd",
        "font/woff",
        "font/woff2",
    }
)
_PLAIN: Final = ("image/svg+xml", "image/bmp", "image/x-ms-bmp", "image/tiff", "audio/wav", "audio/x-wav", "audio/midi")


def guessed(name: str) -> str | None:
    """Return the media type that a file name's suffix tells, or None."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    if not stem:
        return None
    # The suffix only: of a name that looks like a URL, it would read the scheme.
    media_type, coding = _SUFFIXES.guess_type(f"x.{suffix}")
    # Of a compressed file, the bytes are those of the compressed file, whatever is in it.
    return media_type if coding is None else _CODINGS.get(coding)


def is_compressed(content_type: str) -> bool:
    """Tell whether bytes of a media type are compressed in themselves, so that more of it is in vain."""
    media_type = essence(content_type)
    if media_type in _COMPRESSED or media_type.startswith("application/vnd.openxmlformats-"):
        return True
    return media_type.startswith(("image/", "audio/", "video/")) and media_type not in _PLAIN
