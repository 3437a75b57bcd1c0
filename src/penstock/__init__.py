"""Streaming data and large requests for FastAPI: uploads that resume, downloads that seek, live streams that replay."""

from importlib import import_module
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
    from penstock.toolkit.broadcast import Broadcast, Gap, SlowSubscriber
    from penstock.toolkit.draining import draining
    from penstock.toolkit.files import StreamedFile, StreamedRanges
    from penstock.toolkit.form_fields import to_folder, to_function, to_stream
    from penstock.toolkit.form_models import Form, form_model
    from penstock.toolkit.forms import Part, StreamForm, UploadedFile, stream_form
    from penstock.toolkit.incoming import body_docs, stream_body
    from penstock.toolkit.problems import install_problem_handlers
    from penstock.toolkit.request_body import StreamBody
    from penstock.toolkit.sinks import SavedFile
    from penstock.toolkit.stream_downloads import StreamedStream
    from penstock.toolkit.streaming import (
        StreamedBytes,
        StreamedCSV,
        StreamedEvents,
        StreamedJSON,
        StreamedNDJSON,
        StreamedText,
    )
    from penstock.toolkit.zipping import StreamedZip, ZipEntry, ZipFolder

__all__ = [
    "Appended",
    "Broadcast",
    "Chunk",
    "ContentTypeMismatch",
    "DigestMismatch",
    "Form",
    "Gap",
    "InvalidName",
    "InvalidRecord",
    "LengthMismatch",
    "OffsetMismatch",
    "OffsetOutOfRange",
    "Page",
    "Part",
    "PenstockError",
    "PreconditionFailed",
    "Producer",
    "ProducerFenced",
    "ProducerOutOfSequence",
    "SavedFile",
    "SlowSubscriber",
    "Stopping",
    "StorageFailed",
    "StorageFull",
    "StreamBody",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamExists",
    "StreamFailed",
    "StreamForm",
    "StreamGone",
    "StreamInfo",
    "StreamIsOpen",
    "StreamNotFound",
    "StreamSpec",
    "StreamedBytes",
    "StreamedCSV",
    "StreamedEvents",
    "StreamedFile",
    "StreamedJSON",
    "StreamedNDJSON",
    "StreamedRanges",
    "StreamedStream",
    "StreamedText",
    "StreamedZip",
    "Streams",
    "UploadedFile",
    "ZipEntry",
    "ZipFolder",
    "__version__",
    "body_docs",
    "draining",
    "form_model",
    "install_problem_handlers",
    "stream_body",
    "stream_form",
    "to_folder",
    "to_function",
    "to_stream",
]

# Loaded when first asked for: a client never needs FastAPI, nor the store's engine.
_LAZY = {
    "Streams": "penstock.streams",
    "Broadcast": "penstock.toolkit.broadcast",
    "Gap": "penstock.toolkit.broadcast",
    "SlowSubscriber": "penstock.toolkit.broadcast",
    "draining": "penstock.toolkit.draining",
    "StreamedFile": "penstock.toolkit.files",
    "StreamedRanges": "penstock.toolkit.files",
    "to_folder": "penstock.toolkit.form_fields",
    "to_function": "penstock.toolkit.form_fields",
    "to_stream": "penstock.toolkit.form_fields",
    "Form": "penstock.toolkit.form_models",
    "form_model": "penstock.toolkit.form_models",
    "Part": "penstock.toolkit.forms",
    "StreamForm": "penstock.toolkit.forms",
    "UploadedFile": "penstock.toolkit.forms",
    "stream_form": "penstock.toolkit.forms",
    "body_docs": "penstock.toolkit.incoming",
    "stream_body": "penstock.toolkit.incoming",
    "install_problem_handlers": "penstock.toolkit.problems",
    "StreamBody": "penstock.toolkit.request_body",
    "SavedFile": "penstock.toolkit.sinks",
    "StreamedStream": "penstock.toolkit.stream_downloads",
    "StreamedBytes": "penstock.toolkit.streaming",
    "StreamedCSV": "penstock.toolkit.streaming",
    "StreamedEvents": "penstock.toolkit.streaming",
    "StreamedJSON": "penstock.toolkit.streaming",
    "StreamedNDJSON": "penstock.toolkit.streaming",
    "StreamedText": "penstock.toolkit.streaming",
    "StreamedZip": "penstock.toolkit.zipping",
    "ZipEntry": "penstock.toolkit.zipping",
    "ZipFolder": "penstock.toolkit.zipping",
}


def __getattr__(name: str) -> object:
    """Load one of the heavier names."""
    if name in _LAZY:
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
