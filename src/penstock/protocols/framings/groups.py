"""Records of many streams on one line: each with the name of its stream, and an id that resumes all of them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from penstock.protocols import sse
from penstock.protocols.framings import ndjson
from penstock.protocols.framings.framing import Kind, json_line, lines_of
from penstock.protocols.framings.messages import SUBPROTOCOL
from penstock.protocols.framings.sse import RETRY, type_of
from penstock.protocols.framings.values import values_of


@dataclass(frozen=True, slots=True)
class GroupFraming:
    """Writes records of many streams.

    Each is a JSON object, ``{"name": "rooms/a", "offset": 12, "data": ...}``, with ``"bytes"`` and base64 for streams
    without records. As an event, it has the id of the group in its field ``id``; as a line of NDJSON, in a member of
    that name. A message of a WebSocket is a run: ``{"name": "rooms/a", "offset": 12, "records": [...], "id": "..."}``.

    What happens to a stream is told with its name and ``"state"``, and so is the end of all, without a name.

    Attributes:
        form: what is written.
    """

    form: Literal["events", "lines", "messages"]

    @property
    def media_type(self) -> str:
        """The content type of the output; of messages, the subprotocol."""
        return {"events": sse.MEDIA_TYPE, "lines": ndjson.MEDIA_TYPE, "messages": SUBPROTOCOL}[self.form]

    def opening(self, group_id: str) -> bytes:
        """Return what comes first: from where on."""
        if self.form == "events":
            return sse.encode(retry=RETRY, id=group_id)
        return self._object({"records": [], "id": group_id} if self.form == "messages" else {"id": group_id})

    def frame(
        self, name: str, kind: Kind, offset: int, data: bytes, ids: Callable[[int], str], type_field: str | None = None
    ) -> bytes:
        """Return a run of one stream.

        Args:
            name: the stream.
            kind: what it holds.
            offset: of the first byte of ``data``.
            data: the run; see `penstock.protocols.framings`.
            ids: the id of the group, by the offset that the stream has come to.
            type_field: as of `EventFraming`.
        """
        begin = b'{"name":' + json.dumps(name, ensure_ascii=False).encode()
        end = offset + len(data)
        if kind == "bytes":
            text = b64encode(data)
            return self._one(begin + b',"offset":%d,"bytes":"%b"' % (end, text), ids(end), None)
        lines = lines_of(data)
        values = values_of(kind, lines)
        if self.form == "messages":
            return self._one(begin + b',"offset":%d,"records":[%b]' % (end, b",".join(values)), ids(end), None)
        framed = []
        at = offset
        for line, value in zip(lines, values, strict=True):
            at = min(at + len(line) + 1, end)
            event = None if type_field is None or kind != "json" else type_of(line, type_field)
            framed.append(self._one(begin + b',"offset":%d,"data":%b' % (at, value), ids(at), event))
        return b"".join(framed)

    def _one(self, members: bytes, group_id: str, event: str | None) -> bytes:
        """Write an object that is open still."""
        if self.form == "events":
            return sse.encode(members + b"}", id=group_id, event=event)
        line = members + b',"id":"%b"}' % group_id.encode()
        return line if self.form == "messages" else line + b"\n"

    def tell(self, told: Mapping[str, object], group_id: str) -> bytes:
        """Return what happened to a stream, or to all of them."""
        if self.form == "events":
            event = "end" if told.get("state") == "closed" else "error"
            return sse.encode(json_line(told), event=event, id=group_id)
        if self.form == "messages":
            told = {"end": told}
        return self._object({**told, "id": group_id})

    def heartbeat(self) -> bytes:
        """Return what shows that the line is alive; it may be nothing."""
        return {"events": sse.comment(), "lines": b"\n", "messages": b""}[self.form]

    def farewell(self) -> bytes:
        """Return what a server says that stops; it may be nothing."""
        return sse.FAREWELL if self.form == "events" else b""

    @property
    def breaks_off(self) -> bool:
        """Whether a body is broken off that does not end well."""
        return self.form == "lines"

    def _object(self, content: Mapping[str, object]) -> bytes:
        line = json_line(content)
        return line if self.form == "messages" else line + b"\n"
