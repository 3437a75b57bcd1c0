"""How the records of a stream are written for a transport: one `Framing` a format, each pure and without state.

**What is framed are runs.** A *run* is a piece of a stream that begins and ends where records do (`Runs` cuts chunks
into them). A framing turns a run at an offset into the bytes of its format, and what comes out depends on nothing else:
neither on who reads, nor on what was framed before. So it can be shared: readers that stand at the same offset and have
equal framings get the same bytes, built once. A shared tail is a mapping from ``(framing, offset)`` to ``(bytes, end)``
of the latest runs; framings are frozen and hashable for that.

**How runs may be cut and joined.** Of a framing whose output is a stream (``joins`` is true: server-sent events,
NDJSON), ``frame(a, x) + frame(a + len(x), y) == frame(a, x + y)`` wherever a record ends between the two, so that
outputs may be joined or sent apart. Of one that makes messages (``joins`` is false: WebSocket), each output is one
message: it is sent whole and by itself.

**Texts between records.** `Framing.opening` comes before the first run, `Framing.heartbeat` anywhere between two,
`Framing.farewell` where the server stops and the reader is to come back, `Framing.end` once and last. All of them may
be shared too.
"""

from penstock.protocols.framings.framing import Ending, Framing, Kind, kind_of
from penstock.protocols.framings.messages import MessageFraming
from penstock.protocols.framings.ndjson import NDJSONFraming
from penstock.protocols.framings.runs import Runs
from penstock.protocols.framings.sse import EventFraming

__all__ = ["Ending", "EventFraming", "Framing", "Kind", "MessageFraming", "NDJSONFraming", "Runs", "kind_of"]
