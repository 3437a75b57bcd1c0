"""Exit codes: what scripts may rely on."""

from __future__ import annotations

import enum

from penstock import errors


class Exit(enum.IntEnum):
    """How a command ended."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    INTEGRITY = 6
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "an error that no other code stands for",
    Exit.USAGE: "the command, a name or a record is not as it must be",
    Exit.NOT_FOUND: "there is no such stream",
    Exit.CONFLICT: "the stream's state or a condition forbids it",
    Exit.UNREACHABLE: "the server could not be reached, or no retry was left",
    Exit.INTEGRITY: "the bytes are not the whole or not the right ones",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
    Exit.PIPE_CLOSED: "whoever read the output went away",
}

_CODES: dict[type[errors.PenstockError], Exit] = {
    errors.InvalidName: Exit.USAGE,
    errors.InvalidRecord: Exit.USAGE,
    errors.StreamNotFound: Exit.NOT_FOUND,
    errors.StreamFailed: Exit.INTEGRITY,
    errors.DigestMismatch: Exit.INTEGRITY,
    errors.StorageFailed: Exit.UNREACHABLE,
    errors.Stopping: Exit.UNREACHABLE,
    # What is left of the errors about one stream tells that it is not in the state that is needed.
    errors.StreamError: Exit.CONFLICT,
}

_PASSING = frozenset({429, 502, 503, 504})


def code_for(error: BaseException) -> Exit:
    """Return the exit code that stands for an error."""
    if not isinstance(error, errors.PenstockError):
        return Exit.UNEXPECTED
    # Not at the top: the client is slow to import, and where one of its errors arrives, it has been imported.
    from penstock.client import errors as client

    match error:
        case client.Unreachable():
            return Exit.UNREACHABLE
        case client.ServerError():
            return Exit.UNREACHABLE if error.status in _PASSING else Exit.UNEXPECTED
        case client.CorruptTransfer() | client.SourceChanged():
            return Exit.INTEGRITY
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), Exit.UNEXPECTED)
