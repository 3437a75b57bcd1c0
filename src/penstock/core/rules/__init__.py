"""The rules of streams: pure decisions.

Each takes the state (`View`) and a request, and returns the `Change` or raises. They live here once, whatever protocol
asks and whatever store applies. Times are Unix seconds.
"""

from penstock.core.rules.appending import append, append_records, check_first, create, fail, numbered, repetition, stop
from penstock.core.rules.noting import (
    CLAIM,
    LEASE,
    add_digest,
    annotate,
    claim,
    extend_lease,
    lapse,
    lapsed,
    lease,
    renew,
)
from penstock.core.rules.removing import compact, delete, expire, reap, trim
from penstock.core.rules.replacing import (
    begin_replacement,
    begin_upload,
    complete_part,
    discard,
    publish,
    put,
    shorten,
    take_over,
)
from penstock.core.rules.state import Condition, check_open_to_all, ended, grown, living, new, present, size_of

__all__ = [
    "CLAIM",
    "LEASE",
    "Condition",
    "add_digest",
    "annotate",
    "append",
    "append_records",
    "begin_replacement",
    "begin_upload",
    "check_first",
    "check_open_to_all",
    "claim",
    "compact",
    "complete_part",
    "create",
    "delete",
    "discard",
    "ended",
    "expire",
    "extend_lease",
    "fail",
    "grown",
    "lapse",
    "lapsed",
    "lease",
    "living",
    "new",
    "numbered",
    "present",
    "publish",
    "put",
    "reap",
    "renew",
    "repetition",
    "shorten",
    "size_of",
    "stop",
    "take_over",
    "trim",
]
