"""Streaming data and large requests for FastAPI: uploads that resume, downloads that seek, live streams that replay."""

from typing import TYPE_CHECKING

from penstock._version import __version__
from penstock.errors import (
    ContentTypeMismatch,
    DigestMismatch,
    InvalidName,
    InvalidRecord,
    LengthMismatch,
    OffsetMismatch,
    OffsetOutOfRange,
    PenstockError,
    PreconditionFailed,
    ProducerFenced,
    ProducerOutOfSequence,
    Stopping,
    StorageFailed,
    StorageFull,
    StreamBusy,
    StreamClosed,
    StreamError,
    StreamExists,
    StreamFailed,
    StreamGone,
    StreamIsOpen,
    StreamNotFound,
)
from penstock.model import Appended, Chunk, Page, Producer, StreamInfo, StreamSpec

if TYPE_CHECKING:
    from penstock.streams import Streams

__all__ = [
    "Appended",
    "Chunk",
    "ContentTypeMismatch",
    "DigestMismatch",
    "InvalidName",
    "InvalidRecord",
    "LengthMismatch",
    "OffsetMismatch",
    "OffsetOutOfRange",
    "Page",
    "PenstockError",
    "PreconditionFailed",
    "Producer",
    "ProducerFenced",
    "ProducerOutOfSequence",
    "Stopping",
    "StorageFailed",
    "StorageFull",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamExists",
    "StreamFailed",
    "StreamGone",
    "StreamInfo",
    "StreamIsOpen",
    "StreamNotFound",
    "StreamSpec",
    "Streams",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load `Streams`, and with it the store's engine, when it is first asked for: a client never does."""
    if name == "Streams":
        from penstock.streams import Streams

        return Streams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
