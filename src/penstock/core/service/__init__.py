"""The service: names in, streams out. It joins the rules with a store, a notifier and a clock.

It is one class in parts, each of which stands on the one before it: what all stand on (`base`), `reading`, `writing`,
`uploading`, and the life of the whole (`service`).
"""

from penstock.core.service.reading import PAGE
from penstock.core.service.service import Companion, StreamService, SystemClock
from penstock.core.service.writing import Append, Put

__all__ = ["PAGE", "Append", "Companion", "Put", "StreamService", "SystemClock"]
