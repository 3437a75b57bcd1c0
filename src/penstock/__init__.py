"""Streaming data and large requests for FastAPI: uploads that resume, downloads that seek, live streams that replay."""

from importlib import import_module
from typing import TYPE_CHECKING

from penstock._version import __version__
from penstock.errors import (
    ContentTypeMismatch,
    DigestMismatch,
    EpochNotBegun,
    ForkOutOfRange,
    ForksRemain,
    InvalidName,
    InvalidRecord,
    LengthMismatch,
    NotAnUpload,
    OffsetMismatch,
    OffsetOutOfRange,
    PenstockError,
    PreconditionFailed,
    ProducerFenced,
    ProducerOutOfSequence,
    SequenceRegression,
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
    StreamStopped,
    TooManyStreams,
    WriterEvicted,
)
from penstock.model import Appended, Chunk, Page, Producer, Retention, StreamInfo, StreamSpec, Usage

if TYPE_CHECKING:
    from penstock.doors.hooks import NewUpload
    from penstock.doors.resumable.router import ResumableRouter
    from penstock.doors.webhooks import Webhooks
    from penstock.streams import Streams
    from penstock.toolkit.deferred import Deferred, deferred
    from penstock.toolkit.problems import install_problem_handlers
    from penstock.toolkit.productions import Production
    from penstock.toolkit.requests.body import StreamBody
    from penstock.toolkit.requests.dependency import body_docs, stream_body
    from penstock.toolkit.requests.form_fields import to_folder, to_function, to_stream
    from penstock.toolkit.requests.form_models import Form, form_model
    from penstock.toolkit.requests.forms import Part, StreamForm, UploadedFile, stream_form
    from penstock.toolkit.requests.items import InvalidItem, Items
    from penstock.toolkit.requests.progress import Progress, published_progress
    from penstock.toolkit.requests.sinks import SavedFile
    from penstock.toolkit.responses.broadcast import Broadcast, Gap, SlowSubscriber
    from penstock.toolkit.responses.draining import draining
    from penstock.toolkit.responses.files import StreamedFile, StreamedRanges
    from penstock.toolkit.responses.stream_downloads import StreamedStream
    from penstock.toolkit.responses.streaming import (
        StreamedBytes,
        StreamedCSV,
        StreamedEvents,
        StreamedJSON,
        StreamedNDJSON,
        StreamedText,
    )
    from penstock.toolkit.responses.zipping import StreamedZip, ZipEntry, ZipFolder

__all__ = [
    "Appended",
    "Broadcast",
    "Chunk",
    "ContentTypeMismatch",
    "Deferred",
    "DigestMismatch",
    "EpochNotBegun",
    "ForkOutOfRange",
    "ForksRemain",
    "Form",
    "Gap",
    "InvalidItem",
    "InvalidName",
    "InvalidRecord",
    "Items",
    "LengthMismatch",
    "NewUpload",
    "NotAnUpload",
    "OffsetMismatch",
    "OffsetOutOfRange",
    "Page",
    "Part",
    "PenstockError",
    "PreconditionFailed",
    "Producer",
    "ProducerFenced",
    "ProducerOutOfSequence",
    "Production",
    "Progress",
    "ResumableRouter",
    "Retention",
    "SavedFile",
    "SequenceRegression",
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
    "StreamStopped",
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
    "TooManyStreams",
    "UploadedFile",
    "Usage",
    "Webhooks",
    "WriterEvicted",
    "ZipEntry",
    "ZipFolder",
    "__version__",
    "body_docs",
    "deferred",
    "draining",
    "form_model",
    "install_problem_handlers",
    "published_progress",
    "stream_body",
    "stream_form",
    "to_folder",
    "to_function",
    "to_stream",
]

# Loaded when first asked for: a client never needs FastAPI, nor the store's engine.
_LAZY = {
    "Streams": "penstock.streams",
    "NewUpload": "penstock.doors.hooks",
    "Webhooks": "penstock.doors.webhooks",
    "ResumableRouter": "penstock.doors.resumable.router",
    "Deferred": "penstock.toolkit.deferred",
    "Production": "penstock.toolkit.productions",
    "deferred": "penstock.toolkit.deferred",
    "Broadcast": "penstock.toolkit.responses.broadcast",
    "Gap": "penstock.toolkit.responses.broadcast",
    "SlowSubscriber": "penstock.toolkit.responses.broadcast",
    "draining": "penstock.toolkit.responses.draining",
    "StreamedFile": "penstock.toolkit.responses.files",
    "StreamedRanges": "penstock.toolkit.responses.files",
    "to_folder": "penstock.toolkit.requests.form_fields",
    "to_function": "penstock.toolkit.requests.form_fields",
    "to_stream": "penstock.toolkit.requests.form_fields",
    "Form": "penstock.toolkit.requests.form_models",
    "form_model": "penstock.toolkit.requests.form_models",
    "Part": "penstock.toolkit.requests.forms",
    "StreamForm": "penstock.toolkit.requests.forms",
    "UploadedFile": "penstock.toolkit.requests.forms",
    "stream_form": "penstock.toolkit.requests.forms",
    "body_docs": "penstock.toolkit.requests.dependency",
    "stream_body": "penstock.toolkit.requests.dependency",
    "install_problem_handlers": "penstock.toolkit.problems",
    "StreamBody": "penstock.toolkit.requests.body",
    "InvalidItem": "penstock.toolkit.requests.items",
    "Items": "penstock.toolkit.requests.items",
    "Progress": "penstock.toolkit.requests.progress",
    "published_progress": "penstock.toolkit.requests.progress",
    "SavedFile": "penstock.toolkit.requests.sinks",
    "StreamedStream": "penstock.toolkit.responses.stream_downloads",
    "StreamedBytes": "penstock.toolkit.responses.streaming",
    "StreamedCSV": "penstock.toolkit.responses.streaming",
    "StreamedEvents": "penstock.toolkit.responses.streaming",
    "StreamedJSON": "penstock.toolkit.responses.streaming",
    "StreamedNDJSON": "penstock.toolkit.responses.streaming",
    "StreamedText": "penstock.toolkit.responses.streaming",
    "StreamedZip": "penstock.toolkit.responses.zipping",
    "ZipEntry": "penstock.toolkit.responses.zipping",
    "ZipFolder": "penstock.toolkit.responses.zipping",
}


def __getattr__(name: str) -> object:
    """Load one of the heavier names."""
    if name in _LAZY:
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
