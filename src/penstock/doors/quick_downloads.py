"""The plainest of downloads without the framework: a GET of a complete stream that is asked for often, or of a range.

Such a stream is kept open for a while. That what its name shows has not changed since, also by other processes, is
told by a number of the store's (`GenerationStore`): so the answer is what the long way would find. It goes that way
where the bytes are not in memory, or are many.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final

from penstock.core.ports import PromptReader
from penstock.core.service import StreamService
from penstock.doors.quick import Exchange, QuickDoor, QuickRequest
from penstock.errors import PenstockError
from penstock.protocols.dates import format_date
from penstock.toolkit.responses.stream_downloads import plain_fields

_RANGE: Final = re.compile(rb"\r\nrange:[ ]?bytes=(([0-9]{1,15})-([0-9]{0,15}))\r\n", re.IGNORECASE)

_MOST_BYTES: Final = 256 * 1024
"""Of one answer. More takes so long that the way does not matter, and is sent in slices there."""

_MOST_KEPT: Final = 256
_MOST_ASKED: Final = 4096
_SECONDS: Final = 5.0
"""For how long a stream is kept open after it was asked for."""


class _Kept:
    """A complete stream that is kept open."""

    def __init__(self, reader: PromptReader, generation: int) -> None:
        self.reader = reader
        self.generation = generation
        self.info = reader.info
        self.tail = reader.info.tail
        self.fields = "".join(f"{name}: {value}\r\n" for name, value in plain_fields(reader.info).items())
        self.asked = 0.0


class QuickDownloads(QuickDoor[bool]):
    """Downloads from a files door that lets anybody read.

    Args:
        service: the streams.
        prefix: where the files door is mounted.
    """

    def __init__(self, service: StreamService, prefix: str = "/files") -> None:
        super().__init__("GET", prefix, _RANGE)
        self._service = service
        self._kept: dict[str, _Kept] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._asked: set[str] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def meaning(self, fields: dict[bytes, bytes], *, numbered: bool) -> bool | None:
        """See `QuickDoor.meaning`: whether it is for a range."""
        return numbered if fields.keys() == ({b"range"} if numbered else set()) else None

    def length(self, numbers: Sequence[bytes]) -> int:
        """See `QuickDoor.length`."""
        del numbers
        return 0

    def take(self, request: QuickRequest[bool], body: bytes, exchange: Exchange) -> None:
        """Send the stream, or the range of it."""
        del body
        name = request.name
        kept = self._kept.get(name)
        if kept is None or kept.generation != self._service.generation(name) or kept.info.expired(self._service.now()):
            self._close(name)
            self._open(name)
            exchange.refuse()
            return
        kept.asked = time.monotonic()
        first, stop = 0, kept.tail
        if request.meaning:
            first = int(request.numbers[0])
            stop = min(stop, int(request.numbers[1]) + 1) if request.numbers[1] else stop
        content = kept.reader.read_now(first, stop) if first < stop <= first + _MOST_BYTES else None
        if content is None:
            exchange.refuse()
            return
        status = "200 OK"
        fields = f"{kept.fields}content-length: {stop - first}\r\ndate: {format_date(time.time())}\r\n\r\n"
        if request.meaning:
            status = "206 Partial Content"
            fields = f"content-range: bytes {first}-{stop - 1}/{kept.tail}\r\n{fields}"
        exchange.answer(f"HTTP/1.1 {status}\r\n{fields}".encode(), content)

    @property
    def kept(self) -> int:
        """How many streams are kept open."""
        return len(self._kept)

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        """Open a stream that was asked for before, if there is room for one more."""
        if name not in self._asked:
            if len(self._asked) >= _MOST_ASKED:
                self._asked.clear()
            self._asked.add(name)
        elif name not in self._opening and len(self._kept) + len(self._opening) < _MOST_KEPT:
            self._asked.discard(name)
            self._opening[name] = asyncio.get_running_loop().create_task(self._keep(name))

    async def _keep(self, name: str) -> None:
        try:
            generation = self._service.generation(name)
            if generation is None:
                return
            reader = await self._service.open(name)
            if isinstance(reader, PromptReader) and reader.info.complete and not reader.info.shrinks:
                self._kept[name] = _Kept(reader, generation)
                self._kept[name].asked = time.monotonic()
                if self._sweeping is None:
                    self._sweep()
            else:
                reader.close()
        except PenstockError:
            pass  # the long way tells
        finally:
            del self._opening[name]

    def _close(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.reader.close()

    def _sweep(self) -> None:
        """Close what was not asked for lately, or has been replaced, so that the disk gets its room back."""
        now = time.monotonic()
        for name, kept in list(self._kept.items()):
            if kept.asked < now - _SECONDS or kept.generation != self._service.generation(name):
                self._close(name)
        self._sweeping = None
        if self._kept:
            self._sweeping = asyncio.get_running_loop().call_later(1.0, self._sweep)

    async def stop(self) -> None:
        """Close everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for name in list(self._kept):
            self._close(name)
