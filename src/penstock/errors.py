"""What can go wrong, in the words of the domain: facts as attributes, and no HTTP in here.

Every error says in its text what happened and, where there is one, the way on.
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root of all errors that penstock raises on purpose."""


class InvalidName(PenstockError):
    """A text that cannot name a stream."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"{name[:80]!r} cannot name a stream: {reason}.")


class InvalidRecord(PenstockError):
    """Bytes that are not a record of the stream's content type."""


class StreamError(PenstockError):
    """An error about one stream, whose ``name`` it carries."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(text)


class StreamNotFound(StreamError):
    """No stream has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"There is no stream named {name!r}.")


class StreamExists(StreamError):
    """A stream was to be created, and one of that name is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"There is a stream named {name!r} already.")


class ForksRemain(StreamError):
    """A name whose stream was deleted, and is kept for forks that read its bytes: it is free once they are gone."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"The stream {name!r} was deleted, and its name stays taken while it has forks.")


class ForkOutOfRange(StreamError):
    """A fork of a stream at an ``offset`` that is after its ``tail``, or where no record ends."""

    def __init__(self, name: str, offset: int, tail: int) -> None:
        self.offset = offset
        self.tail = tail
        super().__init__(name, f"The stream {name!r} cannot be forked at offset {offset}; its tail is {tail}.")


class StreamIsOpen(StreamError):
    """Only a closed stream can be replaced, and this one is still being written."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"The stream {name!r} is open: it can be replaced once it is closed, or deleted first.")


class StreamBusy(StreamError):
    """An append from outside to a stream that is one upload's until it is complete."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"The stream {name!r} is being uploaded: nobody else can append to it.")


class NotAnUpload(StreamError):
    """The bytes of an upload for a stream that grows in another way."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"The stream {name!r} is not an upload: append to it in the way that it was created.")


class WriterEvicted(StreamError):
    """A write to an upload that somebody else has taken over since: the client came back by another request."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"Another request took over the upload {name!r}: ask for its offset, and go on there.")


class StreamClosed(StreamError):
    """An append to a stream that has ended; ``tail`` is its final size in bytes."""

    def __init__(self, name: str, tail: int) -> None:
        self.tail = tail
        super().__init__(name, f"The stream {name!r} was closed at offset {tail}: nothing more can be appended.")


class StreamStopped(StreamClosed):
    """An append to a stream that a reader had closed, for a ``reason``: it asks the producer to stop."""

    def __init__(self, name: str, tail: int, reason: str) -> None:
        super().__init__(name, tail)
        self.reason = reason
        self.args = (f"The stream {name!r} was stopped at offset {tail} by a reader: {reason}",)


class StreamFailed(StreamError):
    """The stream broke at ``tail`` for a ``reason``: what can be read is not the whole."""

    def __init__(self, name: str, tail: int, reason: str) -> None:
        self.tail = tail
        self.reason = reason
        super().__init__(name, f"The stream {name!r} failed at offset {tail}: {reason}")


class StreamGone(StreamError):
    """The incarnation that was being read or written was deleted, expired, or replaced."""

    def __init__(self, name: str, incarnation: str) -> None:
        self.incarnation = incarnation
        super().__init__(name, f"This incarnation of the stream {name!r} ({incarnation}) is gone.")


class OffsetMismatch(StreamError):
    """An append at an ``offset`` that is not the ``tail``."""

    def __init__(self, name: str, offset: int, tail: int) -> None:
        self.offset = offset
        self.tail = tail
        super().__init__(name, f"An append at offset {offset} does not fit: the tail of {name!r} is {tail}.")


class OffsetOutOfRange(StreamError):
    """A read from an ``offset`` past the ``tail``, before the ``start`` of what is kept, or from within a record."""

    def __init__(self, name: str, offset: int, tail: int, why: str = "is past its tail", *, start: int = 0) -> None:
        self.offset = offset
        self.tail = tail
        self.start = start
        kept = f"; what is kept starts at {start}" if start else ""
        super().__init__(name, f"Offset {offset} of the stream {name!r} {why}; its tail is {tail}{kept}.")


class LengthMismatch(StreamError):
    """More bytes than the declared ``length``, or a close short of it; ``size`` is what there would be."""

    def __init__(self, name: str, length: int, size: int) -> None:
        self.length = length
        self.size = size
        super().__init__(name, f"The stream {name!r} was declared to have {length} bytes, not {size}.")


class ContentTypeMismatch(StreamError):
    """An append of another content type than the stream's."""

    def __init__(self, name: str, given: str, content_type: str) -> None:
        self.given = given
        self.content_type = content_type
        super().__init__(name, f"The stream {name!r} holds {content_type}, and {given} does not fit into it.")


class ProducerFenced(StreamError):
    """An append of an older epoch than the producer's current one."""

    def __init__(self, name: str, producer: str, epoch: int, current: int) -> None:
        self.producer = producer
        self.epoch = epoch
        self.current = current
        super().__init__(
            name, f"Producer {producer!r} is at epoch {current}: an append of epoch {epoch} comes too late."
        )


class ProducerOutOfSequence(StreamError):
    """An append that leaves out a sequence number; ``expected`` is the next one."""

    def __init__(self, name: str, producer: str, sequence: int, expected: int) -> None:
        self.producer = producer
        self.sequence = sequence
        self.expected = expected
        super().__init__(
            name,
            f"Producer {producer!r} sent sequence {sequence}, and {expected} comes next: send what is missing first.",
        )


class EpochNotBegun(ProducerOutOfSequence):
    """An append of a new epoch that is not its first one: every epoch begins with sequence 0."""

    def __init__(self, name: str, producer: str, sequence: int) -> None:
        super().__init__(name, producer, sequence, 0)


class SequenceRegression(StreamError):
    """An append whose writer's ``sequence`` is not after the ``last`` one of the stream, byte by byte."""

    def __init__(self, name: str, sequence: str, last: str) -> None:
        self.sequence = sequence
        self.last = last
        super().__init__(name, f"Sequence {sequence!r} is not after {last!r}, which the stream {name!r} has already.")


class PreconditionFailed(StreamError):
    """The stream is not in the state on which the caller made the change depend."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"The stream {name!r} is not in the state that the request depends on.")


class DigestMismatch(StreamError):
    """The bytes are not those whose digest was given. Digests are raw bytes, ``algorithm`` an RFC 9530 name."""

    def __init__(self, name: str, algorithm: str, given: bytes, actual: bytes) -> None:
        self.algorithm = algorithm
        self.given = given
        self.actual = actual
        super().__init__(
            name,
            f"The {algorithm} digest of what arrived is {actual.hex()}, not {given.hex()}: nothing was kept.",
        )


class StorageFull(PenstockError):
    """The disk, or a quota on it, is full. Everything that was acknowledged is there; nothing of this change is."""

    def __init__(self) -> None:
        super().__init__("The storage is full: nothing of this change was kept. Try again when there is room.")


class StorageFailed(PenstockError):
    """The storage reported an error of its own. Nothing of this change is acknowledged."""


class Stopping(PenstockError):
    """The service is shutting down: come back at the same offset in a moment."""

    def __init__(self) -> None:
        super().__init__("The service is shutting down: come back at the same offset in a moment.")


class TooManyStreams(PenstockError):
    """More streams than one reader may follow at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"More than {most} streams cannot be followed at once: follow fewer, or a longer prefix.")
