"""The client of a penstock server: uploads, downloads, followers and appenders that survive bad networks.

`Client` is for asyncio, `SyncClient` the same for sync code. They need httpx: ``pip install 'penstock[client]'``.
"""

from __future__ import annotations

try:
    import httpx as _httpx  # noqa: F401 -- only to say what is missing in words that help
except ImportError as error:
    raise ImportError("penstock.client needs httpx: pip install 'penstock[client]'") from error

from penstock.client.appending import Appender, RecordLike, RecordType
from penstock.client.client import Client, ClientOptions
from penstock.client.destinations import BinaryWriter
from penstock.client.door import Progress
from penstock.client.downloads import DestinationLike, Downloaded
from penstock.client.errors import (
    ClientError,
    CorruptTransfer,
    DestinationBusy,
    ServerError,
    SourceBusy,
    SourceChanged,
    Unreachable,
)
from penstock.client.presence import Presence
from penstock.client.records import Closed, Record
from penstock.client.remote import RemoteStream
from penstock.client.sources import BinaryReader, SourceLike
from penstock.client.sync import SyncAppender, SyncClient

__all__ = [
    "Appender",
    "BinaryReader",
    "BinaryWriter",
    "Client",
    "ClientError",
    "ClientOptions",
    "Closed",
    "CorruptTransfer",
    "DestinationBusy",
    "DestinationLike",
    "Downloaded",
    "Presence",
    "Progress",
    "Record",
    "RecordLike",
    "RecordType",
    "RemoteStream",
    "ServerError",
    "SourceBusy",
    "SourceChanged",
    "SourceLike",
    "SyncAppender",
    "SyncClient",
    "Unreachable",
]
