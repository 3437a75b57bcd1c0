"""Forms whose parts stream as they arrive, into files, streams or whatever else, before the body ends.

::

    @app.post("/upload")
    async def upload(user: CurrentUser, form: Annotated[StreamForm, Depends(stream_form(max_files=10))]):
        async for part in form:
            if part.is_file:
                await part.save(folder / part.filename)
            else:
                fields[part.name] = await part.text()

Nothing of the body is read before the handler asks for it: so whoever is refused by a dependency sends none of it.
"""

# Without the future import: FastAPI reads these annotations off an object, not a function, and needs them as they are.

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Self, TypedDict, Unpack

from starlette.requests import Request

from penstock.model import OCTETS, StreamSpec
from penstock.toolkit.problems import RequestError, answered, bad_request
from penstock.toolkit.requests.body import refusals_of
from penstock.toolkit.requests.content import Content
from penstock.toolkit.requests.dependency import DEFAULT_SIZE, BodyLimits, MiB, StreamBody
from penstock.toolkit.requests.limits import Pace
from penstock.toolkit.requests.multipart import (
    MAX_HEADER_SIZE,
    MAX_HEADERS,
    MultipartReader,
    PartEvent,
    PartHead,
    boundary_of,
    parser_package,
)
from penstock.toolkit.requests.openapi import ReadsBody
from penstock.toolkit.requests.sinks import FileSink, SavedFile

__all__ = ["FormDependency", "FormLimits", "FormOptions", "Part", "StreamForm", "UploadedFile", "stream_form"]

_ENCODINGS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
}
"""Text encodings of fields. Python knows many more, and some of them would take a while, or are no encodings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLimits(BodyLimits):
    """What is accepted of a form, besides what holds of any body. What goes past it is refused as soon as it is known.

    Attributes:
        max_size: bytes of the whole body, as they were sent and as they decode; None for no limit but those of the
            parts and their number.
        max_file_size: bytes of each file; None for no limit but that of the whole.
        max_files: how many files.
        max_field_size: bytes of each part that is no file.
        max_fields: how many parts that are no files.
        max_header_size: bytes of each line of a part's header.
        max_headers: how many lines a part's header has.
    """

    max_size: int | None = None
    max_file_size: int | None = DEFAULT_SIZE
    max_files: int = 100
    max_field_size: int = MiB
    max_fields: int = 1000
    max_header_size: int = MAX_HEADER_SIZE
    max_headers: int = MAX_HEADERS


class FormOptions(TypedDict, total=False):
    """The arguments of `FormLimits`, any of them."""

    max_size: int | None
    max_ratio: float | None
    decode: bool
    pace: Pace
    max_file_size: int | None
    max_files: int
    max_field_size: int
    max_fields: int
    max_header_size: int
    max_headers: int


@dataclass(frozen=True, slots=True)
class UploadedFile(SavedFile):
    """A file of a form that was saved.

    Attributes:
        filename: what its sender called it, safe to show and to join to a folder; empty if it had no name.
        content_type: what its sender said it holds; nobody checked it.
    """

    filename: str = ""
    content_type: str = OCTETS


class StreamForm:
    """The parts of a ``multipart/form-data`` body, in order, as they arrive: ``async for part in form``.

    A part that was not read, or not to its end, is skipped when the next one is asked for. The iteration ends when
    the form's last delimiter has come, and the whole body with it: a form that was cut is an error, never a short form.

    Args:
        request: where the body comes from.
        limits: what is accepted.

    Attributes:
        request: the same.
        limits: the same.
        body: the form's body, for its progress; it is the form that reads it.

    Raises:
        RequestError: from the constructor, for what the request's head tells already, and from reading, also of a part:
            ``unsupported-media-type`` (415), ``too-large`` (413), ``too-slow`` (408), ``body-incomplete`` (400),
            ``bad-request`` (400).
        DigestMismatch: from the end of the iteration: the bytes are not those whose digest was sent.
        ClientDisconnect: from reading: the client is gone.
    """

    def __init__(self, request: Request, limits: FormLimits | None = None) -> None:
        self.request = request
        self.limits = limits or FormLimits()
        self.body = StreamBody(request, self.limits)
        self._reader = MultipartReader(
            boundary_of(request.headers.get("content-type")),
            max_header_size=self.limits.max_header_size,
            max_headers=self.limits.max_headers,
        )
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._events: Iterator[PartEvent] = iter(())
        self._part: Part | None = None
        self._ended = False
        self._error: Exception | None = None
        self._files = self._fields = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Part":
        if self._part is not None:
            await self._part.skip()
            self._part = None
        head = await self.next_event()
        if head is None:
            raise StopAsyncIteration
        assert isinstance(head, PartHead)  # noqa: S101 - a part was just ended, or none was begun
        self._count(head)
        self._part = Part(self, head)
        return self._part

    async def aclose(self) -> None:
        """Stop reading. The rest of the body is the server's to deal with."""
        if not self._ended and self._error is None:
            self.failed(RuntimeError("The form was closed before it was read: read it within the handler."))
        if self._chunks is not None:
            await self._chunks.aclose()

    def _count(self, head: PartHead) -> None:
        if head.filename is None:
            self._fields += 1
            if self._fields > self.limits.max_fields:
                most = self.limits.max_fields
                raise self.failed(_too_large(f"The form has more than {most} fields.", max_fields=most))
        else:
            self._files += 1
            if self._files > self.limits.max_files:
                most = self.limits.max_files
                raise self.failed(_too_large(f"The form has more than {most} files.", max_files=most))

    def failed(self, error: Exception) -> Exception:
        """Remember what ended the form: whoever asks for more of it is told the same."""
        self._error = error
        return error

    async def next_event(self) -> PartEvent:
        """Return the next event: of a part, its end is None; between parts, None is the end of the form."""
        while not self._ended:
            if self._error is not None:
                raise self._error
            try:
                for event in self._events:
                    return event
                await self._more()
            except BaseException as error:
                # Also a cancellation: it ends the body's generator, whose silence must not be taken for the body's end.
                self.failed(error if isinstance(error, Exception) else bad_request("Reading the form was given up."))
                raise
        return None

    async def _more(self) -> None:
        if self._chunks is None:
            self._chunks = self.body.chunks()
        chunk = await anext(self._chunks, None)
        if chunk is None:
            self._reader.finish()
            self._ended = True
        else:
            self._events = self._reader.feed(chunk)


class Part(Content[UploadedFile]):
    """One part of a form: ``async for chunk in part``, or one of its methods, once.

    Attributes:
        form: the form that it is of; ``part.form.request`` is the request.
        name: the name of the form's field.
        filename: the file's name, safe to be joined to a folder; empty where a browser's file input was left empty, or
            where the part is no file. What the client sent may have been cleaned: no folders, no control characters,
            at most 255 bytes.
        path: the same with the folders, where browsers send a folder as a whole (``<input type="file"
            webkitdirectory>``): ``photos/2026/a.jpg``, safe to be joined to a folder, too. A name with anything in it
            that might lead elsewhere has no folders.
        is_file: whether it was sent as a file, with a name.
        content_type: the media type that the client gave; nobody checked it.
        charset: the encoding that the media type names, or None.
        headers: all of its header fields, by their lower-case names.
        size: how many of its bytes were read so far.
        max_size: the most bytes that it may have; None for no limit. Set it before the part is read.
    """

    def __init__(self, form: StreamForm, head: PartHead) -> None:
        self.form = form
        self.name = head.name
        self.filename = head.filename or ""
        self.path = head.path
        self.is_file = head.filename is not None
        self.content_type = head.content_type
        self.charset = head.charset
        self.headers: Mapping[str, str] = head.headers
        self.size = 0
        self.max_size = form.limits.max_file_size if self.is_file else form.limits.max_field_size
        self._ended = self._skipped = False

    def __repr__(self) -> str:
        return f"<Part {self.name!r} {self.filename!r} {self.content_type}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes.

        Raises:
            RequestError: ``too-large`` (413), and whatever else is wrong with the form.
        """
        if self._ended:
            self._check_there()
            raise StopAsyncIteration
        event = await self.form.next_event()
        if event is None:
            self._ended = True
            raise StopAsyncIteration
        assert isinstance(event, bytes)  # noqa: S101 - a part ends before the next one begins
        self.size += len(event)
        if self.max_size is not None and self.size > self.max_size:
            what = f"The part {self.name[:80]!r} is larger than {self.max_size} bytes, which is the most here."
            raise self.form.failed(_too_large(what, max_size=self.max_size))
        return event

    async def skip(self) -> None:
        """Let the rest of the part pass by."""
        while not self._ended:
            self._skipped = True
            await anext(self, None)

    async def read(self, max_size: int = MiB) -> bytes:
        """Return the whole part, of at most ``max_size`` bytes.

        Raises:
            RequestError: ``too-large`` (413).
        """
        self.max_size = max_size if self.max_size is None else min(self.max_size, max_size)
        return b"".join([chunk async for chunk in self._arriving()])

    async def text(self, encoding: str | None = None) -> str:
        """Return the whole part as text, in the encoding given, or in the one its header names, or in UTF-8.

        Raises:
            RequestError: ``too-large`` (413); ``bad-request`` (400) for bytes that are no such text;
                ``unsupported-media-type`` (415) for an encoding that hardly anybody uses.
        """
        named = encoding or _ENCODINGS.get((self.charset or "utf-8").lower())
        if named is None:
            raise RequestError("unsupported-media-type", 415, "Send the form's fields in UTF-8.")
        data = await self.read(self.form.limits.max_field_size)
        try:
            return data.decode(named)
        except UnicodeDecodeError:
            raise bad_request(f"The field {self.name[:80]!r} is not text in {named}.") from None

    def _arriving(self) -> Self:
        self._check_there()
        if self._ended:
            raise RuntimeError("A part is read once, and this one was read before.")
        return self

    def _check_there(self) -> None:
        if self._skipped:
            raise RuntimeError("The part was skipped: it is to be read before the next one is asked for.")

    @property
    def spec(self) -> StreamSpec:
        """What there is to say of the part as a stream: its content type, and its file name."""
        metadata = {"filename": self.filename} if self.filename else {}
        return StreamSpec(content_type=self.content_type, metadata=metadata)

    def saved(self, sink: FileSink, digests: Mapping[str, bytes]) -> UploadedFile:
        """Describe the file that the part became."""
        return UploadedFile(sink.path, sink.size, digests, self.filename, self.content_type)


class FormDependency(ReadsBody):
    """What `stream_form` returns: a dependency that yields a `StreamForm`.

    Attributes:
        limits: what is accepted.
        docs: what the OpenAPI document says of the body; see `ReadsBody`.
        refusals: why what statuses may be answered on account of it.
    """

    def __init__(self, limits: FormLimits) -> None:
        parser_package()  # that it is missing is better heard now than with the first request
        self.limits = limits
        self.docs: dict[str, Any] = form_docs({"type": "object", "additionalProperties": True})
        self.refusals = form_refusals(limits)

    async def __call__(self, request: Request) -> AsyncGenerator[StreamForm, None]:
        """Look at the request's head, and hand out its form. Nothing of the body is read."""
        with answered(request):
            async with aclosing(StreamForm(request, self.limits)) as form:
                yield form


def stream_form(**limits: Unpack[FormOptions]) -> FormDependency:
    """Return a dependency that gives a handler the request's form as a `StreamForm`.

    ::

        form: Annotated[StreamForm, Depends(stream_form(max_files=10, max_file_size=5 * GiB))]

    Nothing of the body is read before the handler asks for it, whoever refuses the request before. What the request's
    head tells already is refused when the dependency is reached: put those that authorize before it. For how errors are
    answered, see `stream_body`.

    Args:
        limits: see `FormLimits`.
    """
    return FormDependency(FormLimits(**limits))


def form_refusals(limits: FormLimits) -> dict[int, str]:
    """Return why what statuses may be answered to a form, for the OpenAPI document."""
    return {
        **refusals_of(limits),
        400: "A field is not valid, or the body is no well-formed form",
        413: "The form, a part of it or their number is too large",
        507: "There is no room to keep the files",
    }


def form_docs(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a form with the given schema."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _too_large(detail: str, **facts: int) -> RequestError:
    return RequestError("too-large", 413, detail, None, **facts)
